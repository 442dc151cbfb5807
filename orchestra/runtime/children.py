"""Children: how those of a Celery pool come to go on by themselves, and when their parent lets them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from billiard.process import current_process  # pyright: ignore[reportMissingTypeStubs]
from celery import Celery
from celery.worker import state

from orchestra.runtime.adapter import Adapter
from orchestra.runtime.board import Board
from orchestra.runtime.continuing import Continuation, Courier
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.observing import Measure, Sample


def continue_in_child(app: Celery, adapter: Adapter, courier: Courier, board: Board, most: int) -> None:
    """Let this process, a child of a pool, continue: in front of Celery's tracers, when these have been made."""
    cycle = adapter.cycle
    row = board.place(getattr(current_process(), "index", None))
    tasks: Mapping[str, Any] = app.tasks
    traces = {name: task.__trace__ for name, task in tasks.items() if _may_be_begun(task, cycle)}
    if row is None:
        return

    def received(queue: str) -> None:
        if cycle.observe is not None:
            cycle.observe([Sample(Measure.RECEIVED, 1, (queue,))])

    cycle.going_on = continuation = Continuation(
        board, row, traces, adapter, courier, adapter.leaving, most=most, received=received
    )
    for name, trace in traces.items():
        tasks[name].__trace__ = partial(continuation.trace, trace)


def let_continue(board: Board, worker: Any, queues: Sequence[str]) -> None:
    """Let the children of a worker continue, or not. Called before a message is given to one of them.

    Args:
        queues: Those that the worker serves.
    """
    if _needs_parent(worker):
        board.forbid()
    else:
        # What the parent has fetched ahead waits for it, and can be seen nowhere else.
        board.allow(queues if worker.prefetch_multiplier == 1 else ())


def _may_be_begun(task: Any, cycle: Cycle) -> bool:
    """Whether a task carries steps, and nothing about it is for the parent to see to."""
    adapter = getattr(task, "orchestra", None)
    limits = (task.rate_limit, task.time_limit, task.soft_time_limit)
    return getattr(adapter, "cycle", None) is cycle and limits == (None, None, None)


def _needs_parent(worker: Any) -> bool:
    """Whether a parent wants to hear of each step: monitors watch, ids are revoked, or its children are limited."""
    consumer = getattr(worker, "consumer", None)
    events = getattr(consumer, "event_dispatcher", None)
    if events is None or (events.enabled and (not events.groups or "task" in events.groups)):
        return True
    limits = (worker.time_limit, worker.soft_time_limit, worker.max_tasks_per_child, worker.max_memory_per_child)
    return bool(state.revoked) or any(limits)
