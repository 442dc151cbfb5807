"""The producer of one contestant: runs in its environment, and is told by lines of JSON what to submit.

    python -m benchmarks.driver huey

Needs nothing but Python. A peer's script is a module of `benchmarks.peers` with

- ``VERSIONS``: the distributions whose versions are shown, and ``SERVERS``: those of servers that come with them,
- ``workers(kind)``: the commands of its workers: "processes" are two worker processes as the peer recommends them,
  "slots" one with 16 slots that may sleep, "waits" one with 1,000,
- a function for each case that it can express, which submits and need not wait: ``noop(count)``, ``chain(length,
  count)``, ``fan_out(width)``, ``layers(depth, width)``, ``waits(count, seconds)``, ``stamp(begun)``,
  ``slow(seconds)``, ``graph(steps)`` with steps as [seconds, [positions of predecessors]]; ``result()`` submits a
  no-op and waits for its result,
- where it needs them: ``ENV`` for its workers, ``prepare()`` before they start (tables, queues), ``ready()`` once they
  did, ``build(name, *arguments)`` for what a program makes once, and nobody should pay for each run.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from typing import Any

from benchmarks import bodies


class Driver:
    """Carries out orders with one peer's script."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    def offers(self, name: str) -> bool:
        """Say whether the peer can express something."""
        return hasattr(self._peer, name)

    def versions(self) -> dict[str, str]:
        """Return what runs here."""
        installed = {name: importlib.metadata.version(name) for name in self._peer.VERSIONS}
        return {**installed, **getattr(self._peer, "SERVERS", {})}

    def prepare(self) -> None:
        """Make what has to be there before workers start."""
        getattr(self._peer, "prepare", lambda: None)()

    def ready(self) -> None:
        """Return when work can be submitted."""
        getattr(self._peer, "ready", lambda: None)()

    def env(self) -> dict[str, str]:
        """Return what the workers' environment needs beside the common variables."""
        return getattr(self._peer, "ENV", {})

    def workers(self, kind: str) -> list[list[str]]:
        """Return the commands of the workers."""
        return self._peer.workers(kind)

    def submit(self, name: str, *arguments: Any) -> int:
        """Submit, and return when that began."""
        getattr(self._peer, "build", lambda *_: None)(name, *arguments)
        bodies.clear()
        begun = time.monotonic_ns()
        getattr(self._peer, name)(*arguments)
        return begun

    def run(self, count: int, timeout: float, name: str, *arguments: Any) -> dict[str, float]:
        """Submit, and wait for so many bodies: seconds until all were submitted, and until the last one ran."""
        begun = self.submit(name, *arguments)
        submitted = time.monotonic_ns()
        last = max(bodies.wait(count, timeout))
        return {"submit_s": (submitted - begun) / 1e9, "seconds": (last - begun) / 1e9}

    def ticks(self, count: int, timeout: float) -> list[int]:
        """Wait for so many bodies of an earlier submit."""
        return bodies.wait(count, timeout)

    def seen(self) -> int:
        """Return how many bodies ran since the last submit."""
        return bodies.ticked()

    def latencies(self, count: int, rate: float | None) -> list[float]:
        """Return seconds from submit to start: one after the other, or so many a second whatever becomes of them."""
        bodies.clear()
        begun = time.monotonic()
        for number in range(count):
            if rate is not None:
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            self._peer.stamp(time.monotonic_ns())
            if rate is None:
                bodies.wait(number + 1, 30, 0.0002)
                time.sleep(0.005)
        return [each / 1e9 for each in bodies.wait(count, 60)]

    def results(self, count: int) -> list[float]:
        """Return seconds from submit to result, one after the other."""
        taken: list[float] = []
        for _ in range(count):
            begun = time.monotonic()
            self._peer.result()
            taken.append(time.monotonic() - begun)
            time.sleep(0.005)
        return taken


def main() -> None:
    """Answer one order a line. What the peer prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    driver = Driver(importlib.import_module(f"benchmarks.peers.{sys.argv[1]}"))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(driver, name)(*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # whatever threads the peer has left


if __name__ == "__main__":
    main()
