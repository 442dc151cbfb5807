"""A Celery application whose task and backend note every hook that the engine relies on, and do nothing else."""

import os
import signal
import time
from typing import Any

from celery import Celery, Task, signals
from celery.backends.base import DisabledBackend
from celery.exceptions import Ignore

from tests.bodies import note


class Noting(DisabledBackend):
    """Notes what Celery asks of a result backend, and from which process."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("mark_as_"):
            return found

        def noted(task_id: str, *arguments: Any, **options: Any) -> Any:
            request = options.get("request") or next((each for each in arguments if hasattr(each, "chain")), None)
            error = next((type(each).__name__ for each in arguments if isinstance(each, BaseException)), "")
            where = "parent" if os.getpid() == PARENT else "child"
            seen = f"request {request is not None}, claimed {getattr(request, 'claim', None)}"
            note(f"{task_id} {name} {error} in {where}, {seen}".replace("  ", " "))

        return noted


app = Celery("hooks", broker=os.environ["LEGACY_BROKER"], set_as_current=False)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
PARENT = os.getpid()


class Hooked(Task):  # pyright: ignore[reportMissingTypeArgument]
    """Does in `before_start` what the engine does there."""

    abstract = True
    move_aside = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{task_id} before_start, prerun was {self.request.get('prerun')}")
        if task_id == "dropped":
            raise Ignore("claimed by somebody else")
        if task_id == "broken":
            raise ValueError("in before_start")
        if kwargs.pop("fill", False):
            args[:] = [*args, "filled in"]
        if self.move_aside:
            self.request.chain = self.request.callbacks = None
        self.request.claim = task_id

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{task_id} on_success")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{task_id} on_failure")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{task_id} after_return")


@signals.task_prerun.connect
def prerun(task: Any, **_: Any) -> None:
    """Sent before the hooks."""
    task.request.prerun = True


@app.task(base=Hooked, name="body")
def body(*args: Any) -> Any:
    """Note the arguments."""
    note(f"{body.request.id} body {list(args)}")
    return list(args)


@app.task(base=Hooked, name="stock", move_aside=False)
def stock(*args: Any) -> Any:
    """Leave Celery's own order."""
    note(f"{stock.request.id} body {list(args)}")
    return list(args)


@app.task(base=Hooked, name="fails")
def fails() -> None:
    """Raise."""
    raise ValueError("on purpose")


@app.task(base=Hooked, name="again", bind=True)
def again(self: Any) -> None:
    """Ask for a retry without publishing one."""
    from celery.exceptions import Retry

    raise Retry(exc=KeyError("x"), when=5)


@app.task(base=Hooked, name="killed")
def killed() -> None:
    """Take the process down."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Hooked, name="slow", time_limit=1)
def slow() -> None:
    """Run too long."""
    time.sleep(20)


for task in (body, stock, fails, again, killed, slow):
    task.backend = Noting(app=app)
