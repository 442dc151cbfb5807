"""What ``orchestra runs watch`` writes."""

import json

from orchestra import Orchestrator, TaskStatus
from orchestra.cli.watching import watch_json


def test_a_run_that_was_retried_is_watched_until_its_last_end() -> None:
    failures = [ValueError("once")]

    def flaky() -> str:
        if failures:
            raise failures.pop()
        return "well"

    written: list[str] = []
    with Orchestrator() as orch:
        task = orch.submit(flaky)
        assert task.wait(30).status is TaskStatus.FAILED
        orch.retry(task.id)
        assert watch_json(orch, task.id, written.append).output == "well"
    types = [json.loads(each)["type"] for each in written]
    assert types.count("task.failed") == 1
    assert types[-1] == "task.completed"
    assert all(each.endswith("\n") and each.count("\n") == 1 for each in written)
