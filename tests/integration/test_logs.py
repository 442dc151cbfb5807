"""JSON logs of real workers and beats, and of an embedded orchestrator."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestrator, Task
from orchestra.runtime.logs import JsonFormatter, write_json
from tests import bodies
from tests.cluster import Cluster
from tests.processes import Process, wait_until


@pytest.fixture(scope="module")
def cluster(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("logs"), redis_url, queue="json-logs") as made:
        yield made


def lines_of(process: Process) -> list[dict[str, Any]]:
    """Return what it wrote, but for the end of a line that is being written."""
    written = process.output
    return [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_all_that_a_worker_writes_is_json_and_what_a_body_logs_names_its_step(cluster: Cluster, pool: str) -> None:
    orch = cluster.orchestrator()
    process = cluster.worker("--pool", pool, "--concurrency", "2", "--log-format", "json")
    said = orch.submit(bodies.says, "größe\nund mehr", name="A", retry=2).wait(60)
    assert said.raise_for_status().output == 2
    wait_until(lambda: any("succeeded" in line["message"] for line in lines_of(process)), 30, "Celery's last word")
    lines = lines_of(process)
    own = [line for line in lines if line["logger"] == "bodies"]
    assert [(line["message"], line["attempt"], line["claim"]) for line in own] == [
        ("größe\nund mehr", 1, 1),
        ("größe\nund mehr", 2, 2),
    ]
    for line in own:
        about = {key: line[key] for key in ("run_id", "step_id", "step", "task", "level", "customer")}
        assert about == {
            "run_id": said.id, "step_id": f"{said.id}.0", "step": "A", "task": "tests.bodies:says", "level": "WARNING",
            "customer": 7,
        }  # fmt: skip
    ended = [line for line in lines if line.get("run_id") == said.id and line["logger"].startswith("celery.")]
    assert any("succeeded" in line["message"] for line in ended)
    assert process.stop(60) == 0


def test_all_that_a_beat_writes_is_json(cluster: Cluster) -> None:
    process = cluster.run(["beat"], ready=True, env={"ORCHESTRA_LOG_FORMAT": "json"})
    assert [line["level"] for line in lines_of(process) if " ready." in line["message"]] == ["INFO"]


def test_an_embedded_orchestrator_writes_json_to_the_handlers_that_there_are(
    monkeypatch: pytest.MonkeyPatch, untouched_process: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRA_LOG_FORMAT", "json")
    log = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(log))
    with Orchestrator() as orch:
        orch.submit(Task("A", lambda: logging.getLogger("mine").error("it is %s", "so"))).wait(30)
    (line,) = [json.loads(text) for text in log.getvalue().splitlines() if '"mine"' in text]
    assert (line["message"], line["step"], line["attempt"]) == ("it is so", "A", 1)


def test_what_json_cannot_hold_is_text_and_errors_have_their_traceback() -> None:
    logger, log = logging.getLogger("odd"), io.StringIO()
    logger.addHandler(logging.StreamHandler(log))
    write_json(logger)
    try:
        raise ValueError("\ud800")
    except ValueError:
        logger.exception("half %s", "\ud800", extra={"path": Path("a"), "numbers": {1, 2}})
    (text,) = log.getvalue().splitlines()
    line = json.loads(text)
    assert (line["message"], line["error"], line["path"]) == ("half \ud800", "ValueError", "a")
    assert line["traceback"].startswith("Traceback (most recent call last)")
    assert "run_id" not in line
    assert isinstance(logger.handlers[0].formatter, JsonFormatter)
