"""One visit to a contestant: its producer and its workers run, cases are measured, everything is stopped again."""

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant
from benchmarks.environments import python_of
from benchmarks.servers import Servers, memory, used
from tests.processes import Process
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
TIMEOUT_S, TIMEOUT_PER_BODY_S = 120.0, 0.01
PORTS = 4
"""How many free ports a peer is told of, for servers of its own."""
ANSWER_S = 1800.0
"""A producer that is silent for so long will not answer."""


class Failed(Exception):
    """A contestant did not do what a case asked for; the text says what happened."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one call took.

    Attributes:
        seconds: From the first submit to the last body.
        submit_s: Until everything was submitted.
        cpu_s: Processor seconds of the contestant's own processes.
        server_cpu_s: Those of the servers, all together.
        commands: How many commands the Redis servers got.
        bytes_in: How many bytes they got.
        memory_mb: Of the contestant's own processes afterwards.
    """

    seconds: float
    submit_s: float
    cpu_s: float
    server_cpu_s: float
    commands: int
    bytes_in: int
    memory_mb: float


class Visit:
    """A contestant that runs, and what can be asked of it."""

    def __init__(self, contestant: Contestant, servers: Servers, folder: Path, graphs: Path | None = None) -> None:
        self.contestant = contestant
        self.graphs = graphs
        self.servers = servers
        self._folder = folder
        self._env = {
            **servers.emptied(),
            "PYTHONPATH": str(ROOT),
            "BENCH_TICKS": str(folder / "ticks"),
            "BENCH_FOLDER": str(folder),
            "BENCH_VARIANT": contestant.variant,
            "BENCH_PORTS": ",".join(str(free_port()) for _ in range(PORTS)),
        }
        self._bin = Path(python_of(contestant.peer)).parent
        self._workers: list[Process] = []
        self._driver: subprocess.Popen[str] | None = None

    @contextmanager
    def running(self, kind: str) -> Iterator[dict[str, str]]:
        """Start the producer, give the versions, and stop everything that runs at the end.

        It is told the kind of workers that will be asked for, for contestants that have none but the producer itself.
        """
        with ExitStack() as stack:
            stack.callback(self._stop)
            self._env["BENCH_WORKERS"] = kind
            self._start_driver()
            yield self.ask("versions")

    def start(self, kind: str) -> None:
        """Prepare servers, start workers of a kind, and run some tasks."""
        self.ask("prepare")
        self.start_workers(kind)
        self.ask("ready")
        if self.offers("noop"):
            self.ask("run", 20, 60.0, "noop", 20)

    def ask(self, name: str, *arguments: object) -> Any:
        """Have the producer do something.

        Raises:
            Failed: It could not.
        """
        driver = self._driver
        assert driver is not None
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            driver.stdin.write(json.dumps([name, *arguments]) + "\n")
            driver.stdin.flush()
            if not select.select([driver.stdout], [], [], ANSWER_S)[0]:
                raise Failed(f"its producer did not answer within {ANSWER_S:g} s\n{self.tail()}")
            line = driver.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise Failed(f"its producer ended\n{self.tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["value"]

    def offers(self, name: str) -> bool:
        """Say whether the contestant can express something."""
        return self.ask("offers", name)

    def run(self, name: str, *arguments: object, bodies: int) -> Measured:
        """Submit something and measure until so many bodies have run."""
        own, theirs, counters = self._used(), self.servers.seconds(), self.servers.redis_counters()
        took = self.ask("run", bodies, TIMEOUT_S + bodies * TIMEOUT_PER_BODY_S, name, *arguments)
        after = self.servers.redis_counters()
        return Measured(
            **took,
            cpu_s=self._used() - own,
            server_cpu_s=self.servers.seconds() - theirs,
            commands=after.get("commands", 0) - counters.get("commands", 0),
            bytes_in=after.get("bytes_in", 0) - counters.get("bytes_in", 0),
            memory_mb=self.memory_mb(),
        )

    def start_workers(self, kind: str) -> None:
        """Start workers of a kind; a contestant that runs in its producer has none."""
        env = {**self._env, **self.ask("env")}
        for command in self.ask("workers", kind):
            log = self._folder / f"worker-{len(self._workers)}.log"
            program = [self._bin / command[0], *command[1:]]
            self._workers.append(Process(program, log=log, cwd=self._folder, env=env).start())

    def kill_workers(self) -> None:
        """Kill all workers with their children at once, as a power cut would."""
        for each in self._workers:
            each.kill9()

    def cpu_s(self) -> float:
        """Return the processor seconds of workers, or of the producer where that is all there is."""
        return sum(used(root) for root in self._roots())

    def memory_mb(self) -> float:
        """Return the megabytes of workers, or of the producer where that is all there is."""
        return sum(memory(root) for root in self._roots())

    def _roots(self) -> list[int]:
        return [each.pid for each in self._workers if each.alive] or [self._driver_pid]

    def tail(self) -> str:
        """Return the end of what everything wrote, for error messages."""
        logs = [self._folder / "driver.log", *(each.log for each in self._workers)]
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in logs if log.exists())

    @property
    def interpreter(self) -> str:
        """The Python of the contestant's environment."""
        return str(self._bin / "python")

    @property
    def _driver_pid(self) -> int:
        assert self._driver is not None
        return self._driver.pid

    def _used(self) -> float:
        return sum(used(root) for root in {*self._roots(), self._driver_pid})

    def _start_driver(self) -> None:
        with (self._folder / "driver.log").open("ab") as log:
            self._driver = subprocess.Popen(
                [self.interpreter, "-m", "benchmarks.driver", self.contestant.peer],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._folder,
                env={**os.environ, **self._env},
                start_new_session=True,  # a Ctrl-C is the runner's, which then stops it
            )

    def _stop(self) -> None:
        for each in self._workers:
            each.stop(8)
        if self._driver is not None:
            with self._driver as driver:
                driver.kill()
