"""A plain Celery application with coroutine tasks, for workers of tests; it knows nothing of orchestrators."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

REDIS = os.environ.get("COROUTINES_REDIS", "")
app = Celery("coroutines", broker=REDIS, backend=REDIS)
app.conf.worker_pool = "orchestra.runtime.asyncio_pool:AsyncioPool"


@app.task(bind=True)
async def nap(self: Any, number: int) -> int:
    """Say whether the request stayed this task's own while others ran."""
    mine = self.request.id
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.3))
    assert self.request.id == mine
    assert asyncio.current_task() is not None
    return number


@app.task
def plain(number: int) -> int:
    """A plain function."""
    time.sleep(1.5)
    return number


@app.task(bind=True, autoretry_for=(ValueError,), retry_kwargs={"countdown": 0, "max_retries": 3})
async def third_time(self: Any) -> int:
    """Fails twice."""
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise ValueError("again")
    return self.request.retries


@app.task(soft_time_limit=3)  # which it can deal with only if it has begun by then
async def tidies() -> str:
    """Deals with its soft limit."""
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)
    return "tidied"


@app.task(time_limit=0.2)
async def endless() -> None:
    """Takes no notice of being cancelled the first time."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)


def write(path: str, text: str) -> None:
    """Leave a word for the test."""
    Path(path).write_text(text)


@app.task
async def held(path: str) -> None:
    """Write down that it was cancelled."""
    write(path, "begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        write(path, "cancelled")
        raise


@app.task
def total(numbers: list[int]) -> int:
    """The body of a chord."""
    return sum(numbers)
