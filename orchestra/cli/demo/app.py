"""The application that the demo's own worker processes serve; `ORCHESTRA_*` variables say where they meet."""

from orchestra import Orchestrator
from orchestra.cli.demo import steps

__all__ = ["orch", "steps"]

orch = Orchestrator()
