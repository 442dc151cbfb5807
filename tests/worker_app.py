"""The orchestrator that worker processes of tests serve; its settings come from the environment."""

import os

from orchestra import Orchestrator
from tests.cluster import COPIES, COUNTING, count_calls, send_copies

orch = Orchestrator(modules=["tests"])
if COPIES in os.environ:
    send_copies(orch, int(os.environ[COPIES]))
if COUNTING in os.environ:
    count_calls(orch)
