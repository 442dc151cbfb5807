"""Every command of compose and of the Kubernetes manifests, as a process with the environment that it has there."""

import base64
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestra import Orchestrator
from tests import bodies
from tests.deployed import Deployed, of_compose, of_kubernetes
from tests.processes import Process, wait_until
from tests.servers import free_port

pytestmark = pytest.mark.slow

USER = "me:secret"
COMPOSE = {"ORCHESTRA_APP": "tests.worker_app:orch", "FLOWER_BASIC_AUTH": USER, "POSTGRES_PASSWORD": ""}


class Machine:
    """Runs containers as processes, each on ports of its own: here they share one network."""

    def __init__(self, folder: Path, root: Path, broker: str) -> None:
        self.folder, self.root, self.broker, self.store = folder, root, broker, f"sqlite:///{folder / 'state.db'}"
        self.secrets = {"broker": broker, "store": self.store, "flower-basic-auth": USER}
        self._open = ExitStack()

    def run(self, container: Deployed) -> tuple[Process, dict[int, int]]:
        """Start a container; returns the process, and where its ports are."""
        ports = {port: free_port() for port in (9808, 5555)}
        env = {**container.env, "ORCHESTRA_APP": "tests.worker_app:orch", "PYTHONPATH": str(self.root)}
        env |= {"ORCHESTRA_BROKER": self.broker, "ORCHESTRA_STORE": self.store}
        env[bodies.TRACE] = str(self.folder / "trace")
        if "ORCHESTRA_METRICS_PORT" in env:
            env["ORCHESTRA_METRICS_PORT"] = str(ports[int(env["ORCHESTRA_METRICS_PORT"])])
        line = [part.replace("tasks:orch", "tests.worker_app:orch") for part in container.command]
        assert line.pop(0) == "orchestra"
        if line[0] == "flower":
            line += ["--port", str(ports[5555])]
        program = Process(
            [sys.executable, "-m", "orchestra", *line],
            log=self.folder / f"{container.name}.log",
            cwd=self.folder,
            env=env,
        )
        self._open.callback(program.kill9)
        return program.start(), ports

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def machine(tmp_path: Path, root: Path, redis_url: str) -> Iterator[Machine]:
    made = Machine(tmp_path, root, redis_url)
    yield made
    made.close()


def answers(port: int, path: str, user: str | None = None) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if user is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status == 200


def works(machine: Machine, queue: str) -> bool:
    with Orchestrator(broker=machine.broker, store=machine.store, modules=["tests"]) as orch:
        return orch.submit(bodies.echo, queue, queue=queue).wait(60).output == queue


def test_the_commands_of_kubernetes_run_pass_their_probes_and_end_when_told(machine: Machine, root: Path) -> None:
    containers = of_kubernetes(root, machine.secrets)
    assert len(containers) == 4
    running = [(each, *machine.run(each)) for each in containers]
    for container, program, ports in running:
        assert container.probes
        for port, path in container.probes:
            wait_until(lambda: answers(ports[port], path), 60, f"{container.name}{path}", ignoring=OSError)  # noqa: B023
        assert program.alive
    assert works(machine, "orchestra")
    assert works(machine, "agents")
    for container, program, _ports in running:
        program.popen.terminate()
        assert program.wait(60) == 0, (container.name, program.tail())


def test_the_commands_of_compose_run_and_end_when_told(machine: Machine, root: Path) -> None:
    containers = of_compose(root, COMPOSE)
    assert {each.name for each in containers} == {"worker", "beat", "flower"}
    running = {each.name: machine.run(each) for each in containers}
    running["worker"][0].wait_for(" ready.", 60)
    running["beat"][0].wait_for(" ready.", 60)
    port = running["flower"][1][5555]
    wait_until(lambda: answers(port, "/healthcheck"), 60, "Flower", ignoring=OSError)
    assert answers(port, "/", USER)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        answers(port, "/")
    assert works(machine, "orchestra")
    for name, (program, _ports) in running.items():
        program.popen.terminate()
        assert program.wait(60) == 0, (name, program.tail())
