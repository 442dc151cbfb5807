"""Jobs of an embedded orchestrator: it fires them itself, and goes on with them after a restart."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestrator, ScheduledJob, Task, TaskStatus, task, workflow
from orchestra.errors import InvalidOption, InvalidSchedule, UnknownId
from orchestra.model.schedule import JobStatus
from tests.processes import wait_until


@task
def shout(text: str) -> str:
    return text.upper()


@task
def later_by_a_day(at: datetime) -> str:
    return (at + timedelta(days=1)).isoformat()


@workflow
def twice(text: str) -> Any:
    return shout(shout(text))


def sky() -> str:
    return "rain"


def broken() -> str:
    raise ValueError("no sky")


@pytest.fixture(params=["memory", "file"])
def orch(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with Orchestrator(state_file=tmp_path / "state.db" if request.param == "file" else None) as made:
        yield made


def soon(seconds: float = 0.05) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def the_run(job: ScheduledJob) -> Any:
    wait_until(job.runs, 30, "a run")
    return job.runs()[-1].wait(30)


def test_a_job_of_each_kind_runs(orch: Orchestrator) -> None:
    once = orch.schedule(agent=shout, input="once", run_at=soon())
    every = orch.schedule(ScheduledJob(Task("named", shout, "every"), interval_seconds=0.1, max_runs=2))
    flow = orch.schedule(workflow=twice, input="flow {scheduled_for}", run_at=soon())
    assert the_run(once).output == "ONCE"
    assert the_run(every).name == "named"
    assert the_run(flow).output.startswith("FLOW 20")
    wait_until(lambda: every.status is JobStatus.ENDED, 30, "the end of the job")
    assert len(every.runs()) == 2
    assert [each.id for each in orch.jobs()] == [once.id, every.id, flow.id]


def test_a_single_task_of_a_job_has_the_id_of_its_run(orch: Orchestrator) -> None:
    run = the_run(orch.schedule(agent=shout, input="x", run_at=soon()))
    assert [each.id for each in run.tasks] == [run.id]
    assert orch.status(run.id) is TaskStatus.COMPLETED


def test_a_body_that_asks_for_a_datetime_gets_the_time_it_stands_for(orch: Orchestrator) -> None:
    run = the_run(orch.schedule(agent=later_by_a_day, input="{scheduled_for}", run_at=soon(), timezone="Asia/Tokyo"))
    assert datetime.fromisoformat(run.output) == run.scheduled_for + timedelta(days=1)


def test_the_worker_calls_the_functions_of_the_context_when_the_job_has_fired(orch: Orchestrator) -> None:
    job = orch.schedule(agent=shout, input="{sky} {n} {{sky}} {x}", context={"sky": sky, "n": 3}, run_at=soon())
    assert the_run(job).output == "RAIN 3 {{SKY}} {X}"


def test_a_function_of_the_context_that_raises_fails_the_run(orch: Orchestrator) -> None:
    run = the_run(orch.schedule(agent=shout, input="{sky}", context={"sky": broken}, run_at=soon()))
    assert "no sky" in str(run.error)


def test_handlers_hear_of_firings_with_the_job(orch: Orchestrator) -> None:
    heard: list[Any] = []
    orch.on("job.fired", lambda job, event: heard.append((job.id, event.run_id)))
    job = orch.schedule(agent=shout, input="x", run_at=soon())
    wait_until(lambda: heard, 30, "the event")
    assert heard == [(job.id, the_run(job).id)]


def test_a_job_that_is_deleted_is_gone(orch: Orchestrator) -> None:
    job = orch.schedule(agent=shout, input="x", cron="@yearly")
    assert job.delete()
    assert not job.delete()
    assert orch.jobs() == []
    with pytest.raises(UnknownId, match="no job"):
        orch.get_job(job.id)


def test_jobs_go_on_after_a_restart_and_catch_up(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with Orchestrator(state_file=path) as orch:
        job = orch.schedule(agent=shout, input="x", id="j", interval_seconds=0.2)
        the_run(job)
        before = {each.scheduled_for for each in job.runs()}
    with Orchestrator(state_file=path) as orch:
        again = orch.get_job("j")
        wait_until(lambda: len(again.runs()) >= len(before) + 2, 30, "more runs")
        times = sorted(each.scheduled_for for each in again.runs() if each.scheduled_for)
        gaps = {round((later - earlier).total_seconds(), 3) for earlier, later in pairwise(times)}
        assert gaps == {0.2}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cron": "61 * * * *"}, InvalidSchedule),
        ({"cron": "0 0 30 2 *"}, InvalidSchedule),
        ({"cron": "@daily", "timezone": "Europe/Berln"}, InvalidSchedule),
        ({"interval_seconds": 0}, InvalidSchedule),
        ({"cron": "@daily", "ends_at": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidOption),
        ({"cron": "@daily", "context": {"scheduled_for": 1}}, InvalidOption),
        ({"cron": "@daily", "misfire": "maybe"}, InvalidOption),
        ({"cron": "@daily", "max_runs": 0}, InvalidOption),
        ({"run_at": "tomorrow"}, InvalidOption),
        ({}, InvalidOption),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_stored(options: dict[str, Any], error: type[Exception]) -> None:
    with Orchestrator() as orch:
        with pytest.raises(error):
            orch.schedule(agent=shout, input="x", **options)
        assert orch.jobs() == []


def test_a_naive_time_is_in_the_zone_of_the_job() -> None:
    naive = datetime(2050, 1, 1, 9, tzinfo=UTC).replace(tzinfo=None)
    with Orchestrator() as orch:
        job = orch.schedule(agent=shout, input="x", run_at=naive, timezone="Asia/Tokyo")
        assert job.next_run_at == datetime(2050, 1, 1, 0, tzinfo=UTC)


def test_what_a_job_holds_is_json(orch: Orchestrator) -> None:
    job = orch.schedule(agent=shout, input="x", cron="@daily", context={"at": datetime(2026, 1, 1, tzinfo=UTC)})
    assert json.dumps(dict(job.record.payload))
