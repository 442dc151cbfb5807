"""The one module that people add: it gives their Celery application to an Orchestrator, and names workflows."""

import os
from typing import Any

from orchestra import Orchestrator, task, workflow
from tests.bodies import note
from tests.legacy import add, app, double, flaky, nap, total

orch = Orchestrator(app=app, store=os.environ["ORCHESTRA_STORE"], modules=["tests"])


@task
def tell(value: Any) -> Any:
    """A task of Orchestra's own beside the adopted ones."""
    note(f"tell {value}")
    return value


@workflow
def mixed(x: int) -> Any:
    """Adopted tasks and others in one workflow."""
    return tell(double(add(x, y=10)))


@workflow
def mapped(values: list[int]) -> Any:
    """A fan-out of adopted tasks."""
    return total(double.map([add(n, y=0) for n in values]))


@workflow
def tried(key: str) -> Any:
    """A retry of Celery's kind in the middle."""
    return tell(flaky(tell(key)))


@workflow
def naps(count: int) -> Any:
    """Several at once."""
    return tell([nap(f"nap {n}", 0.05) for n in range(count)])
