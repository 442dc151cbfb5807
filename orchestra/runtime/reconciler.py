"""The reconciler: what every worker does beside its work, and every beat, so that nothing is forgotten.

It renews the worker's lease, makes due retries messages, reopens what dead workers held, sends again what was lost,
and ends what runs too long. Ticks of many reconcilers may run at the same time.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from orchestra.engine.recovery import DEAF_S, UNHEARD_S, Machine, to_resend, why_dead
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef, new_id
from orchestra.model.status import TaskStatus
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.machine import this_machine
from orchestra.runtime.observing import Measure, Sample
from orchestra.runtime.quarantine import Quarantine
from orchestra.runtime.retention import Retention
from orchestra.store.contract import ClaimRef, Dispatch, Lease

logger = logging.getLogger(__name__)

TICK_S = 0.1
INSPECT_S = 1.0


class Reconciler:
    """One worker's reconciler, or that of a beat.

    Args:
        worker: Name of the worker, for people. None for a beat: it holds nothing, so it needs no lease.
        queues: Returns what it serves; may change.
        slots: How many bodies it can run at once; 0 when it takes no more.
        lease_s: How long its lease lasts; renewed after 0.3 of that.
        keep_for_s: For how long runs are kept after their end; None keeps them for ever.
        on_deaf: Called when the worker seems not to consume any more: with 1, then 2, … every 5 s that it lasts.
        holds: Whether the worker knows of a claim that it is said to have: a claim may have been made without the
            worker hearing of it, or its end not have been recorded.
        renewed: Hears of each lease that was renewed, and None when it is given back.
        stop: Ends bodies whose steps were cancelled, where the pool can; gets the Celery ids of all that are not.
        busy: How many of its slots are taken. The store does not know of bodies whose claim was superseded.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        worker: str | None,
        lease_s: float,
        queues: Callable[[], Sequence[str]] = lambda: (),
        slots: int = 0,
        holds: Callable[[ClaimRef], bool] = lambda _claim: True,
        busy: Callable[[], int] = lambda: 0,
        keep_for_s: float | None = None,
        on_deaf: Callable[[int], object] = lambda _times: None,
        stop: Callable[[set[str]], object] = lambda _held: None,
        renewed: Callable[[Lease | None], object] = lambda _lease: None,
        machine: Machine | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapter, self._cycle, self._store = adapter, adapter.cycle, adapter.cycle.store
        self._worker, self._queues, self.slots = worker or "a beat", queues, slots
        self.lease_s, self._leases = lease_s, worker is not None
        self._holds, self._busy, self._on_deaf, self._stop = holds, busy, on_deaf, stop
        self._renewed = renewed
        self._unknown: set[ClaimRef] = set()
        """Claims that the worker did not know of when it was last asked."""
        self._retention = Retention(self._store, keep_for_s, adapter.cycle.clock)
        self._rounds = 0
        self.deafness = 0
        """How often it was found to hear nothing of what it sends, since it last heard something."""
        self._probe: tuple[float, MessageRef] | None = None
        """When a step was sent again to see whether it is heard, and which."""
        self._machine = machine or this_machine()
        self._monotonic = monotonic
        self.incarnation = f"{self._worker}/{new_id()[-12:]}"
        if self._leases:
            adapter.cycle.worker = self.incarnation
        self._started_at = adapter.cycle.clock()
        self._renew_at = self._inspect_at = 0.0
        self._healthy_since = self.turned_at = self._heard_at = monotonic()
        self.reached_at = float("-inf")
        """When the store last answered. Monotonic, as is ``turned_at``, when it last began a tick."""

    def heard(self) -> None:
        """The worker received a message."""
        self._heard_at = self._monotonic()

    def start(self) -> None:
        """Take a lease, and reopen at once what workers that are known to be dead had held."""
        self._renew()
        self._store.emit("worker.online", self._about(), self._cycle.clock(), worker=self._worker)
        self.reap()

    def stop(self) -> None:
        """Give the lease back. What the worker still holds is then reopened by whoever looks next."""
        self._leases = False
        self._renewed(None)
        if self._store.release_lease(self.incarnation):
            self._store.emit("worker.offline", self._about(), self._cycle.clock(), worker=self._worker)
        Quarantine(self.incarnation).remove()

    def tick(self) -> float:
        """Do what is due, and return how many seconds the next tick may wait."""
        self._was_asleep()
        at = self.turned_at = self._monotonic()
        for claimed in self._adapter.overdue(at):
            self._adapter.time_out(claimed)
        self.keep_lease()
        now = self._cycle.clock()
        if self._leases:
            self._store.announce(self.incarnation, now - TICK_S, now)
        dispatches, next_due = self._store.due(now)
        self._cycle.send(dispatches)
        if at >= self._inspect_at:
            self._inspect_at = at + INSPECT_S
            self.reap()
            if self._leases:
                self._conserve(at, busy=self._disown())
        self._retention.tick(at)
        self.reached_at = self._monotonic()
        return TICK_S if next_due is None else min(TICK_S, max(0.001, next_due - now))

    def keep_lease(self) -> None:
        """Renew the lease if that is due. Any thread."""
        if self._leases and self._monotonic() >= self._renew_at:
            self._renew()
            self._renew_at = self._monotonic() + 0.3 * self.lease_s

    def turn(self) -> float:
        """Tick, whatever comes of it, and return how many seconds the next turn may wait."""
        try:
            return self.tick()
        except StoreUnavailable as error:
            self.failed(error)
        except Exception:
            # Whatever it was, a worker without a reconciler would be worse.
            logger.exception("A tick of the reconciler failed")
        return INSPECT_S

    def failed(self, error: StoreUnavailable) -> None:
        """A tick failed: the store has to be seen healthy for a lease time before anybody is called dead."""
        self._healthy_since = self._monotonic()
        logger.warning("The reconciler of %s: %s", self._worker, error)

    def reap(self) -> None:
        """Reopen what dead workers held. Whoever deletes a lease first reports it; the claims are safe to see twice."""
        now = self._cycle.clock()
        self._was_asleep()
        may_expire = self._monotonic() - self._healthy_since >= self.lease_s
        for lease in self._store.leases():
            reason = why_dead(lease, self._machine, now=now, may_expire=may_expire)
            if reason is None or lease.incarnation == self.incarnation:
                continue
            if self._store.release_lease(lease.incarnation, lease.expires_at):
                logger.warning("Worker %s is dead: %s", lease.worker, reason)
                self._store.emit("worker.offline", {"reason": reason}, now, worker=lease.worker)
        reopened = [self._cycle.vanish(claim, "its worker died") for claim in self._store.orphans()]
        self._cycle.count(Measure.TAKEN_OVER, sum(each is not None for each in reopened))

    def resend_all(self) -> None:
        """Send again whatever is ready, when its messages are known to be gone: an embedded broker starts empty."""
        if all(lease.incarnation == self.incarnation for lease in self._store.leases()):
            now = self._cycle.clock()
            self._cycle.send(self._store.resend(self._queues(), now + 1.0, 10_000, now))

    def _was_asleep(self) -> None:
        """A process that was stopped, with its machine perhaps, knows nothing of the time between.

        Half a lease time is less than any lease still holds that is renewed after a third of it.
        """
        at = self._monotonic()
        if at - self.turned_at > self.lease_s / 2:
            self._healthy_since = at

    def _disown(self) -> int:
        """Reopen the claims of this worker that it does not know of, and return how many it does.

        The store is asked first: what ends in between is recorded by then, and its claim is no longer the newest.
        """
        if not self.slots:
            # It is stopping, and Celery has forgotten what its children may still be doing. What they leave behind is
            # reopened when they have ended, and the lease is given back.
            return self._busy()
        claims = self._store.held(self.incarnation)
        self._stop({claim.ref.celery_id for claim in claims})
        unknown = {claim for claim in claims if not self._holds(claim)}
        # Twice unknown: one whose child has just died is forgotten a moment before its end is recorded.
        before, self._unknown = self._unknown, unknown
        for claim in sorted(unknown & before):
            self._cycle.vanish(claim, "its worker does not know of it")
        return max(len(claims) - len(unknown), self._busy())

    def _conserve(self, at: float, busy: int) -> None:
        """An idle worker that hears nothing while steps are ready concludes that their messages were lost."""
        if at - self._heard_at < UNHEARD_S:
            if (
                self._rounds
            ):  # it may be over with those that it sent: look again when that is known, not a second later
                self._inspect_at = self._heard_at + UNHEARD_S
            return
        limit = to_resend(slots=self.slots, busy=busy, heard_ago_s=at - self._heard_at, rounds=self._rounds)
        if not limit:
            return
        now = self._cycle.clock()
        self._cycle.send(self._store.refill(self._queues(), now))
        lost = self._store.resend(self._queues(), now - UNHEARD_S, limit, now)
        self._rounds = self._rounds + 1 if lost else 0
        if lost:
            logger.info("%d ready steps were not heard of for %g s and are sent again", len(lost), UNHEARD_S)
            self._cycle.count(Measure.LOST, len(lost))
            self._cycle.send(lost)
        self._listen(at, lost)

    def _listen(self, at: float, lost: Sequence[Dispatch]) -> None:
        """A worker that hears nothing of what it sends again, while nobody claims it, does not consume any more."""
        if self._probe is None or self._heard_at > self._probe[0]:
            self.deafness = 0
            self._probe = (at, lost[0].ref) if lost else None
        elif at - self._probe[0] >= DEAF_S:
            record = self._store.step(self._probe[1].step)
            self._probe = (at, self._probe[1]) if record and record.status is TaskStatus.QUEUED else None
            if self._probe is not None:
                self.deafness += 1
                logger.error("Worker %s hears nothing of what is sent to its queues", self._worker)
                self._on_deaf(self.deafness)

    def _renew(self) -> None:
        now, begun = self._cycle.clock(), time.perf_counter()
        lease = Lease(
            self.incarnation,
            self._worker,
            self._machine.host,
            self._machine.boot_id,
            self._machine.pid,
            self._machine.pid_started,
            self._queues(),
            self.slots,
            self._started_at,
            now + self.lease_s,
            now,
        )
        self._store.renew(lease)
        self._renewed(lease)
        self.reached_at = self._monotonic()
        if self._cycle.observe is not None:
            self._cycle.observe([Sample(Measure.STORE, time.perf_counter() - begun, ("renew",))])

    def _about(self) -> dict[str, object]:
        return {"queues": list(self._queues()), "slots": self.slots, "pid": self._machine.pid}


class ReconcilerThread:
    """Ticks a reconciler until it is stopped, and keeps its lease meanwhile.

    On a thread of its own: a tick publishes, and a broker that accepts connections but answers nothing would stop it
    for longer than a lease lasts. The worker's bodies run on, and nobody is to take them for dead.
    """

    def __init__(self, reconciler: Reconciler) -> None:
        self.reconciler = reconciler
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="orchestra-reconciler", daemon=True),
            threading.Thread(target=self._keep_lease, name="orchestra-lease", daemon=True),
        ]

    def start(self) -> None:
        """Start ticking."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop ticking and give the lease back; a second time does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for thread in self._threads:
            thread.join(1.0)
        try:
            self.reconciler.stop()
        except StoreUnavailable as error:
            logger.warning("The lease could not be given back: %s", error)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            wait = self.reconciler.turn()

    def _keep_lease(self) -> None:
        while not self._stopping.wait(TICK_S):
            try:
                self.reconciler.keep_lease()
            except StoreUnavailable as error:
                self.reconciler.failed(error)
            except Exception:
                logger.exception("The lease could not be renewed")
