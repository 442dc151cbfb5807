"""What pods are told to run is something the command line understands."""

import importlib
import re
import shlex
import time
import tomllib
from pathlib import Path
from typing import Any

import celery.beat
import pytest
import typer.main
import yaml

import beat
from beat.probe import alive
from orchestra.errors import SettingsError
from orchestra.runtime.roles import ROLES, role
from tests.deployed import interpolated
from workers import APP_VARIABLE, command, serve
from workers.agents import ROLE as AGENTS
from workers.default import ROLE


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "docker-compose.yml").read_text())


def parse(command: list[str]) -> dict[str, Any]:
    """Let the real command line parse `command` without running it; return the options it read."""
    from orchestra.cli import app

    group = typer.main.get_command(app)
    program, name, *arguments = command
    assert program == "orchestra"
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    assert name in commands, f"{name!r} is not among {sorted(commands)}"
    return commands[name].make_context(name, arguments).params


def test_every_command_in_compose_is_one_of_ours(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if "build" in service]
    assert ours
    for service in ours:
        parse(shlex.split(interpolated(service["command"], {"ORCHESTRA_APP": "tasks:orch"})))


def test_the_default_role_is_a_command_line_the_worker_understands() -> None:
    assert parse(command(ROLE, "tasks:orch"))["role"] == "default"
    assert (ROLE.pool, ROLE.queues, ROLE.concurrency) == ("prefork", (), None)


def test_the_agents_role_runs_coroutines_on_one_loop() -> None:
    assert parse(command(AGENTS, "tasks:orch"))["role"] == "agents"
    assert (AGENTS.pool, AGENTS.queues) == ("asyncio", ("agents",))


def test_every_role_is_a_module_of_the_pods_and_a_folder_of_nothing_else(root: Path) -> None:
    assert {path.stem for path in (root / "workers").glob("[a-z]*.py")} == set(ROLES)


def test_a_role_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(
        SettingsError, match=r"there is no role 'agent'; there are: default .*; agents .* give --queues"
    ):
        role("agent")


def test_the_beat_pod_is_a_command_line_that_is_understood() -> None:
    assert parse(beat.command("tasks:orch"))["heartbeat"] == beat.HEARTBEAT
    assert parse(beat.command(None))["app"] is None


def test_the_probe_says_whether_the_beat_was_heard_lately(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    assert not alive(heartbeat, time.time())
    heartbeat.touch()
    assert alive(heartbeat, time.time())
    assert not alive(heartbeat, time.time() + 60)


def test_a_role_turns_into_a_command_line() -> None:
    line = "orchestra worker --app tasks:orch --role agents --concurrency 8"
    assert command(AGENTS, "tasks:orch", ["--concurrency", "8"]) == shlex.split(line)


def test_a_role_without_an_app_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(APP_VARIABLE, raising=False)
    with pytest.raises(SystemExit, match=r"ORCHESTRA_APP is not set: role 'default' expects module:attribute"):
        serve(ROLE)


def test_the_broker_keeps_its_messages(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_workers_wait_for_the_broker_share_a_store_and_cannot_write_elsewhere(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["depends_on"]["redis"]["condition"] == "service_healthy"
    assert worker["deploy"]["replicas"] == 2
    assert worker["read_only"] is True
    assert worker["environment"]["ORCHESTRA_STORE"].startswith("postgresql://")
    assert all(mount.endswith(":ro") for mount in worker["volumes"])


def test_all_that_is_ours_meets_at_one_store_and_one_broker_with_what_is_lost_kept_on_volumes(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    ours = {name: each for name, each in services.items() if "build" in each}
    assert set(ours) == {"worker", "beat", "flower"}
    assert (
        len(
            {
                (each["environment"]["ORCHESTRA_BROKER"], each["environment"]["ORCHESTRA_STORE"])
                for each in ours.values()
            }
        )
        == 1
    )
    assert {name: services[name]["deploy"]["replicas"] for name in ("worker", "beat")} == {"worker": 2, "beat": 2}
    for name in ("redis", "postgres"):
        (mount,) = services[name]["volumes"]
        assert mount.partition(":")[0] in compose["volumes"]
        assert "healthcheck" in services[name]
    for each in ours.values():
        assert each["read_only"] is True
        assert {"redis", "postgres"} == set(each["depends_on"])


def test_compose_holds_no_secret(root: Path) -> None:
    text = (root / "docker-compose.yml").read_text()
    named = re.findall(r"^\s*(\w*(?:PASSWORD|SECRET|TOKEN|KEY|AUTH)\w*): (.*)$", text, flags=re.MULTILINE)
    assert {name for name, _value in named} == {"PGPASSWORD", "POSTGRES_PASSWORD", "FLOWER_BASIC_AUTH"}
    # Each is taken from the environment of whoever starts compose, which refuses to start without it.
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value) for _name, value in named)


def test_celery_beat_finds_our_scheduler_by_name(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["celery.beat_schedulers"]["orchestra"].partition(":")
    assert issubclass(getattr(importlib.import_module(module), name), celery.beat.Scheduler)
