"""The wheel as a stranger gets it: alone in an empty environment, far from this checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Environment:
    """A virtual environment that holds the wheel and what it requires, and knows nothing of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTRA_", "PYTHON", "VIRTUAL_ENV"))}
        self._env = kept | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *command: str | Path, cwd: Path) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module")
def environment(wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment") / "venv"
    environment = Environment(folder)
    # What installs it lies outside of it. Most of what is installed is never imported here, so that is not compiled.
    environment.run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    pip = (sys.executable, "-m", "pip", "--python", folder, "--disable-pip-version-check", "--quiet")
    given = ("--no-compile", "--constraint", root / "constraints.txt", wheel)
    environment.run(*pip, "install", *given, cwd=folder.parent)
    return environment


def test_the_wheel_installs_alone_and_brings_no_pods(environment: Environment, tmp_path: Path) -> None:
    script = """
import importlib.util, json, orchestra
strangers = [name for name in ("workers", "beat", "tests") if importlib.util.find_spec(name)]
print(json.dumps([orchestra.__file__, strangers]))
"""
    where, strangers = json.loads(environment.run("python", "-c", script, cwd=tmp_path).splitlines()[-1])
    assert Path(where).is_relative_to(environment.folder)
    assert strangers == []
    assert "--out" in environment.run("orchestra", "demo", "--help", cwd=tmp_path)


def test_the_demo_of_the_wheel_writes_its_report(environment: Environment, tmp_path: Path) -> None:
    environment.run("orchestra", "demo", "--out", tmp_path / "report", cwd=tmp_path)
    assert json.loads((tmp_path / "report" / "report.json").read_text())
    assert "<html" in (tmp_path / "report" / "report.html").read_text().lower()


def test_dev_needs_nothing_but_the_wheel(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text("from orchestra import Orchestrator\n\norch = Orchestrator()\n")
    command = [environment.folder / "bin" / "orchestra", "dev", "--app", "flows:orch"]
    with Process(command, log=tmp_path / "dev.log", cwd=tmp_path) as dev:
        dev.wait_for("Ctrl-C stops everything.", timeout=120)  # nothing of what it imports is compiled yet
        assert "not installed: pip install 'orchestra-celery[flower]'" in dev.output
        dev.popen.terminate()
        assert dev.wait() == 0
