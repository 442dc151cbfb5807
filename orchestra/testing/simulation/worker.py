"""A simulated worker: slots, a parent that may have children, and the reconciler that it runs in earnest."""

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from billiard.exceptions import TimeLimitExceeded, WorkerLostError  # pyright: ignore[reportMissingTypeStubs]

from orchestra.engine.recovery import Machine
from orchestra.errors import EndedWithoutOutcome, LeftEarly, StoreUnavailable, TaskNotFound
from orchestra.model.function import BoundWorkflow
from orchestra.model.ids import MessageRef
from orchestra.runtime.adapter import RETRY_AFTER, Adapter
from orchestra.runtime.board import At, Board
from orchestra.runtime.body import arguments, elements
from orchestra.runtime.codec import encode_output
from orchestra.runtime.continuing import Continuation
from orchestra.runtime.cycle import Cycle, Ended, GoingOn, Turn
from orchestra.runtime.grouping import GroupingStore
from orchestra.runtime.leaving import Notice
from orchestra.runtime.outcomes import Elements
from orchestra.runtime.publisher import chain_of
from orchestra.runtime.reconciler import Reconciler
from orchestra.runtime.registry import GENERIC, Registry
from orchestra.runtime.routing import HEADER
from orchestra.runtime.succession import Fetched, Succession
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Recorded, Refused, Store
from orchestra.testing.simulation.broker import Broker, Message, SimPublisher
from orchestra.testing.simulation.departure import Departure, Work
from orchestra.testing.simulation.judge import Judge
from orchestra.testing.simulation.room import Room
from orchestra.testing.simulation.script import Boom, Script
from orchestra.testing.simulation.store import SimStore
from orchestra.testing.simulation.strand import Killed, Strand
from orchestra.testing.simulation.workload import REGISTRY, nested
from orchestra.testing.simulation.world import Process, World


@dataclass(frozen=True, slots=True)
class Stage:
    """Where workers live."""

    world: World
    broker: Broker
    judge: Judge
    store: Store
    tick_s: float
    """Ticks come no faster than this; a starved heartbeat is slower than it would like to be."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a worker is like; one that dies is followed by one like it."""

    name: str
    host: str
    queues: Sequence[str]
    slots: int
    forks: bool
    """Whether bodies run in children (prefork) or on threads of the worker itself."""
    lease_s: float


class Request:
    """A message as Celery's hooks get it."""

    def __init__(self, message: Message) -> None:
        self.id, self.chain, self.callbacks, self.retries, self.orchestra = message.id, message.chain, None, 0, 1
        self.queue = message.queue


class SimWorker:
    """One incarnation of a worker."""

    def __init__(self, stage: Stage, kind: Kind, number: int) -> None:
        self._stage, self._world, self.kind = stage, stage.world, kind
        self.queues: Sequence[str] = kind.queues
        self.name = f"{kind.name}.{number}"
        self.process = self._world.process(self.name, kind.host)
        self._store = SimStore.of(stage.world, stage.store, self.process, stage.judge)
        self._room = Room(stage.world)
        self._notice = Notice()
        self._adapter = self._new_adapter()
        self._work = Work()
        self._reconciler = Reconciler(
            self._adapter,
            worker=self.name,
            queues=lambda: kind.queues,
            slots=kind.slots,
            lease_s=kind.lease_s,
            holds=self._holds,
            busy=lambda: len(self._work.handling),
            on_deaf=self._deaf,
            machine=self._machine(),
            monotonic=self._monotonic,
        )
        self._reconciler.incarnation = self._adapter.cycle.worker = self.name
        self._board = Board(kind.slots)
        if kind.forks:
            self._board.allow(() if self._world.weather.prefetch else kind.queues)
        self._adapter.now_at, self._adapter.hands = self._board.step_at, self._board
        self._free = list(range(1, kind.slots + 1))
        self.started = False
        self.departure = Departure(
            stage.world, stage.broker, self.process, self._work, self._reconciler, self._adapter.cycle, self._notice,
            forks=kind.forks,
        )  # fmt: skip
        self._world.spawn(self.process, "start", self._start)

    # --- as the broker sees it ----------------------------------------------------------------------------------

    def room(self) -> int:
        """How many messages it takes now."""
        if not self.process.alive or self.process.frozen_until > self._world.now or self.departure.closed:
            return 0
        taken = len(self._work.waiting) + len(self._work.handling)
        return self.kind.slots + self._world.weather.prefetch - taken

    def receive(self, message: Message) -> None:
        """Take a message."""
        self._work.waiting.append(message)
        self.process.may_begin.add(message.id)
        self._reconciler.heard()
        self._fill_slots()

    def _fill_slots(self) -> None:
        work = self._work
        while work.waiting and len(work.handling) < self.kind.slots:
            message = work.waiting.pop(0)
            work.handling.append(message)
            self._world.spawn(self.process, message.id, lambda message=message: self._slot(message))

    # --- life ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            self._reconciler.start()
        except StoreUnavailable as error:
            self._world.kill(self.process, f"could not start: {error}")
            return
        self._stage.broker.join(self)
        self.started = True
        self._world.spawn(self.process, "tick", self._turn)

    def _turn(self) -> None:
        wait = self.departure.tick()
        if wait is not None:
            self._world.spawn(
                self.process, "tick", self._turn, max(wait, self._stage.tick_s * self._world.rng.random())
            )

    def _deaf(self, times: int) -> None:
        """It reconnects, then exits with an error for its supervisor."""
        if times > 1:
            self._world.kill(self.process, "is deaf")

    def _new_adapter(self) -> Adapter:
        world = self._world
        publisher = SimPublisher(world, self._stage.broker, self.process, self._stage.judge.publishing)
        store = self._store if self.kind.forks else GroupingStore.of(self._store, world.pause)
        cycle = Cycle(store, publisher, lambda: world.now + self.process.skew_s, self.name)
        adapter = Adapter(
            cycle,
            cast(Registry, REGISTRY),
            monotonic=self._monotonic,
            sleep=world.nap,
            enter=self._room.enter,
            leave=self._room.leave,
            is_wanted=self._room.is_wanted,
        )
        adapter.leaving = self._notice
        adapter.is_coming = self._has_message_of
        if not self.kind.forks:
            cycle.going_on = _Noted(Succession(adapter, _Post(self, self._stage.broker, world)), self.process)
        return adapter

    def _has_message_of(self, ref: MessageRef) -> bool:
        return any(each.id == ref.celery_id for each in (*self._work.waiting, *self._work.handling))

    def _monotonic(self) -> float:
        return self._world.elapsed

    def _machine(self) -> Machine:
        world, host = self._world, self.kind.host
        boot_id = f"{host}#{world.boots.get(host, 0)}"
        return Machine(host, boot_id, lambda pid, _started: world.lives(host, pid), self.process.pid, 0.0)

    def _holds(self, claim: ClaimRef) -> bool:
        """In a parent of children: by the requests that it has. Else by what runs in this process."""
        if not self.kind.forks:
            return self._adapter.holds(claim)
        return any(self._board.may_be_at(message.id, claim.ref) for message in self._work.handling)

    # --- one message --------------------------------------------------------------------------------------------

    def _slot(self, message: Message) -> None:
        row = self._free.pop()
        try:
            self._handle(message, row)
            self._stage.broker.acknowledge(message)
        except Killed:
            if not self.process.alive:
                raise
            # Only the child is gone: its parent says so.
            self._child_is_gone(message, row)
        except StoreUnavailable as error:
            # Celery reports an internal error and acknowledges; the claim is nobody's from now on.
            self._world.note(self.name, f"gives up {message.id}: {error}")
            self._drop(message, row)
            self._stage.broker.acknowledge(message)
        self._free.append(row)
        self._work.handling.remove(message)
        self._fill_slots()
        self._stage.broker.look()

    def _drop(self, message: Message, row: int) -> set[ClaimRef]:
        """Nobody does any more what a message led to; return which claims that leaves."""
        judge, at = self._stage.judge, self._board.read(row) or At(message.id, message.id)
        rows = [self._board.read(each) for each in range(1, self.kind.slots + 1) if each != row]
        others = {celery_id for each in rows if each is not None for celery_id in (each.step, *each.hand)}

        def leaves(ref: MessageRef) -> bool:
            just_claimed = ref.step.run_id in at.claiming and ref.celery_id not in others
            return ref.celery_id == at.step or ref.celery_id in at.hand or just_claimed

        left = {claim for claim, holder in judge.holders.items() if holder is self.process and leaves(claim.ref)}
        judge.dropped.update(left)
        return left

    def _child_is_gone(self, message: Message, row: int) -> None:
        self._room.ended(self._world.strand)
        dropped = self._drop(message, row)
        self._world.note(self.name, f"loses the child that ran {message.id}")
        if self.process.told_at is None:
            self._world.deaths += 1
        else:
            self._stage.judge.leavers.killed.update(dropped)
        if self.process.told_at is not None and self._world.rng.random() < 0.5:
            return  # a pool that is being stopped does not look at all of its children any more
        self._by_parent(message, WorkerLostError("simulated: the pool child died"))
        self._stage.broker.acknowledge(message)

    def _by_parent(self, message: Message, error: BaseException) -> None:
        """The parent says how a child ended: it has a request of its own, and no claim."""
        self._world.sleep(self._world.rng.random() * 0.1)
        try:
            self._adapter.failed(Request(message), error)
        except StoreUnavailable as away:
            self._world.note(self.name, f"cannot say how {message.id} ended: {away}")

    def _handle(self, message: Message, row: int) -> None:
        request = Request(message)
        if not self.kind.forks:
            self._perform(self._adapter, request)
            return
        self._work.children[message] = self._world.strand
        try:
            self._in_child(request, row)
        finally:
            self._no_child(self._world.strand)

    def _no_child(self, strand: Strand) -> None:
        """What it does from now on is done by the parent."""
        for message in [each for each, child in self._work.children.items() if child is strand]:
            del self._work.children[message]
        self._world.mend(strand)

    def _in_child(self, request: Request, row: int) -> None:
        adapter = self._new_adapter()

        def go_on(celery_id: str, _args: object, _kwargs: object, about: Mapping[str, Any]) -> None:
            self._perform(adapter, Request(Message(celery_id, "", 0, about["chain"] or ())))

        about = {HEADER: 1, "delivery_info": {"routing_key": request.queue}}
        courier, reliefs = _Courier(self._stage.broker, self.process), list[Strand]()

        def later(seconds: float, function: Callable[[], object]) -> None:
            reliefs.append(self._world.spawn(self.process, f"relief of {request.id}", function, seconds))

        continuation = Continuation(
            self._board, row, {GENERIC: go_on}, adapter, courier, self._notice,
            for_s=1.0, away_s=5.0, late_s=0.3, durations=_Whims(self._world), later=later, pause=self._world.pause,
            monotonic=self._monotonic,
        )  # fmt: skip
        adapter.cycle.going_on = _Noted(continuation, self.process)
        try:
            continuation.trace(lambda *_: self._perform(adapter, request), request.id, [], {}, about)
        except Killed:
            for each in reliefs:
                self._world.tear(each)
            raise

    def _perform(self, adapter: Adapter, request: Any) -> None:
        try:
            answer = adapter.begin(request)
        except StoreUnavailable as error:
            adapter.failed(request, error)  # as Celery's tracer does with whatever a hook raises
            return
        if isinstance(answer, Refused):
            return
        self._world.note(self.name, f"runs {answer.name} (claim {answer.claim.claim})")
        self._stage.judge.body_starts(self.process, answer)
        try:
            result = self._body(adapter, request, answer)
        except (Boom, EndedWithoutOutcome, TaskNotFound) as error:
            self._stage.judge.body_ends(answer.claim)
            adapter.failed(request, error)
            return
        except LeftEarly as error:
            self._stage.judge.body_ends(answer.claim)
            adapter.retried(request, error)
            return
        self._stage.judge.body_ends(answer.claim)
        if result is not _SAID:
            adapter.done(request, result)

    def _body(self, adapter: Adapter, request: Any, claimed: Claimed) -> object:
        script = Script.parse(claimed.row.target)
        self._maybe_lose_the_child()
        if claimed.row.is_map:
            return Elements(elements(claimed, adapter.registry.resolve))
        timeout_s = claimed.row.timeout_s
        if timeout_s is not None and script.seconds > timeout_s and self.kind.forks:
            self._world.nap(timeout_s)
            self._no_child(self._world.strand)
            self._drop_claim(claimed)
            self._room.ended(self._world.strand)
            self._adapter.failed(_of_parent(request), TimeLimitExceeded(timeout_s))
            return _SAID
        self._work_for(script.seconds, claimed)
        return self._outcome(script, adapter, request, claimed)

    def _work_for(self, seconds: float, claimed: Claimed) -> None:
        """Some bodies leave at a point in the middle when their worker is told to go."""
        if not (self._world.weather.departures and zlib.crc32(claimed.name.encode()) % 4 == 0):
            self._world.nap(seconds)
            return
        for _ in range(2):
            self._world.nap(seconds / 2)
            if self._notice():
                raise LeftEarly(claimed.name)

    def _outcome(self, script: Script, adapter: Adapter, request: Any, claimed: Claimed) -> object:
        again = claimed.attempts < script.times
        match script.kind:
            case "raise" if again:
                raise Boom(f"attempt {claimed.attempts + 1}")
            case "ask" if again:
                setattr(request, RETRY_AFTER, 0.3)
                adapter.retried(request, Boom("again"))
                return _SAID
            case "ignore":
                raise EndedWithoutOutcome(claimed.name, "Ignore()")
            case "unknown":
                raise TaskNotFound(claimed.name, "simulated")
            case "nest" | "deeper":
                return BoundWorkflow(nested(script, claimed.name, claimed.row.round))
            case "list":
                return list(range(script.size))
            case "kill" | "kill child" if claimed.crashes < script.times:
                if script.kind == "kill" or not self.kind.forks:
                    self._world.kill(self.process, f"killed by {claimed.name}")
                raise Killed(claimed.name)
            case _:
                args, kwargs = arguments(claimed, adapter.registry.resolve)
                return {"v": zlib.crc32(encode_output([args, kwargs, claimed.name], "").encode()) % 97}

    def _maybe_lose_the_child(self) -> None:
        world, weather = self._world, self._world.weather
        if world.stormy and self.kind.forks and weather.child_deaths and world.rng.random() < weather.child_death:
            weather.child_deaths -= 1
            raise Killed("child")

    def _drop_claim(self, claimed: Claimed) -> None:
        self._stage.judge.dropped.add(claimed.claim)


class _Noted:
    """Notes what a child may begin although its worker is told to go meanwhile, since it went on with it before."""

    def __init__(self, going_on: GoingOn, process: Process) -> None:
        self._going_on, self._process = going_on, process
        self._runs: dict[ClaimRef, Sequence[str]] = {}

    def turn(self, ended: Ended, worker: str) -> Turn | None:
        """See ``GoingOn``."""
        turn, claim = self._going_on.turn(ended, worker), ended.claimed.claim
        if turn is not None and turn.onward is not None and claim not in self._runs and self._process.told_at is None:
            self._runs[claim] = [each.claimed.claim.ref.step.run_id for each in turn.ended]
            self._process.goes_on_in.extend(self._runs[claim])
        return turn

    def settled(self, ended: Ended, recorded: Recorded | None) -> Sequence[Dispatch]:
        """See ``GoingOn``."""
        for run_id in self._runs.pop(ended.claimed.claim, ()):
            self._process.goes_on_in.remove(run_id)
        return self._going_on.settled(ended, recorded)

    def took(self, message: MessageRef, answer: Claimed | Refused) -> None:
        """See ``GoingOn``."""
        self._going_on.took(message, answer)


class _Post:
    """What the slots of a worker take without its loop."""

    def __init__(self, worker: SimWorker, broker: Broker, world: World) -> None:
        self._worker, self._broker, self._world = worker, broker, world

    def is_open(self) -> bool:
        """See ``Post``."""
        return self._world.rng.random() < 0.9

    def fetch(self, after: str) -> Fetched | None:
        """See ``Post``."""
        for queue in sorted(self._worker.queues, key=lambda queue: queue == after):
            message = self._broker.take(queue)
            if message is not None:
                self._broker.hold(message, self._worker)
                self._worker.process.may_begin.add(message.id)
                return Fetched(queue, queue, {"sent": message}, MessageRef.parse(message.id))
        return None

    def put_back(self, fetched: Fetched) -> None:
        """See ``Post``."""
        self._broker.give_back(fetched.message["sent"])

    def deliver(self, fetched: Fetched) -> None:
        """See ``Post``."""
        if self._worker.departure.closed or self._world.rng.random() < 0.05:
            raise ConnectionError("simulated: the worker is not connected")
        self._worker.receive(fetched.message["sent"])

    def written(self, dispatch: Dispatch, following: Sequence[object]) -> Fetched:
        """See ``Post``."""
        chain = chain_of(dispatch, following, lambda priority: priority)
        message = Message(dispatch.ref.celery_id, dispatch.queue, dispatch.priority, chain)
        self._broker.hold(message, self._worker)
        return Fetched(dispatch.queue, dispatch.queue, {"sent": message}, dispatch.ref)


class _Whims:
    """Any call may be short, and is not the next time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._targets: set[str] = set()

    def note(self, target: str, seconds: float) -> None:
        """One more call has ended."""
        self._targets.add(target)

    def of(self, target: str) -> float | None:
        """Return what it takes now."""
        return self._world.rng.choice((None, 0.0001, 0.001, 0.02))

    def short(self) -> frozenset[str]:
        """Return what is short now."""
        return frozenset(each for each in sorted(self._targets) if self._world.rng.random() < 0.5)


class _Courier:
    """Lets a child take messages without its parent."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker, self._process = broker, process

    def take(self, queue: str, most: int) -> Sequence[tuple[str, dict[str, Any]]]:
        """See ``Courier``."""
        taken = list[tuple[str, dict[str, Any]]]()
        while len(taken) < most and (message := self._broker.take(queue)) is not None:
            self._process.may_begin.add(message.id)
            headers = {HEADER: 1, "id": message.id, "task": GENERIC}
            body = json.dumps([[], {}, {"chain": message.chain}]).encode()
            taken.append((queue, {"headers": headers, "body": base64.b64encode(body).decode(), "sent": message}))
        return taken

    def put_back(self, key: str, message: Mapping[str, Any]) -> None:
        """See ``Courier``."""
        self._broker.put_back(message["sent"])

    def waits(self, queues: Sequence[str]) -> bool:
        """See ``Courier``."""
        return self._broker.waits(queues)


_SAID = object()
"""The body's outcome has been said already."""


def _of_parent(request: Request) -> Request:
    return Request(Message(request.id, "", 0, ()))
