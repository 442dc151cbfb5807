"""The worker pod: Celery's own worker, with a lease and a reconciler as bootsteps."""

import gc
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from celery import Celery, bootsteps, platforms, signals
from celery.apps.worker import Worker
from celery.worker import state

from orchestra.model.ids import MessageRef
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.asyncio_pool import DEFAULT_SLOTS, AsyncioPool, bridge_tasks
from orchestra.runtime.beat import add_beat
from orchestra.runtime.continuing import Board, continue_in_child, needs_parent
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.health import ReconcilerHealth
from orchestra.runtime.leaving import Leaving, Notice, return_messages
from orchestra.runtime.observing import Watch
from orchestra.runtime.pacemaker import Pacemaker
from orchestra.runtime.prefork import quick_to_stop
from orchestra.runtime.publisher import BrokerPublisher
from orchestra.runtime.queues import StepQueues
from orchestra.runtime.reconciler import Reconciler, ReconcilerThread
from orchestra.runtime.reports import Reports
from orchestra.runtime.routing import HEADER, is_redis, tune
from orchestra.runtime.stopping import Stopper
from orchestra.runtime.threads import ThreadPool
from orchestra.store.contract import ClaimRef

_OWN_POOLS = {"threads": ThreadPool, "asyncio": AsyncioPool}
_SLOTS = {"solo": 1, "asyncio": DEFAULT_SLOTS}
"""How many bodies run at once where nobody says; elsewhere one per CPU."""
_COLLECT_AFTER = (20_000, 5, 5)
"""New objects until the youngest are looked at, and how often until the next older ones are."""
_WATCH_CHILDREN_S = 0.25
_PATCHED = ("gevent", "eventlet")
"""Pools that take a fork to be one of theirs."""
_THREAD_LEASE = 6
"""Leases are so many times longer where bodies share the interpreter with the heartbeat: C code that holds the
interpreter lock stops it. A process that is gone is seen at once all the same, by its id."""


class LeaseStep(bootsteps.StartStopStep):  # pyright: ignore[reportUntypedBaseClass]
    """Ends the reconciler and gives the lease back, when the last body has ended.

    It stands first in the order of the worker's steps, hence last in that of stopping: behind the pool, which waits for
    its bodies. A lease given back before would let others run them a second time.
    """

    def __init__(self, parent: Any, thread: ReconcilerThread, leaving: Leaving, watch: Watch) -> None:
        super().__init__(parent)
        self._thread, self._leaving, self._watch = thread, leaving, watch

    def close(self, parent: Any) -> None:
        """The worker takes no more work: that it hears nothing from now on says nothing about lost messages."""
        self._thread.reconciler.slots = 0

    def stop(self, parent: Any) -> None:
        """Leave."""
        self._leaving.end()
        self._thread.stop()
        self._watch.stop()

    terminate = stop


def add_steps(
    app: Celery,
    adapter: Adapter,
    queues: StepQueues,
    watch: Watch,
    *,
    lease_s: float,
    keep_for_s: float | None,
    grace_s: float,
    may_continue: bool,
) -> None:
    """Make every worker of an application, however it is started, have an incarnation and a reconciler."""
    adapter.lease_s = lease_s
    steps: set[Any] = app.steps["worker"]
    step = _reconciler_step(adapter, queues, watch, lease_s, keep_for_s, grace_s, may_continue)
    # One of an earlier orchestrator of the same application has the same name.
    steps -= {each for each in steps if getattr(each, "name", None) == step.name}
    steps.add(step)


def _reconciler_step(
    adapter: Adapter,
    queues: StepQueues,
    watch: Watch,
    lease_s: float,
    keep_for_s: float | None,
    grace_s: float,
    may_continue: bool,
) -> Any:

    class ReconcilerStep(bootsteps.StartStopStep):  # pyright: ignore[reportUntypedBaseClass]
        """Runs in the parent process of every pool, from when the pool has forked its first children."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, orchestra_grace_s: float | None = None, **options: Any) -> None:
            super().__init__(parent, **options)
            tune(parent.app)
            queues.serve()
            bridge_tasks(parent.app)
            self._forks = forks = "prefork" in parent.pool_cls.__module__
            pacemaker = Pacemaker(adapter.cycle.store, adapter.cycle.clock)
            if not forks:
                adapter.in_one_process()
                if not any(name in parent.pool_cls.__module__ for name in _PATCHED):
                    pacemaker.start()
            # Before the pool forks: its children claim under the incarnation that they inherit.
            self._watch: Any = None
            self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._board = board = Board() if forks and may_continue else None
            if board is not None:
                adapter.now_at = lambda message: board.read().get(message, message)
                signals.worker_process_init.connect(self._child_begins, weak=False)
            self._parent, self._stopper = parent, cast("Stopper | None", None)
            self._reconciler = Reconciler(
                adapter,
                worker=parent.hostname,
                queues=queues.served,
                slots=parent.concurrency or 1,
                lease_s=lease_s if forks else lease_s * _THREAD_LEASE,
                keep_for_s=keep_for_s,
                holds=partial(_parent_holds, board) if forks else adapter.holds,
                busy=_parent_busy if forks else adapter.busy,
                on_deaf=lambda times: _on_deaf(parent, times),
                stop=self._stop,
                renewed=pacemaker.renewed,
            )
            self._thread = ReconcilerThread(self._reconciler)
            adapter.cycle.observe = watch.prepare(ReconcilerHealth(self._reconciler, self._obstacle))
            adapter.leaving = notice = Notice()
            if forks:
                parent.pool_cls = quick_to_stop(parent.pool_cls, notice)
            parent.leaving = self._leaving = Leaving(
                adapter.cycle,
                notice,
                grace_s=grace_s if orchestra_grace_s is None else orchestra_grace_s,
                forks=forks,
                release=self._thread.stop,
            )
            Reports(adapter, parent.hostname).connect()
            os.register_at_fork(after_in_child=adapter.forked)
            signals.worker_process_shutdown.connect(self._child_ends, weak=False)

        def include(self, parent: Any) -> bool:
            parent.steps.insert(0, LeaseStep(parent, self._thread, self._leaving, watch))
            return super().include(parent)

        def register_with_event_loop(self, parent: Any, hub: Any) -> None:
            # Celery sees a child's pipe close a moment before the child can be waited for, and when it loses that race
            # looks again after five seconds only.
            if self._watch is not None:
                self._watch.cancel()
            if self._forks:
                self._watch = hub.call_repeatedly(_WATCH_CHILDREN_S, parent.pool.maintain_pool)
            hub.add_reader(self._bell[0], self._heard_bell)

        def start(self, parent: Any) -> None:
            self._reconciler.slots = parent.pool.num_processes
            signals.task_received.connect(self._heard, weak=False)
            signals.task_unknown.connect(self._unknown, weak=False)
            signals.worker_shutting_down.connect(self._told_to_go, weak=False)
            self._reconciler.start()
            self._thread.start()
            watch.start()

        def _obstacle(self) -> str | None:
            if adapter.leaving() or not self._reconciler.slots:
                return "it is stopping"
            consumer = getattr(self._parent, "consumer", None)
            consumes = consumer is not None and consumer.connection is not None and consumer.task_consumer is not None
            return None if consumes else "it is not connected to the broker"

        def stop(self, parent: Any) -> None:
            """The worker hears nothing any more; its pool is stopped next."""
            self._leaving.begin(parent.pool)
            return_messages()

        terminate = stop

        def _told_to_go(self, **_: Any) -> None:
            self._leaving.begin(self._parent.pool)
            os.write(self._bell[1], b"!")  # the loop would sleep on until its next message

        def _child_begins(self, **_: Any) -> None:
            if self._board is not None:
                courier = cast(BrokerPublisher, adapter.cycle.publisher)
                continue_in_child(self._parent.app, adapter.cycle, courier, self._board, adapter.leaving)

        def _child_ends(self, **_: Any) -> None:
            watch.child_ends()  # a child of a pool ends without Python's atexit
            if adapter.tracing is not None:
                adapter.tracing.flush()

        def _heard_bell(self, *_: Any) -> None:
            os.read(self._bell[0], 1)

        def _stop(self, held: set[str]) -> None:
            if self._board is not None:
                self._board.may_continue = not needs_parent(self._parent)
            if self._forks and self._stopper is None:
                self._stopper = Stopper(adapter.cycle.store, self._parent.pool, self._soon, adapter.now_at)
            if self._stopper is not None:
                self._stopper.look(held)

        def _soon(self, function: Any, *args: Any) -> None:
            self._parent.consumer.call_soon(function, *args)

        def _heard(self, **_: Any) -> None:
            self._reconciler.heard()

        def _unknown(self, message: Any, name: str, **_: Any) -> None:
            self._reconciler.heard()
            if message.headers.get(HEADER):
                adapter.unknown(MessageRef.parse(message.headers["id"]), name)

    return ReconcilerStep


def _parent_holds(board: Board | None, claim: ClaimRef) -> bool:
    """Whether the parent of children has a request that the claim may be of: from its arrival until it is done."""
    wanted, now_at = claim.ref.celery_id, {} if board is None else board.read()
    try:
        return any(wanted in (request.id, now_at.get(request.id)) for request in tuple(state.reserved_requests))
    except RuntimeError:
        return True  # it changed while it was looked at; there will be another look


def _parent_busy() -> int:
    return len(state.active_requests)


def _on_deaf(parent: Any, times: int) -> None:
    """Reconnect; if that does not help, leave with an error, so that a supervisor starts a new worker."""
    if times == 1:

        def lose_the_connection() -> None:
            raise ConnectionError("the worker hears nothing; it reconnects")

        parent.consumer.call_soon(lose_the_connection)
    elif times == 2:
        state.should_stop = 1
    else:
        os._exit(1)  # its loop does not even notice that it is to stop


class Pod(Worker):  # pyright: ignore[reportUntypedBaseClass]
    """Celery's worker program, which one Ctrl-C lets finish as SIGTERM does; another one ends its patience."""

    leaving: Leaving
    hostname: str

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install signal handlers."""
        super().install_platform_tweaks(worker)
        platforms.signals["SIGINT"] = self._interrupted

    def _interrupted(self, *_: Any) -> None:
        if state.should_stop is None:
            text = f"finishing what runs, for {self.leaving.grace_s:g} s at most; Ctrl-C again gives it back now"
            with suppress(OSError):
                os.write(1, f"\norchestra worker: {text}\n".encode())  # a print() may be what was interrupted
            signals.worker_shutting_down.send(sender=self.hostname, sig="SIGINT", how="Warm", exitcode=0)
            state.should_stop = 0
        else:
            self.leaving.hurry()


def _collect_seldom() -> None:
    """Have less searched for garbage: what is there before the first body is there for good, and bodies make much that
    lives for as long as they wait. With a thousand of them the collector took half of the processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def run_worker(
    app: Celery,
    *,
    pool: str,
    concurrency: int | None,
    queues: Sequence[str],
    name: str | None,
    loglevel: str,
    banner: bool = True,
    grace_s: float | None = None,
    beat: Cycle | None = None,
) -> int:
    """Serve queues until told to stop, and return the exit status. ``beat`` makes the worker fire jobs as well.

    ``banner`` is what Celery prints when it starts. Bodies may go on for ``grace_s`` (default: as the settings say)
    when it is told to stop.
    """
    if beat is not None:
        add_beat(app, beat)
    # Prefetched messages run first in, first out, whatever arrives later. Tasks that acknowledge late are held back by
    # prefetch 1; for adopted ones that acknowledge early, Redis workers fetch only when a slot is free.
    app.conf.worker_prefetch_multiplier = 1
    if is_redis(str(app.conf.broker_url or "")):
        app.conf.worker_disable_prefetch = True
    worker: Any = Pod(
        app=app,
        hostname=name or f"orchestra-{os.getpid()}@{socket.gethostname()}",
        pool=_OWN_POOLS.get(pool, pool),
        concurrency=_SLOTS.get(pool, concurrency) if concurrency is None or pool == "solo" else concurrency,
        queues=list(queues),
        loglevel=loglevel,
        quiet=not banner,
        without_mingle=True,
        without_gossip=True,
        orchestra_grace_s=grace_s,
    )
    _collect_seldom()
    worker.start()
    return int(worker.exitcode or 0)
