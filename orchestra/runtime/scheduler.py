"""The scheduler: a beat. It looks for jobs whose time has come, and fires them.

Any number of beats may run: what each decides holds only if the job is still as it was read, so that of several that
see a time one creates its run. Who created it publishes it; if it dies before, idle workers find the run ready.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from orchestra.engine import calendar
from orchestra.errors import StoreUnavailable
from orchestra.model.record import JobRecord
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.jobs import run_of
from orchestra.runtime.observing import Measure
from orchestra.store.contract import Firing, NewRun

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 0.5
"""How long a job that somebody else stored may go unseen."""
BATCH = 200
"""Jobs that are looked at, and fired in one transaction, at most."""
RUNS = 500
"""Runs after which a transaction takes no further job: others wait for it."""
_ROUNDS = 50
_BROKEN_FOR_S = 60.0
"""How long a job that cannot be read is left alone."""
_LATE = "later than the grace of {:g} s"


class Scheduler:
    """One beat.

    Args:
        serve: Told the queues that messages are about to be sent to.
    """

    def __init__(self, cycle: Cycle, *, serve: Callable[[Iterable[str]], object] | None = None) -> None:
        self._cycle, self._store, self._serve = cycle, cycle.store, serve

    def tick(self) -> float:
        """Fire what is due, and return how many seconds the next tick may wait."""
        for _round in range(_ROUNDS):
            now = self._cycle.clock()
            due, next_due = self._store.due_jobs(now, BATCH)
            if not due:
                return LONGEST_WAIT_S if next_due is None else min(LONGEST_WAIT_S, max(0.001, next_due - now))
            self._fire(due, now)
        return 0.0

    def turn(self) -> float:
        """Tick, whatever comes of it, and return how many seconds the next turn may wait."""
        try:
            return self.tick()
        except StoreUnavailable as error:
            logger.warning("The beat waits for the store: %s", error)
        except Exception:
            logger.exception("A tick of the beat failed")
        return LONGEST_WAIT_S

    def _fire(self, due: Iterable[JobRecord], now: float) -> None:
        for batch in _batches(self._decide(job, now) for job in due):
            for fired in self._store.fire(batch, now):
                self._cycle.count(Measure.FIRED, 0 if fired is None else len(fired.run_ids))
                if fired is not None and fired.dispatches:
                    if self._serve is not None:
                        self._serve({each.queue for each in fired.dispatches})
                    self._cycle.send(fired.dispatches)

    def _decide(self, job: JobRecord, now: float) -> Firing:
        """Say what is to become of a job; one that makes no sense is put aside, and hurts no other."""
        try:
            # A task that runs alone has nothing to be put in order with.
            known = None if job.payload["single"] else self._cycle.learned(str(job.payload["name"]))
            return firing_of(job, now, known)
        except StoreUnavailable:
            raise
        except Exception as error:
            logger.exception("Job %r (%s) cannot be fired", job.name, job.id)
            reason = f"{type(error).__name__}: {error}"[:500]
            missed = [] if job.next_run_at is None else [job.next_run_at]
            return Firing(job, (), job.next_run_at, now + _BROKEN_FOR_S, missed, 1, reason, reason)


def _batches(firings: Iterable[Firing]) -> Iterator[list[Firing]]:
    """Give the firings of one transaction at a time."""
    batch: list[Firing] = []
    for firing in firings:
        batch.append(firing)
        if sum(len(each.runs) for each in batch) >= RUNS:
            yield batch
            batch = []
    if batch:
        yield batch


def firing_of(job: JobRecord, now: float, durations: Mapping[str, float] | None = None) -> Firing:
    """Return what is to become of a job whose time has come. Pure but for the ids of the runs."""
    assert job.next_run_at is not None, job.id
    made = calendar.decide(
        job.schedule, job.next_run_at, job_id=job.id, created_at=job.created_at, runs=job.runs, now=now
    )
    last = job.last_run_at
    runs: list[NewRun] = []
    for at in made.fire:
        runs.append(run_of(job, at, last, durations))
        last = at
    due_at = None if made.next_run_at is None else calendar.due_at(job.schedule, made.next_run_at, job.id)
    reason = _LATE.format(job.schedule.grace_s)
    return Firing(job, runs, made.next_run_at, due_at, made.missed, made.missed_count, reason)


class Stoppable(Protocol):
    """What a thread of this kind runs."""

    def turn(self) -> float: ...


class SchedulerThread:
    """Turns a scheduler until it is stopped."""

    def __init__(self, scheduler: Stoppable) -> None:
        self._scheduler = scheduler
        self._news, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self.run, name="orchestra-beat", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once: a job may be due sooner than the last look knew."""
        self._news.set()

    def stop(self) -> None:
        """Stop; a second time does nothing."""
        self._stopping = True
        self._news.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def run(self) -> None:
        """Turn until stopped; what the thread does, and what a process does that is nothing but a beat."""
        wait = 0.0
        while not self._stopping:
            self._news.wait(wait)
            self._news.clear()
            if not self._stopping:
                wait = self._scheduler.turn()
