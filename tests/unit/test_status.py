"""Statuses: one transition table, and what derives from it."""

import pytest

from orchestra.model.status import ENDED_RUN, FOLLOWS, IDLE, OPEN, TERMINAL, TaskStatus, WorkflowStatus


def test_every_status_has_its_place_in_the_table() -> None:
    assert set(FOLLOWS) == set(TaskStatus)
    assert all(after in FOLLOWS for afters in FOLLOWS.values() for after in afters)


def test_nothing_follows_an_end_and_something_follows_everything_else() -> None:
    assert {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"} == TERMINAL
    assert not any(FOLLOWS[status] for status in TERMINAL)
    assert all(FOLLOWS[status] for status in OPEN)
    assert set(TaskStatus) == OPEN | TERMINAL
    assert {"RUNNING"} == OPEN - IDLE


def test_every_open_status_leads_to_completion_and_can_be_cancelled() -> None:
    def reaches(status: TaskStatus, seen: frozenset[TaskStatus] = frozenset()) -> bool:
        return status is TaskStatus.COMPLETED or any(
            reaches(after, seen | {status}) for after in FOLLOWS[status] - seen
        )

    assert all(reaches(status) and TaskStatus.CANCELLED in FOLLOWS[status] for status in OPEN)


def test_only_what_ran_completes_or_fails_and_only_what_waits_is_run() -> None:
    assert {status for status in TaskStatus if TaskStatus.RUNNING in FOLLOWS[status]} == {"QUEUED"}
    assert {status for status in TaskStatus if TaskStatus.COMPLETED in FOLLOWS[status]} == {"RUNNING", "WAITING"}


@pytest.mark.parametrize("status", TaskStatus)
def test_a_task_status_knows_whether_it_is_an_end_and_is_its_own_text(status: TaskStatus) -> None:
    assert status.ended == (status in TERMINAL)
    assert (status == status.value, f"{status}", TaskStatus(status.value)) == (True, status.value, status)


@pytest.mark.parametrize("status", WorkflowStatus)
def test_a_workflow_status_knows_whether_it_is_an_end(status: WorkflowStatus) -> None:
    assert status.ended == (status in ENDED_RUN) == (status.value in ("COMPLETED", "FAILED", "CANCELLED"))
