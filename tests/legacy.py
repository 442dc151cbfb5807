"""A Celery application as people have it. It knows nothing of Orchestra; the environment says where its servers are."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from celery import Celery, Task, chain, chord, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from tests.bodies import note, times_noted

app = Celery("legacy", broker=os.environ["LEGACY_BROKER"], backend=os.environ["LEGACY_BACKEND"], set_as_current=False)
app.conf.include = ["tests.legacy_late"]


@app.task
def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@app.task
async def slowly(x: int) -> int:
    """Take a moment, as a coroutine does."""
    await asyncio.sleep(0.01)
    return 2 * x


@app.task
async def twice_slowly(x: int) -> int:
    """Await another task as the function that it is."""
    return int(await slowly(await slowly(x)))  # type: ignore[misc]


@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0, max_retries=2)
async def comes_round(key: str) -> int:
    """Fail when it is called first."""
    await asyncio.sleep(0)
    note(f"comes_round {key}")
    if times_noted(f"comes_round {key}") < 2:
        raise ConnectionError("not yet")
    return times_noted(f"comes_round {key}")


@app.task
def total(values: list[int]) -> int:
    """Sum."""
    return sum(values)


@app.task(bind=True)
def about(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return what a bound task sees of itself."""
    self.update_state(state="PROGRESS", meta={"half": True})
    return {
        "id": self.request.id,
        "name": self.name,
        "retries": self.request.retries,
        "args": self.request.args,
        "kwargs": self.request.kwargs,
        "given": [list(args), kwargs],
        "called_directly": self.request.called_directly,
    }


class Audited(Task):  # pyright: ignore[reportMissingTypeArgument]
    """A base class with hooks and a call of its own."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note(f"{self.name} call {list(args)} with {'an id' if self.request.id else 'none'}")
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{self.name} before_start {list(args)} {kwargs}")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"{self.name} on_success {retval} {list(args)}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{self.name} on_failure {exc!r} {list(args)}")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{self.name} on_retry {exc!r} {list(args)}")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(f"{self.name} after_return {status} {list(args)}")


@app.task(base=Audited, name="audited.double")
def double(x: int) -> int:
    """Return twice as much, under a name of its own."""
    if x < 0:
        raise ValueError(f"{x} is negative")
    return 2 * x


@app.task(base=Audited, bind=True, name="audited.second_time", max_retries=3)
def second_time(self: Any, key: str) -> str:
    """Ask for a retry once."""
    note(f"second_time {key}")
    if times_noted(f"second_time {key}") < 2:
        raise self.retry(countdown=0.2, exc=ConnectionError("not yet"))
    return key


@app.task(autoretry_for=(ConnectionError,), retry_backoff=1, retry_jitter=False, max_retries=4)
def flaky(key: str) -> str:
    """Fail twice; Celery waits one second, then two."""
    note(f"flaky {key}")
    if times_noted(f"flaky {key}") < 3:
        raise ConnectionError("not yet")
    return key


@app.task(autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 2, "countdown": 0.05})
def hopeless(key: str) -> None:
    """Fail always."""
    note(f"hopeless {key}")
    raise ConnectionError(f"never {key}")


@app.task(bind=True, max_retries=1)
def gives_up(self: Any, key: str) -> None:
    """Retry without an error of its own."""
    note(f"gives_up {key}")
    self.retry(countdown=0.05)


@app.task(bind=True)
def later(self: Any, key: str) -> str:
    """Ask for a retry at a time in the future."""
    note(f"later {key}")
    if times_noted(f"later {key}") < 2:
        self.retry(eta=datetime.now(UTC) + timedelta(seconds=0.3))
    return key


@app.task(bind=True)
def next_page(self: Any, page: int) -> int:
    """Go on with other arguments."""
    if page < 3:
        raise self.retry(args=[page + 1], countdown=0)
    return page


@app.task(bind=True)
def same_page(self: Any, key: str) -> str:
    """Go on with the same arguments, said again."""
    note(f"same_page {key}")
    if times_noted(f"same_page {key}") < 2:
        raise self.retry(args=(key,), kwargs={}, countdown=0)
    return key


@app.task(ignore_result=True)
def quiet(value: Any) -> Any:
    """Its results are ignored by plain Celery."""
    return value


@app.task(ignore_result=True, bind=True, max_retries=2)
def quiet_retry(self: Any, key: str) -> str:
    """Retries although its results are ignored."""
    note(f"quiet_retry {key}")
    if times_noted(f"quiet_retry {key}") < 2:
        raise self.retry(countdown=0.05)
    return key


@app.task(ignore_result=True)
def quiet_boom() -> None:
    """Fails although its results are ignored."""
    raise ValueError("heard all the same")


@shared_task(name="shared.echo")
def shared_echo(value: Any) -> Any:
    """A task of a library, which knows no application."""
    return value


@app.task
def typed() -> dict[str, Any]:
    """Return what plain JSON does not have."""
    return {
        "at": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        "id": UUID(int=7),
        "price": Decimal("1.10"),
    }


@app.task
def type_names(values: dict[str, Any]) -> dict[str, str]:
    """Return the names of the types of what it gets."""
    return {key: type(value).__name__ for key, value in values.items()}


class Unpicklable(Exception):
    """An error of the kind that pickle cannot build again."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


@app.task
def odd_error() -> None:
    """Raise an error that does not survive pickle."""
    raise Unpicklable(7, reason="on purpose")


@app.task
def ignores() -> None:
    """End without an outcome."""
    raise Ignore


@app.task
def rejects() -> None:
    """End without an outcome, in another way."""
    raise Reject("on purpose", requeue=True)


@app.task(bind=True)
def replaces(self: Any) -> None:
    """Put another task in its own place."""
    raise self.replace(add.s(1, 2))


@app.task(time_limit=3)
def limited() -> None:
    """Run into its own hard limit, which counts from when a child was given the message."""
    note("limited")
    time.sleep(30)


@app.task(soft_time_limit=3)
def softly_limited() -> str:
    """Notice its own soft limit, where the body has begun by then."""
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "noticed"
    return "slept"


@app.task
def nap(name: str, seconds: float) -> str:
    """Sleep."""
    note(f"{name} begins")
    time.sleep(seconds)
    note(f"{name} ends")
    return name


def plain_chain() -> Any:
    """Return a chain of plain Celery: (1 + 2) doubled, plus 10."""
    return chain(add.s(1, 2), double.s(), add.s(10))


def plain_chord() -> Any:
    """Return a chord of plain Celery."""
    return chord([add.s(n, n) for n in range(5)], total.s())
