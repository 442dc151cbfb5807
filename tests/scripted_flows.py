"""Workflows whose steps wait to be told what to do, and an embedded orchestrator that is steered over a pipe."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestra import Orchestrator, RetryPolicy, Task, Workflow, current, task
from orchestra.errors import InvalidOption, UnknownId

ORDERS = "ORCHESTRA_TEST_ORDERS"
"""The folder of files, one for each step that was told what to do."""


class NotYet(Exception):
    """The step is to be tried again."""


@task(retry=RetryPolicy(1000, delay=0.01, jitter=0, retry_on=(NotYet,)))
def obey() -> int:
    """Wait for an order to return, to fail or to be tried again; what is returned is the step's number."""
    step = current()
    order = Path(os.environ[ORDERS]) / f"{step.step_id}.{step.claim}"
    while not step.stop_requested:
        if order.exists():
            how = order.read_text()
            order.unlink()
            if how == "retry":
                raise NotYet
            if how == "fail":
                raise ValueError("on demand")
            return step.n
        time.sleep(0.01)
    raise InterruptedError("asked to stop")


def give_order(folder: Path, step_id: str, claim: int, how: str) -> None:
    """Tell one claim of a step what to do; it sees the whole order or none."""
    writing = folder / "unfinished"
    writing.write_text(how)
    writing.rename(folder / f"{step_id}.{claim}")


def _flow(
    *after: Sequence[int], on_failure: str = "fail", any_of: Sequence[str] = (), fallback: Sequence[int] = ()
) -> Workflow:
    tasks = [Task(f"s{n}", obey, kwargs={}, fallback=obey if n in fallback else None) for n in range(len(after))]
    dependencies = {f"s{n}": [f"s{each}" for each in before] for n, before in enumerate(after)}
    return Workflow("scripted", tasks, dependencies, on_failure=on_failure, any_of=any_of)


def flows() -> list[Workflow]:
    """Return one workflow of each shape."""
    return [
        _flow([]),
        _flow([], [0], [1]),
        _flow([], [], [0, 1], [2]),
        _flow([], [], [0, 1], on_failure="continue"),
        _flow([], [0], [0], [1, 2], [3], on_failure="continue"),
        _flow([], [0], fallback=[0]),
        _flow([], [], [0, 1], any_of=["s2"]),
    ]


def perform(orch: Orchestrator, action: str, *given: Any) -> Any:
    """Do one thing to an orchestrator; None when it says that this cannot be done."""
    if action == "submit":
        return orch.submit_workflow(flows()[given[0]]).id
    try:
        done = getattr(orch, action)(*given)
    except (InvalidOption, UnknownId):
        return None
    return done.id if action == "fork" else done


def main(state_file: str) -> None:
    """Serve an embedded orchestrator: a line of JSON in, [action, arguments], a line of JSON out."""
    orch = Orchestrator(state_file=state_file, concurrency=64)
    print("null", flush=True)
    for line in sys.stdin:
        print(json.dumps(perform(orch, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
