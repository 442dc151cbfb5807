"""A Celery application that knows nothing of Orchestra but the URL of its result backend."""

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, chord, group
from kombu.exceptions import OperationalError

app = Celery(
    "results", broker=os.environ["RESULTS_BROKER"], backend=os.environ["RESULTS_BACKEND"], set_as_current=False
)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    result_extended=True,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("RESULTS_VISIBILITY_S", "3")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    broker_connection_retry_on_startup=True,
)
if os.environ.get("RESULTS_DIE"):
    # The process is gone at the moment at which it has counted the last part and would publish the callback.
    from orchestra.runtime.chords import Chords

    def die(*_: object, **__: object) -> None:
        os._exit(1)

    Chords.publish = die


@app.task
def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@app.task
def total(values: list[Any]) -> int:
    """Sum what may be nested."""
    return sum(total(each) if isinstance(each, list) else each for each in values)


@app.task
def same(value: Any) -> Any:
    """Return what it is given."""
    return value


@app.task
def slow(n: int, seconds: float = 0.01) -> int:
    """Take a while."""
    time.sleep(seconds)
    return n


@app.task
def held(n: int, until: str) -> int:
    """Run until there is a file of that name."""
    while not Path(until).exists():
        time.sleep(0.01)
    return n


@app.task
def fail(text: str = "no") -> None:
    """Fail."""
    raise ValueError(text)


@app.task
def unheard(n: int) -> int:
    """Its result is not kept, though a chord gets it."""
    return n


unheard.ignore_result = True


@app.task(bind=True)
def stages(self: Any) -> str:
    """Say how far it is."""
    self.update_state(state="PROGRESS", meta={"share": 0.5})
    return "done"


@app.task(bind=True)
def becomes(self: Any, n: int) -> Any:
    """Put a chord in its place."""
    return self.replace(chord([add.s(each) for each in range(n)], total.s()))


@app.task(bind=True)
def widen(self: Any, n: int) -> int:
    """Add a part to the chord that it is a part of."""
    self.add_to_chord(add.s(n, 0))
    return n


@app.task(bind=True, max_retries=3)
def flaky(self: Any) -> int:
    """Succeed the second time."""
    if self.request.retries == 0:
        raise self.retry(exc=OperationalError("not yet"), countdown=0)
    return self.request.retries


@app.task
def inner(n: int) -> Any:
    """Wait for others inside a task, which Celery allows who insists."""
    return group(add.s(each) for each in range(n)).apply_async().get(timeout=30, disable_sync_subtasks=False)
