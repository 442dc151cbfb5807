"""One simulation from one seed: builds the world, lets it run, and asks the judge."""

import logging
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from orchestra.errors import StoreUnavailable
from orchestra.runtime.cycle import Cycle
from orchestra.store.contract import Store
from orchestra.testing.simulation import log
from orchestra.testing.simulation.broker import Broker, SimPublisher
from orchestra.testing.simulation.judge import LEASE_S, Judge
from orchestra.testing.simulation.store import SimStore
from orchestra.testing.simulation.strand import Strands
from orchestra.testing.simulation.weather import Weather, forecast
from orchestra.testing.simulation.worker import Kind, SimWorker, Stage
from orchestra.testing.simulation.workload import QUEUES, Submission, submissions
from orchestra.testing.simulation.world import Process, Violation, World

PATIENCE_S = 400.0
"""Simulated seconds after the last fault within which every run must have ended."""
_LOG = logging.getLogger("orchestra")

T = TypeVar("T")
Open = Callable[[int], Store]
"""Opens a store with a window of a size."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed came to."""

    seed: int
    store: str
    weather: Sequence[str]
    simulated_s: float
    steps: int
    published: int
    deaths: int
    superseded: int
    went: int = 0
    """Workers that were told to go, and went."""
    unheard: int = 0
    """Crashes that were counted for claims whose bodies had not begun."""
    innocents: Sequence[str] = ()
    """Steps that were given up as poison though they kill nobody."""
    violation: Violation | None = None
    story: Sequence[str] = ()
    """What happened, a line each; empty where nobody asked and nothing was found."""

    @property
    def summary(self) -> str:
        """One paragraph, and the command that plays the seed again."""
        found = "holds" if self.violation is None else f"VIOLATION of {self.violation}"
        return (
            f"seed {self.seed} ({self.store}; {', '.join(self.weather) or 'calm'}; {self.steps} steps,"
            f" {self.simulated_s:.1f} s simulated): {found}\nmake simulate SEED={self.seed}"
        )


@dataclass
class Theatre:
    """Keeps stores and threads between seeds: opening a store costs more than a whole simulation."""

    stores: Mapping[str, Open]
    fresh_after: int = 300
    strands: Strands = field(default_factory=Strands)
    _opened: dict[tuple[str, int], tuple[Store, int]] = field(default_factory=dict[tuple[str, int], tuple[Store, int]])
    _seeds: int = 0

    def play(self, seed: int, *, tell: bool = False) -> Report:
        """Run one seed. Every choice comes from it: the store, the weather, the workload and the schedule."""
        rng = random.Random(seed)
        kind = sorted(self.stores)[seed % len(self.stores)]
        window = rng.choice((1, 2, 5, 64))
        store, used = self._opened.pop((kind, window), (None, 0))
        if store is None:
            store = self.stores[kind](window)
        report = Play(seed, kind, rng, store, self.strands, f"{seed}").run(tell=tell)
        if report.violation is None and used < self.fresh_after:
            self._opened[(kind, window)] = (store, used + 1)
        else:
            store.close()
        return report

    def close(self) -> None:
        """Close the stores and end the threads."""
        for store, _used in self._opened.values():
            store.close()
        self._opened.clear()
        self.strands.close()


class Play:
    """One simulation."""

    def __init__(self, seed: int, kind: str, rng: random.Random, store: Store, strands: Strands, prefix: str) -> None:
        self._seed, self._kind, self._rng, self._store = seed, kind, rng, store
        self.weather: Weather = forecast(rng)
        self._kinds = list(self.weather.kinds)
        self.world = World(rng, self.weather, strands)
        self.broker = Broker(self.world)
        self.judge = Judge(self.world, store)
        self.stage = Stage(self.world, self.broker, self.judge, store, rng.choice((0.1, 0.5, 1.4)))
        self._workers: dict[Process, SimWorker] = {}
        self._cursor = store.last_event()
        self._to_submit = submissions(rng, prefix, self.weather.until_s)
        self.world.on_death = self._died
        self._pending = 0

    def run(self, *, tell: bool = False) -> Report:
        """Play it to the end."""
        violation: Violation | None = None
        errors = _Errors()
        _LOG.addHandler(errors)
        level, propagate = _LOG.level, _LOG.propagate
        _LOG.setLevel(logging.ERROR)
        _LOG.propagate = False
        try:
            self._begin()
            self._until_the_end(errors)
            self._check_the_end()
        except Violation as found:
            violation = found
        except Exception as error:
            violation = Violation("no errors inside", "".join(traceback.format_exception(error)))
        finally:
            self.world.unwind()
            _LOG.removeHandler(errors)
            _LOG.setLevel(level)
            _LOG.propagate = propagate
            self._tidy()
        return self._report(violation, tell)

    # --- the cast -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        rng = self._rng
        hosts = [f"host{at}" for at in range(rng.choice((1, 1, 2, 3)))]
        for at in range(rng.choice((1, 2, 2, 3, 4))):
            # The first one serves all queues, so that every queue is served.
            queues = QUEUES if at == 0 else rng.sample(QUEUES, rng.randint(1, 3))
            forks = rng.random() < 0.6
            slots = rng.choice((1, 2, 3) if forks else (1, 3, 8))
            kind = Kind(f"w{at}", rng.choice(hosts), queues, slots, forks, LEASE_S)
            self._start(kind, 1)
        for at in self.weather.reboots:
            self.world.at(at, lambda: self._reboot(rng.choice(hosts)))
        for at in self.weather.departures:
            self.world.at(at, self._tell_one_to_go)
        for submission in self._to_submit:
            producer = self.world.process(f"p{submission.run.id[-2:]}", rng.choice(hosts))
            self._pending += 1
            self.world.spawn(producer, "submit", lambda s=submission, p=producer: self._submit(s, p), submission.at_s)

            if submission.pauses or submission.retries:
                # Not mortal: what nobody resumes waits for ever.
                operator = self.world.process(f"o{submission.run.id[-2:]}", rng.choice(hosts), mortal=False)
                self._pending += 1
                steer = lambda s=submission, p=operator: self._steer(s, p)  # noqa: E731
                self.world.spawn(operator, "steer", steer, submission.at_s)

    def _start(self, kind: Kind, number: int) -> None:
        worker = SimWorker(self.stage, kind, number)
        self._workers[worker.process] = worker

    def _died(self, process: Process) -> None:
        """The supervisor starts another worker; producers are not started again."""
        worker = self._workers.pop(process, None)
        if worker is None:
            self._pending -= 1
            return
        self.broker.leave(worker)
        if process.went:
            self.judge.leavers.gone(process)
        number = int(worker.name.rpartition(".")[2]) + 1
        self.world.at(self._rng.uniform(0.2, 3.0), lambda: self._start(worker.kind, number))

    def _tell_one_to_go(self) -> None:
        staying = [each for each in self._workers.values() if each.started and each.process.told_at is None]
        if staying:
            self._rng.choice(staying).departure.begin()

    def _reboot(self, host: str) -> None:
        self.world.boots[host] = self.world.boots.get(host, 0) + 1
        for process in [each for each in self.world.processes if each.host == host and each.alive]:
            if process in self._workers:
                self.world.kill(process, f"{host} is started anew")

    # --- producers ----------------------------------------------------------------------------------------------

    def _cycle_of(self, process: Process) -> Cycle:
        world = self.world
        return Cycle(
            SimStore.of(world, self._store, process, self.judge),
            SimPublisher(world, self.broker, process, self.judge.publishing),
            lambda: world.now + process.skew_s,
            "",
        )

    def _steer(self, submission: Submission, process: Process) -> None:
        """Pause a run, let it go on after a while, and open it again if it has ended badly by then."""
        cycle, run_id = self._cycle_of(process), submission.run.id
        for after_s, for_s in submission.pauses:
            self.world.sleep(after_s)
            paused = self._patiently(lambda: cycle.store.pause(run_id, cycle.clock()))
            cycle.send(paused.dispatches if paused else ())
            self.world.sleep(for_s)
            resumed = self._patiently(lambda: cycle.store.resume(run_id, cycle.clock()))
            cycle.send(resumed.dispatches if resumed else ())
        for after_s in submission.retries:
            self.world.sleep(after_s)
            retried = self._patiently(lambda: cycle.store.retry(run_id, cycle.clock()))
            cycle.send(retried.dispatches if retried else ())
        process.alive = False
        self._pending -= 1

    def _submit(self, submission: Submission, process: Process) -> None:
        world, cycle = self.world, self._cycle_of(process)
        (created,) = self._patiently(lambda: cycle.store.create_runs([submission.run], cycle.clock()))
        cycle.send(created.dispatches)
        for after_s, n in submission.cancels:
            world.sleep(after_s)
            recorded = self._patiently(lambda n=n: cycle.store.cancel(submission.run.id, n, cycle.clock()))
            if recorded is not None:
                cycle.send(recorded.dispatches)
        process.alive = False
        self._pending -= 1

    def _patiently(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except StoreUnavailable:
                self.world.sleep(1.0)

    # --- the end ------------------------------------------------------------------------------------------------

    def _until_the_end(self, errors: "_Errors") -> None:
        ends = [self.weather.until_s, *(end for _begin, end in self.weather.store_away + self.weather.broker_away)]
        limit = max(ends) + PATIENCE_S
        while self.world.advance():
            if errors.found:
                raise Violation("no errors inside", errors.found[0])
            if not self._pending and all(view.status.ended for view in self.judge.views.values()):
                break
            if self.world.elapsed > limit:
                raise Violation("3 no work is forgotten", f"after {limit:.0f} s: {self.judge.open_steps()}")
        # Those who are frozen wake up, and what they say is refused.
        thaw = max([self.world.now, *(each.frozen_until for each in self._workers)]) + 10.0
        self.world.at(thaw - self.world.now, lambda: None)
        while self.world.now < thaw and self.world.advance():
            if errors.found:
                raise Violation("no errors inside", errors.found[0])

    def _check_the_end(self) -> None:
        self.judge.finish()
        events = log.read(self._store, self._cursor)
        of_run: dict[str | None, list[log.Event]] = {}
        for event in events:
            of_run.setdefault(event.run_id, []).append(event)
        for view in self.judge.views.values():
            log.check(view, of_run.get(view.id, []))

    def _tidy(self) -> None:
        for lease in self._store.leases():
            self._store.release_lease(lease.incarnation)

    def _report(self, violation: Violation | None, tell: bool) -> Report:
        return Report(
            seed=self._seed,
            store=self._kind,
            weather=self._kinds,
            simulated_s=self.world.elapsed,
            steps=sum(len(view.records) for view in self.judge.views.values()),
            published=self.broker.published,
            deaths=self.world.deaths,
            superseded=self.judge.superseded,
            went=self.judge.leavers.went,
            unheard=self.judge.unheard,
            innocents=self.judge.innocents(),
            violation=violation,
            story=self.world.story() if tell or violation is not None else (),
        )


class _Errors(logging.Handler):
    """Errors that the simulated code catches and logs are none that it should have."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(logging.Formatter().format(record))
