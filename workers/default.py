"""The default role: serves the application's own queues in processes, one slot per CPU.

    ORCHESTRA_APP=tasks:orch python -m workers.default

A process per slot keeps a crash or a leak of one body away from its neighbours, and is what stock Celery does.
"""

from typing import NoReturn

from workers import Role

ROLE = Role(name="default", pool="prefork")


def main() -> NoReturn:
    """Start the worker of this role in place of this process."""
    ROLE.serve()


if __name__ == "__main__":
    main()
