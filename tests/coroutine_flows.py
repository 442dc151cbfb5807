"""The orchestrator of an application with coroutine tasks."""

from orchestra import Orchestrator
from tests.coroutines import app

orch = Orchestrator(app=app)
