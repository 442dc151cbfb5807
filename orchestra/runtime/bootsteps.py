"""Bootsteps: what the workers of an application do beside their work, however they are started."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

from celery import Celery, bootsteps, signals
from celery.worker import state

from orchestra.model.ids import MessageRef
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.asyncio_pool import bridge_tasks
from orchestra.runtime.board import Board
from orchestra.runtime.children import continue_in_child, let_continue
from orchestra.runtime.health import ReconcilerHealth
from orchestra.runtime.leaving import Leaving, Notice, PoolBodies, return_messages
from orchestra.runtime.observing import Watch
from orchestra.runtime.pacemaker import Pacemaker
from orchestra.runtime.post import WorkerPost
from orchestra.runtime.prefork import quick_to_stop
from orchestra.runtime.publisher import BrokerPublisher
from orchestra.runtime.queues import StepQueues
from orchestra.runtime.reconciler import Reconciler, ReconcilerThread
from orchestra.runtime.reports import Reports
from orchestra.runtime.routing import HEADER, tune
from orchestra.runtime.stopping import Stopper
from orchestra.runtime.succession import Succession
from orchestra.runtime.threads import ThreadPool
from orchestra.store.contract import ClaimRef

_WATCH_CHILDREN_S = 0.25
_PATCHED = ("gevent", "eventlet")
"""Pools that take a fork to be one of theirs."""
_THREAD_LEASE = 6
"""Leases are so many times longer where bodies share the interpreter with the heartbeat: C code that holds the
interpreter lock stops it. A process that is gone is seen at once all the same, by its id."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What the workers of one orchestrator are given.

    Args:
        lease_s: How long their leases last where bodies have processes of their own.
        keep_for_s: For how long runs are kept after their end; None keeps them for ever.
        grace_s: How long bodies may go on when a worker is told to stop.
        most_in_hand: How many steps pool children may go on with by themselves at a time.
        succeeds: Whether the steps that follow on slots of threads are claimed with the records before them.
    """

    adapter: Adapter
    queues: StepQueues
    watch: Watch
    lease_s: float
    keep_for_s: float | None
    grace_s: float
    most_in_hand: int
    succeeds: bool


def equip(app: Celery, equipment: Equipment) -> None:
    """Make every worker of an application, however it is started, have an incarnation and a reconciler."""
    equipment.adapter.lease_s = equipment.lease_s
    steps: set[Any] = app.steps["worker"]
    step: Any = type("ReconcilerStep", (ReconcilerStep,), {"equipment": equipment, "__module__": __name__})
    # One of an earlier orchestrator of the same application has the same name.
    steps -= {each for each in steps if getattr(each, "name", None) == step.name}
    steps.add(step)


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


class ReconcilerStep(bootsteps.StartStopStep):  # pyright: ignore[reportUntypedBaseClass]
    """Runs in the parent process of every pool, from when the pool has forked its first children."""

    requires = ("celery.worker.components:Pool",)
    equipment: ClassVar[Equipment]

    def __init__(self, parent: Any, orchestra_grace_s: float | None = None, **options: Any) -> None:
        super().__init__(parent, **options)
        its = self.equipment
        self._adapter, self._parent = its.adapter, parent
        self._stopper: Stopper | None = None
        self._watch_children: Any = None
        self._forks = "prefork" in parent.pool_cls.__module__
        tune(parent.app)
        its.queues.serve()
        bridge_tasks(parent.app)
        # Before the pool forks: its children claim under the incarnation that they inherit.
        self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._board = self._new_board()
        self._reconciler = self._new_reconciler(self._new_pacemaker())
        self._thread = ReconcilerThread(self._reconciler)
        its.adapter.cycle.observe = its.watch.prepare(ReconcilerHealth(self._reconciler, self._obstacle))
        its.adapter.leaving = notice = Notice()
        if self._forks:
            parent.pool_cls = quick_to_stop(parent.pool_cls, notice)
        grace_s = its.grace_s if orchestra_grace_s is None else orchestra_grace_s
        parent.leaving = self._leaving = Leaving(its.adapter.cycle, notice, grace_s=grace_s, release=self._thread.stop)
        Reports(its.adapter, parent.hostname).connect()
        os.register_at_fork(after_in_child=its.adapter.forked)
        signals.worker_process_shutdown.connect(self._child_ends, weak=False)

    def _new_board(self) -> Board | None:
        """Make what children show that go on with steps by themselves, where they may."""
        if not (self._forks and self.equipment.most_in_hand):
            return None
        board = Board()
        self._adapter.now_at, self._adapter.hands = board.step_at, board
        signals.worker_process_init.connect(self._child_begins, weak=False)
        return board

    def _new_pacemaker(self) -> Pacemaker:
        """Make what keeps the lease where bodies share the interpreter with the heartbeat."""
        pacemaker = Pacemaker(self._adapter.cycle.store, self._adapter.cycle.clock)
        if not self._forks:
            self._adapter.in_one_process()
            if not any(name in self._parent.pool_cls.__module__ for name in _PATCHED):
                pacemaker.start()
        return pacemaker

    def _new_reconciler(self, pacemaker: Pacemaker) -> Reconciler:
        its, parent, forks = self.equipment, self._parent, self._forks
        return Reconciler(
            its.adapter,
            worker=parent.hostname,
            queues=its.queues.served,
            slots=parent.concurrency or 1,
            lease_s=its.lease_s if forks else its.lease_s * _THREAD_LEASE,
            keep_for_s=its.keep_for_s,
            holds=partial(_parent_holds, self._board) if forks else its.adapter.holds,
            busy=_parent_busy if forks else its.adapter.busy,
            on_deaf=lambda times: _on_deaf(parent, times),
            stop=self._stop,
            renewed=pacemaker.renewed,
        )

    def include(self, parent: Any) -> bool:
        parent.steps.insert(0, LeaseStep(parent, self._thread, self._leaving, self.equipment.watch))
        return super().include(parent)

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        # Celery sees a child's pipe close a moment before the child can be waited for, and when it loses that race
        # looks again after five seconds only.
        if self._watch_children is not None:
            self._watch_children.cancel()
        if self._forks:
            self._watch_children = hub.call_repeatedly(_WATCH_CHILDREN_S, parent.pool.maintain_pool)
        hub.add_reader(self._bell[0], self._heard_bell)

    def start(self, parent: Any) -> None:
        self._reconciler.slots = parent.pool.num_processes
        if self.equipment.succeeds and isinstance(parent.pool, ThreadPool):
            publisher = cast(BrokerPublisher, self._adapter.cycle.publisher)
            self._adapter.is_coming = _has_message_of
            self._adapter.cycle.going_on = Succession(self._adapter, WorkerPost(parent, publisher))
        signals.task_received.connect(self._heard, weak=False)
        signals.task_unknown.connect(self._unknown, weak=False)
        signals.worker_shutting_down.connect(self._told_to_go, weak=False)
        self._reconciler.start()
        self._thread.start()
        self.equipment.watch.start()

    def _obstacle(self) -> str | None:
        if self._adapter.leaving() or not self._reconciler.slots:
            return "it is stopping"
        consumer = getattr(self._parent, "consumer", None)
        consumes = consumer is not None and consumer.connection is not None and consumer.task_consumer is not None
        return None if consumes else "it is not connected to the broker"

    def stop(self, parent: Any) -> None:
        """The worker hears nothing any more; its pool is stopped next."""
        self._leave(parent)
        return_messages()

    terminate = stop

    def _leave(self, parent: Any) -> None:
        self._leaving.begin(PoolBodies(parent.pool, forks=self._forks))

    def _told_to_go(self, **_: Any) -> None:
        self._leave(self._parent)
        os.write(self._bell[1], b"!")  # the loop would sleep on until its next message

    def _child_begins(self, **_: Any) -> None:
        if self._board is not None:
            courier = cast(BrokerPublisher, self._adapter.cycle.publisher)
            continue_in_child(self._parent.app, self._adapter, courier, self._board, self.equipment.most_in_hand)

    def _child_ends(self, **_: Any) -> None:
        self.equipment.watch.child_ends()  # a child of a pool ends without Python's atexit
        if self._adapter.tracing is not None:
            self._adapter.tracing.flush()

    def _heard_bell(self, *_: Any) -> None:
        os.read(self._bell[0], 1)

    def _stop(self, held: set[str]) -> None:
        if self._forks and self._stopper is None:
            self._stopper = Stopper(self._adapter.cycle.store, self._parent.pool, self._soon, self._adapter.now_at)
        if self._stopper is not None:
            self._stopper.look(held)

    def _soon(self, function: Any, *args: Any) -> None:
        self._parent.consumer.call_soon(function, *args)

    def _heard(self, **_: Any) -> None:
        self._reconciler.heard()
        if self._board is not None:  # before a child is given the message
            let_continue(self._board, self._parent, self.equipment.queues.consumed())

    def _unknown(self, message: Any, name: str, **_: Any) -> None:
        self._reconciler.heard()
        if message.headers.get(HEADER):
            self._adapter.unknown(MessageRef.parse(message.headers["id"]), name)


def _parent_holds(board: Board | None, claim: ClaimRef) -> bool:
    """Whether the parent of children has a request that the claim may be of: from its arrival until it is done."""
    messages = _messages()
    if messages is None:
        return True  # there will be another look
    if board is None:
        return claim.ref.celery_id in messages
    return any(board.may_be_at(message, claim.ref) for message in messages)


def _messages() -> set[str] | None:
    """Return the ids of messages that the worker has; None when that changed while it was looked at."""
    try:
        return {request.id for request in tuple(state.reserved_requests)}
    except RuntimeError:
        return None


def _has_message_of(ref: MessageRef) -> bool:
    messages = _messages()
    return messages is None or ref.celery_id in messages


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
