"""Settings: from arguments, then variables, then ``orchestra.toml``, then the embedded default."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestrator
from orchestra.errors import SettingsError
from orchestra.settings import MEMORY, Settings, load


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ORCHESTRA_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_nothing_set_is_embedded_and_keeps_nothing() -> None:
    settings = load()
    assert (settings.broker, settings.store, settings.embedded, settings.queue) == (MEMORY, None, True, "orchestra")


def test_arguments_come_before_variables_and_variables_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("orchestra.toml").write_text('queue = "of the file"\nconcurrency = 2\nlease_s = 9\n')
    monkeypatch.setenv("ORCHESTRA_QUEUE", "of the variable")
    monkeypatch.setenv("ORCHESTRA_CONCURRENCY", "3")
    settings = load(concurrency=4, queue=None)
    assert (settings.concurrency, settings.queue, settings.lease_s) == (4, "of the variable", 9)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_BROKER", "")
    assert load().embedded


def test_modules_are_a_list_or_text_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_MODULES", "shop, billing.tasks,,")
    assert load().modules == ("shop", "billing.tasks")
    assert load(modules=("own",)).modules == ("own",)


@pytest.mark.parametrize(
    ("name", "value"),
    [("concurrency", 0), ("concurrency", "many"), ("lease_s", 0.1), ("window", 0), ("queue", ""), ("broker", 5)],
)
def test_a_value_that_is_not_possible_is_named_with_where_it_may_come_from(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**{name: value})
    assert f"{name}={value!r} is not possible" in str(raised.value)
    assert f"ORCHESTRA_{name.upper()}" in str(raised.value)


def test_a_variable_that_is_not_possible_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_CONCURRENCY", "lots")
    with pytest.raises(SettingsError, match=r"concurrency='lots'.*ORCHESTRA_CONCURRENCY"):
        Orchestrator()


def test_a_file_that_cannot_be_read_says_why() -> None:
    Path("orchestra.toml").write_text("queue = \n")
    with pytest.raises(SettingsError, match=r"orchestra\.toml cannot be read"):
        load()


def test_settings_cannot_be_changed() -> None:
    settings: Any = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.queue = "other"


def test_a_state_file_is_embedded_whatever_the_variables_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRA_BROKER", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("ORCHESTRA_STORE", "sqlite:///elsewhere.db")
    with Orchestrator(state_file=tmp_path / "state.db") as orch:
        assert orch.submit(len, "abc").wait(30).output == 3
    assert [path.name for path in tmp_path.glob("*.db")] == ["state.db"]


def test_every_setting_says_what_it_is() -> None:
    lines = inspect.getsource(Settings).splitlines()
    for name in Settings.model_fields:
        (at,) = [n for n, line in enumerate(lines) if line.startswith(f"    {name}: ")]
        assert lines[at + 1].strip().startswith('"""'), name
