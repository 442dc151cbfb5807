"""The agents role: serves the queue `agents`, whose bodies wait for others, a hundred at a time on one event loop.

    ORCHESTRA_APP=tasks:orch python -m workers.agents

Plain functions run on threads beside it. The number of bodies at once is what the pod's memory and the models' rate
limits allow (`--concurrency`); a body that computes for long belongs to the default role.
"""

from orchestra.runtime.roles import role
from workers import serve

ROLE = role("agents")

if __name__ == "__main__":
    serve(ROLE)
