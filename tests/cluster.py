"""A broker, a store and worker processes of one test, and the trace that bodies leave."""

import base64
import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import redis
from celery import bootsteps

from orchestra import Orchestrator, Task, WorkflowRun
from tests.bodies import HOLD_AT, TRACE, lines_of, note, times_noted
from tests.forks import Program
from tests.processes import Process, wait_until

ROOT = Path(__file__).parent.parent
APP = "tests.worker_app:orch"
COPIES, COUNTING = "ORCHESTRA_TEST_COPIES", "ORCHESTRA_TEST_COUNTING"
DIES, CANCELS_ON_LOSS = "ORCHESTRA_TEST_DIES", "ORCHESTRA_TEST_CANCELS_ON_LOSS"
BREAKS = "ORCHESTRA_TEST_BREAKS"
DEAF, SPANS = "ORCHESTRA_TEST_DEAF", "ORCHESTRA_TEST_SPANS"
TASKS_PER_CHILD, RESULTS = "ORCHESTRA_TEST_TASKS_PER_CHILD", "ORCHESTRA_TEST_RESULTS"


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the trace."""

    time: float
    pid: int
    what: str


class Cluster:
    """What producers and workers of one test share. Leaving the context stops the workers and closes producers.

    Args:
        broker: URL of a broker whose queue nothing else uses meanwhile; what looks into messages wants Redis.
        store: URL of the store; default a SQLite file in the folder.
        settings: More variables for workers and other programs of the test.
    """

    def __init__(
        self,
        folder: Path,
        broker: str,
        *,
        app: str = APP,
        queue: str = "orchestra",
        store: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.broker, self.app, self.queue = folder, broker, app, queue
        self.store = store or f"sqlite:///{folder / 'state.db'}"
        self._settings = settings or {}
        self.trace = folder / "trace.tsv"
        self._open = ExitStack()
        self._count = 0

    @property
    def env(self) -> dict[str, str]:
        """The environment of workers and of other programs of the test."""
        return {
            "ORCHESTRA_BROKER": self.broker,
            "ORCHESTRA_STORE": self.store,
            "ORCHESTRA_QUEUE": self.queue,
            TRACE: str(self.trace),
            **self._settings,
        }

    def closing(self, end: Callable[[], object]) -> None:
        """Do this when the test is over."""
        self._open.callback(end)

    def orchestrator(self, **options: Any) -> Orchestrator:
        """Return a producer in this process."""
        made = Orchestrator(broker=self.broker, store=self.store, queue=self.queue, modules=["tests"], **options)
        return self._open.enter_context(made)

    def worker(self, *options: str, ready: bool = True, env: Mapping[str, str | None] | None = None) -> Process:
        """Start `orchestra worker` and wait until it takes work."""
        return self.run(["worker", "--app", self.app, *options], ready=ready, env=env)

    def run(
        self, arguments: Sequence[str], *, ready: bool = False, env: Mapping[str, str | None] | None = None,
        module: str = "orchestra",
    ) -> Process:  # fmt: skip
        """Start a command line of the package, or of another module."""
        self._count += 1
        process = Program(
            [sys.executable, "-m", module, *arguments],
            log=self.folder / f"{self._count}-{arguments[0]}.log",
            cwd=ROOT,
            env={**self.env, **(env or {})},
        )
        self._open.callback(process.kill9)  # an orderly stop takes longer, and is another test's subject
        process.start()
        if ready:
            process.wait_for(" ready.")
        return process

    def notes(self, prefix: str = "") -> list[Note]:
        """Return what bodies noted so far, in order of time."""
        lines = (line.split("\t") for line in lines_of(self.trace))
        found = [Note(float(time), int(pid), what) for time, pid, what in lines]
        return sorted((each for each in found if each.what.startswith(prefix)), key=lambda each: each.time)

    def noted(self, prefix: str = "") -> Counter[str]:
        """Return how often each thing was noted."""
        return Counter(each.what for each in self.notes(prefix))

    def release(self, name: str) -> None:
        """Let the body that holds this name go on."""
        note(f"release {name}", self.trace)

    def wait_for_note(self, prefix: str, count: int = 1, timeout: float = 30) -> Note:
        """Wait until something was noted so many times, and return the last of them."""
        wait_until(lambda: len(self.notes(prefix)) >= count, timeout, f"{count} notes of {prefix!r}")
        return self.notes(prefix)[count - 1]

    def kill_at_random(self, task: Task | WorkflowRun, kills: int, chance: random.Random, *options: str) -> None:
        """Kill the worker after a random number of further notes, again and again, and let the last one finish.

        It makes one note more at most: who is slow to kill it shall not find that it has come to its end.
        """
        for _ in range(kills):
            wanted = len(self.notes()) + chance.randint(1, 4)
            worker = self.worker(*options, ready=False, env={HOLD_AT: str(wanted + 1)})
            self.wait_for_note("", wanted, timeout=60)
            worker.kill9()
        self.worker(*options, ready=False)
        task.wait(60)

    def redis(self) -> redis.Redis:
        """Return a client of the broker."""
        return redis.Redis.from_url(self.broker)

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages that wait in the broker, with their size in bytes under `size`."""
        with self.redis() as client:
            return list(_messages(client, self.queue))

    def unacknowledged(self) -> list[dict[str, Any]]:
        """Return the messages that workers took and have not acknowledged."""
        with self.redis() as client:
            return [json.loads(value)[0] for value in cast(dict[bytes, bytes], client.hgetall("unacked")).values()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: Any) -> None:
        self._open.__exit__(*details)


def _messages(client: redis.Redis, queue: str) -> Iterator[dict[str, Any]]:
    for key in client.scan_iter(f"{queue}*"):
        if client.type(key) == b"list":
            for raw in cast(list[bytes], client.lrange(key, 0, -1)):
                yield {**json.loads(raw), "size": len(raw), "raw": raw, "key": key}


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as it was pushed to Redis."""

    size: int
    name: str
    chain: Sequence[Mapping[str, Any]]
    eta: str | None
    """Until when it would sit in a worker."""


class Eavesdropper:
    """Listens to all messages that are pushed to the queues of a Redis server, for as long as it is open."""

    def __init__(self, client: redis.Redis) -> None:
        self.sent: list[Sent] = []
        self._client = client
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._listening.set()
            for command in monitor.listen():
                words = command["command"].split(" ", 2)
                if words[0] == "LPUSH":
                    self._hear_all(words[2].replace('\\"', '"').replace("\\\\", "\\"))
                if words[0] == "ECHO":
                    return

    def _hear_all(self, texts: str) -> None:
        while texts:
            _message, end = json.JSONDecoder().raw_decode(texts)
            self._hear(texts[:end])
            texts = texts[end:].lstrip()

    def _hear(self, text: str) -> None:
        message = json.loads(text)
        _args, _kwargs, embed = json.loads(base64.b64decode(message["body"]))
        headers = message["headers"]
        name = headers["shadow"] or headers["task"]
        self.sent.append(Sent(len(text), name, embed["chain"] or (), headers.get("eta")))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with redis.Redis(connection_pool=self._client.connection_pool) as client:
            client.echo("that is all")
        self._thread.join(30)


class _Copies:
    def __init__(self, inner: Any, times: int) -> None:
        self._inner, self._times = inner, times

    def publish(self, *arguments: Any) -> None:
        for _ in range(self._times):
            self._inner.publish(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def send_copies(orch: Orchestrator, times: int) -> None:
    """Make an orchestrator send each message so many times."""
    orch.parts.cycle.publisher = _Copies(orch.parts.cycle.publisher, times)


class _Dying:
    def __init__(self, inner: Any, name: str) -> None:
        self._inner, self._name = inner, name

    def publish(self, dispatches: Sequence[Any], *arguments: Any) -> None:
        if any(each.name == self._name for each in dispatches) and not times_noted("died"):
            note("died")
            os.killpg(os.getpgid(0), signal.SIGKILL)
        self._inner.publish(dispatches, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def die_before_sending(orch: Orchestrator, name: str) -> None:
    """Make the first worker that is about to send a step of this name die, after it committed."""
    orch.parts.cycle.publisher = _Dying(orch.parts.cycle.publisher, name)


class _Counted:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name == "note_body":  # which asks nothing of the server
            return found

        def counted(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name != "orchestra-reconciler":
                note(f"store {name}")
            return found(*arguments, **options)

        return counted


def count_calls(orch: Orchestrator) -> None:
    """Make an orchestrator note each question that it asks its store, the reconciler's own aside."""
    orch.parts.cycle.store = cast(Any, _Counted(orch.parts.store))


def break_inside(orch: Orchestrator, output: str) -> None:
    """Make workers fail to say that a body came to something, as if the engine had a fault."""
    adapter = orch.parts.adapter
    done = adapter.done

    def broken(request: Any, result: object) -> None:
        if result == output:
            raise LookupError("a fault of the engine")
        done(request, result)

    adapter.done = broken


def make_deaf(app: Any, *, always: bool) -> None:
    """Make a worker's connection consume nothing, behind the worker's back; or its first connection only."""

    class Deaf(bootsteps.StartStopStep):  # pyright: ignore[reportUntypedBaseClass]
        requires = ("celery.worker.consumer.tasks:Tasks",)
        connections = 0

        def start(self, parent: Any) -> None:
            Deaf.connections += 1
            if always or Deaf.connections == 1:
                parent.task_consumer.consume = lambda *_: None

    app.steps["consumer"].add(Deaf)
