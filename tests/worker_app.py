"""The orchestrator that worker processes of tests serve; its settings come from the environment."""

import os

from orchestra import Orchestrator
from tests.cluster import (
    BREAKS,
    CANCELS_ON_LOSS,
    COPIES,
    COUNTING,
    DEAF,
    DIES,
    RESULTS,
    TASKS_PER_CHILD,
    break_inside,
    count_calls,
    die_before_sending,
    make_deaf,
    send_copies,
)

orch = Orchestrator(modules=["tests"])
app = orch.app  # for Celery's own command, which wants a plain name
if COPIES in os.environ:
    send_copies(orch, int(os.environ[COPIES]))
if COUNTING in os.environ:
    count_calls(orch)
if TASKS_PER_CHILD in os.environ:
    orch.app.conf.worker_max_tasks_per_child = int(os.environ[TASKS_PER_CHILD])
if DIES in os.environ:
    die_before_sending(orch, os.environ[DIES])
if CANCELS_ON_LOSS in os.environ:
    orch.app.conf.worker_cancel_long_running_tasks_on_connection_loss = True
if RESULTS in os.environ:
    orch.app.conf.result_backend = os.environ[RESULTS]
if BREAKS in os.environ:
    break_inside(orch, os.environ[BREAKS])
if DEAF in os.environ:
    make_deaf(orch.app, always=os.environ[DEAF] == "always")
