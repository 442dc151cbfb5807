"""The orchestrator that worker processes of tests serve; its settings come from the environment."""

import os

from orchestra import Orchestrator
from tests.cluster import COPIES, COUNTING, RESULTS, TASKS_PER_CHILD, count_calls, send_copies

orch = Orchestrator(modules=["tests"])
app = orch.app  # for Celery's own command, which wants a plain name
if COPIES in os.environ:
    send_copies(orch, int(os.environ[COPIES]))
if COUNTING in os.environ:
    count_calls(orch)
if TASKS_PER_CHILD in os.environ:
    orch.app.conf.worker_max_tasks_per_child = int(os.environ[TASKS_PER_CHILD])
if RESULTS in os.environ:
    orch.app.conf.result_backend = os.environ[RESULTS]
