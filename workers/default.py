"""The default role: serves the application's own queues in processes, one slot per CPU.

    ORCHESTRA_APP=tasks:orch python -m workers.default

A process per slot keeps a crash or a leak of one body away from its neighbours, and is what stock Celery does.
"""

from orchestra.runtime.roles import role
from workers import serve

ROLE = role("default")

if __name__ == "__main__":
    serve(ROLE)
