"""The orchestrator that worker processes of tests serve; its settings come from the environment."""

from orchestra import Orchestrator

orch = Orchestrator(modules=["tests"])
