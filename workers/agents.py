"""The agents role: serves bodies that wait, such as those of LLM agents, many at a time on one event loop.

    ORCHESTRA_APP=tasks:orch python -m workers.agents

Plain functions run on threads beside it. The number of bodies at once is what the pod's memory and the models' rate
limits allow; a body that computes for long belongs to the default role.
"""

from typing import NoReturn

from workers import Role

ROLE = Role(name="agents", pool="asyncio", concurrency=100)


def main() -> NoReturn:
    """Start the worker of this role in place of this process."""
    ROLE.serve()


if __name__ == "__main__":
    main()
