"""The Redis store against the SQL one: the same operations, chosen by a seed, must have the same effects on both."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Reopened, Rescheduled
from orchestra.engine.plan import StepInput, Target, plan
from orchestra.engine.rows import of_elements, of_plan
from orchestra.errors import KeyConflict
from orchestra.model import template
from orchestra.model.event import Event
from orchestra.model.graph import Graph, GraphStep, Mapped, StepOptions, identity
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import (
    Claimed,
    ClaimRef,
    Created,
    Dispatch,
    Lease,
    NewRun,
    Onward,
    Recorded,
    RunFilter,
    Store,
    ToClaim,
    ToRecord,
)
from orchestra.store.redis.store import RedisStore
from orchestra.store.sql.store import SqlStore
from orchestra.testing.clock import Clock
from orchestra.testing.contract.desk import Desk, graph

SEEDS = 200
WORKERS = ("w1@host/aa", "w2@host/bb", "w3")
QUEUES = ("q", "other", "größe")


def random_graph(random_: random.Random, size: int) -> Graph:
    """Return a graph in which all that a plan can say occurs."""
    steps: list[GraphStep] = []
    for n in range(size):
        after = frozenset(random_.sample(range(n), min(n, random_.choice([0, 1, 1, 1, 2, 3]))))
        whens = {each: "output" for each in after if random_.random() < 0.15}
        mapped = None
        if random_.random() < 0.15:
            mapped = Mapped([1, 2, 3], random_.choice([None, None, 1, 2]))
        args: list[Any] = [template.reference_to(each) for each in after if random_.random() < 0.3]
        options = StepOptions(
            priority=random_.choice([None, None, 1, 9]),
            queue=random_.choice([None, None, *QUEUES]),
            retry=random_.choice([None, RetryPolicy(3, delay=1.0, jitter=0.0)]),
            timeout_s=random_.choice([None, 1.5]),
            fallback=identity if random_.random() < 0.2 else None,
        )
        name = random_.choice([f"s{n}", f"it's s{n}", f'"ä/{n}" \\ x'])
        key = random_.choice([name, f"key{n}"])
        any_way = len(after) > 1 and random_.random() < 0.3
        steps.append(
            GraphStep(
                key,
                name,
                identity,
                args,
                {},
                after,
                options,
                whens=whens,
                any=any_way,
                mapped=mapped,
                from_predecessors=bool(after) and random_.random() < 0.4,
                metadata={"n": n, "empty": []} if random_.random() < 0.3 else {},
            )
        )
    return Graph("work", "work", steps, on_failure=random_.choice(["fail", "continue"]))


def bound(_agent: object) -> Target:
    return Target("task", "module:name")


class Pair:
    """Two stores that are told the same."""

    mosts: Sequence[int] = (1, 2, 8)
    """How many steps a worker may go on with."""

    def __init__(self, seed: int, one: Store, other: Store) -> None:
        self.random = random.Random(seed)
        self.seed, self.one, self.other = seed, one, other
        self.now = 1_000_000.0 + seed * 10_000
        self.messages: list[MessageRef] = []
        self.claims: list[tuple[Claimed, str]] = []
        self.runs: list[str] = []
        self.cursors = (one.last_event(), other.last_event())
        self.made = 0

    def both(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Do the same on both; what they return and the events of it must be equal."""
        what = (self.seed, operation, args)
        ours, theirs = (outcome(store, operation, args, kwargs) for store in (self.one, self.other))
        assert self.alike(ours) == self.alike(theirs), what
        told = (self.one.events(self.cursors[0]), self.other.events(self.cursors[1]))
        assert sorted(map(described, told[0][0])) == sorted(map(described, told[1][0])), what
        self.cursors = (told[0][1], told[1][1])
        return theirs

    def alike(self, value: Any) -> Any:
        """Return what of a value must be equal."""
        return comparable(value)

    def take(self, dispatches: Sequence[Dispatch]) -> None:
        self.messages += [each.ref for each in dispatches]

    # --- what may happen -------------------------------------------------------------------------------------------

    def create(self) -> None:
        runs: list[NewRun] = []
        for _ in range(self.random.choice([1, 1, 2])):
            self.made += 1
            single = self.random.random() < 0.3
            graph = random_graph(self.random, 1 if single else self.random.randint(1, 12))
            run_id = f"run.{self.seed}.{self.made:03d}"
            if single:
                graph = replace(graph, steps=[replace(graph.steps[0], key=run_id, mapped=None)])
            compiled = plan(graph, bound, priority=self.random.choice([5, 3]), queue="q")
            key = self.random.choice([None, None, f"key-{self.seed}-{self.random.randint(0, 3)}"])
            if self.random.random() < 0.1 and self.runs:
                run_id = self.random.choice(self.runs)
            fingerprint = self.random.choice(["a", "a", "b", None])
            data = {"who": self.random.choice(["me", "you"])}
            new = NewRun(run_id, "name", "wf", compiled, single, metadata=data, key=key, fingerprint=fingerprint)
            runs.append(new)
        created: list[Created] | KeyConflict = self.both("create_runs", runs, self.now)
        if not isinstance(created, KeyConflict):
            self.runs += [each.run_id for each in created if each.run_id not in self.runs]
            self.take(created[0].dispatches)

    def claim(self) -> None:
        if not self.messages:
            return
        message = self.random.choice(self.messages[-8:])
        if self.random.random() < 0.05:
            message = MessageRef(StepRef(message.step.run_id, message.step.n + 1), message.generation)
        worker = self.random.choice(WORKERS)
        claimed = self.both("claim", message, worker, self.now)
        if isinstance(claimed, Claimed):
            self.messages = [each for each in self.messages if each != message]
            self.claims.append((claimed, worker))
            if self.random.random() < 0.3:
                self.both("claimed", message, self.random.choice(WORKERS))

    def record(self) -> None:
        if not self.claims:
            return
        claimed, worker = self.random.choice(self.claims)
        if self.random.random() < 0.9:
            self.claims = [each for each in self.claims if each[0] is not claimed]
        onward = None
        if self.random.random() < 0.4:
            onward = Onward(worker, claimed.row.queue, self.random.choice([5, 3]), frozenset({"module:name"}))
        recorded = self.both("record", claimed.claim, self.change(claimed), self.now, onward)
        self.heard(recorded, claimed.claim)
        if recorded is not None:
            self.claims += [(its, worker) for _dispatch, its in recorded.onward]

    def together(self) -> None:
        """Record several claims, make several others, and go on with what that hands on."""
        ended = self.random.sample(self.claims, min(len(self.claims), self.random.choice([1, 2, 4])))
        messages = self.random.sample(self.messages, min(len(self.messages), self.random.choice([0, 1, 3])))
        if not ended and not messages:
            return
        worker = self.random.choice(WORKERS)
        wanted: list[ToClaim | ToRecord] = [
            # Which of two steps that are added at the same moment under one key is the newest, stores say differently.
            ToRecord(claimed.claim, Completed(f"{at}") if at else self.change(claimed), self.now)
            for at, (claimed, _worker) in enumerate(ended)
        ]
        wanted += [ToClaim(message, worker, self.now) for message in messages]
        onward = Onward(worker, "q", 5, frozenset({"module:name"}), most=self.random.choice(self.mosts))
        answers = self.both("together", wanted, self.random.choice([None, onward, onward]))
        self.claims = [each for each in self.claims if each not in ended]
        for each, answer in zip(wanted, answers, strict=True):
            if isinstance(each, ToRecord):
                self.heard(answer, each.claim)
                self.claims += [] if answer is None else [(its, worker) for _dispatch, its in answer.onward]
            elif isinstance(answer, Claimed):
                self.messages = [message for message in self.messages if message != each.message]
                self.claims.append((answer, worker))

    def change(self, claimed: Claimed) -> Change:
        error = ErrorInfo("ValueError", "bad " * self.random.choice([0, 1, 200]) + "ü", "trace/\n", ("ValueError",))
        row, ref = claimed.row, claimed.claim.ref.step
        chance = self.random.random()
        if row.is_map and chance < 0.8:
            count = self.random.choice([0, 1, 2, 4])
            first, _join = self.both("reserve", ref.run_id, count, 0)
            return Expanded(of_elements(row, [StepInput([n]) for n in range(count)], first))
        if chance < 0.1 and row.round < 2:
            size = self.random.randint(1, 4)
            graph = random_graph(self.random, size)
            compiled = plan(graph, bound, priority=row.priority, queue=row.queue, gathered=True, alone=bool(row.whens))
            first_n, first_join = self.both("reserve", ref.run_id, len(compiled.steps), len(compiled.joins))
            return Expanded(of_plan(compiled, row, first_n, first_join))
        if chance < 0.65:
            guarded = [int(join) for join in row.whens or {}]
            dead = frozenset(each for each in guarded if self.random.random() < 0.5)
            return Completed(
                self.random.choice(["null", "[]", "1.0", '{"a":[]}', '"ü/\\n"', "12345678901234567890"]), dead
            )
        if chance < 0.8:
            return Failed(error, *self.random.choice([(True, False), (False, False), (False, True)]))
        if chance < 0.93:
            return Rescheduled(error, self.random.choice([0.1, 2.5]), self.random.random() < 0.8)
        return Reopened("its worker died", crashed=self.random.random() < 0.5)

    def vanish(self) -> None:
        if self.claims and self.random.random() < 0.3:
            claimed, _worker = self.random.choice(self.claims)
            self.heard(self.both("vanish", claimed.claim, "it died", self.now), claimed.claim)

    def cancel(self) -> None:
        if self.runs and self.random.random() < 0.1:
            n = self.random.choice([None, 0, 1, 2])
            self.heard(self.both("cancel", self.random.choice(self.runs), n, self.now), None)

    def due(self) -> None:
        self.take(self.both("due", self.now)[0])

    def refill(self) -> None:
        self.take(self.both("refill", QUEUES, self.now))

    def resend(self) -> None:
        before = self.now - self.random.choice([0.0, 1.0, 5.0])
        self.take(self.both("resend", QUEUES, before, 10_000, self.now))

    def announce(self) -> None:
        self.both("announce", self.random.choice(WORKERS), self.now - 0.5, self.now)

    def emit(self) -> None:
        self.both("emit", "order/shipped", {"a": [], "ü": 1.5}, self.now, worker=self.random.choice([None, "w"]))

    def lease(self) -> None:
        worker = self.random.choice(WORKERS)
        if self.random.random() < 0.5:
            self.both("renew", Lease(worker, "w", "h", "b", 1, 2.5, ["q"], 4, 1.0, self.now))
        else:
            self.both("release_lease", worker, self.random.choice([None, self.now, self.now - 1.0]))

    def heard(self, recorded: Recorded | None, claim: ClaimRef | None) -> None:
        if recorded is not None:
            self.take(recorded.dispatches)
            assert all(
                each.parent is None or (claim is not None and each.parent == claim.ref.celery_id)
                for each in recorded.dispatches
            )

    # --- what can be seen ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Everything that can be read must be equal."""
        for run_id in self.runs:
            for reading in ("run", "steps", "counts", "result_template"):
                self.both(reading, run_id)
            self.both("steps", run_id, self.random.choice(list(TaskStatus)))
            for step in self.other.steps(run_id):
                self.both("step", step.ref)
                self.both("outputs", run_id, [step.ref.n, step.ref.n + 1])
                if self.random.random() < 0.2:
                    self.both("find_step", step.key)
        for reading in ("depth", "open_queues", "leases", "orphans"):
            self.both(reading)
        for worker in WORKERS:
            self.both("held", worker)
        self.both("runs", RunFilter(since=1_000_000.0 + self.seed * 10_000))
        self.both("runs", RunFilter(status=self.random.choice(list(WorkflowStatus)), limit=3))
        self.both("runs", RunFilter(name="name", metadata={"who": "me"}, limit=2))

    def look_at_events(self) -> None:
        for run_id in self.runs:
            ours, theirs = (store.events(0, run_id=run_id)[0] for store in (self.one, self.other))
            assert sorted(map(described, ours)) == sorted(map(described, theirs)), (self.seed, run_id)
            assert [each.id for each in theirs] == sorted((each.id for each in theirs), key=_position)


def _position(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


def outcome(store: Store, operation: str, args: Any, kwargs: Any) -> Any:
    try:
        return getattr(store, operation)(*args, **kwargs)
    except KeyConflict as conflict:
        return conflict


def comparable(value: Any) -> Any:
    """Return a value with what has no order sorted, and what is merely a detail of one store left out."""
    match value:
        case KeyConflict():
            return str(value)
        case Recorded(dispatches, ended, onward):
            return comparable(dispatches), ended, [(comparable(each), comparable(its)) for each, its in onward]
        case Created(run_id, dispatches, existing):
            return run_id, comparable(dispatches), existing
        case Dispatch():
            return repr(replace(value, chain=[list(each) for each in value.chain]))
        case Claimed(claim, row, attempts, crashes, outputs, predecessors):
            return claim, replace(row, status=TaskStatus.RUNNING), attempts, crashes, outputs, predecessors
        case [*several] if all(isinstance(each, Dispatch) for each in several):
            return sorted(map(comparable, several))
        case [first, *_] if isinstance(first, ClaimRef | Lease | str):
            return sorted(value, key=repr)
        case (dispatches, next_due) if isinstance(dispatches, Sequence) and not isinstance(dispatches, str):
            return comparable(list(dispatches)), next_due
        case [*several]:
            return [comparable(each) for each in several]
        case _:
            return value


def described(event: Event) -> str:
    return repr((event.type, event.time, event.run_id, event.task_id, event.worker, sorted(event.data.items())))


@pytest.mark.parametrize("block", range(10))
def test_the_same_operations_have_the_same_effects_on_redis_and_on_sql(redis_url: str, block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        check_seed(redis_url, seed)


def check_seed(redis_url: str, seed: int, operations: int = 60) -> None:
    window = (1, 3, 5, 64)[seed % 4]
    with_sql = SqlStore("sqlite://", window=window)
    with_redis = RedisStore(f"{redis_url}?prefix=seed-{seed}", window=window)
    pair = Pair(seed, with_sql, with_redis)
    actions = [pair.create] + [pair.claim] * 6 + [pair.record] * 6 + [pair.together] * 3
    actions += [pair.vanish, pair.cancel, pair.due]
    actions += [pair.refill, pair.resend, pair.announce, pair.emit, pair.lease]
    pair.create()
    for each in range(operations):
        pair.random.choice(actions)()
        pair.now += pair.random.choice([0.001, 0.25, 1.0])
        if each % 20 == 19:
            pair.look()
    pair.look()
    pair.look_at_events()
    with_sql.close()
    with_redis.close()


def test_a_record_whose_answer_got_lost_says_again_what_was_claimed_with_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(f"{redis_url}?prefix=asked-again")
    desk = Desk(store, Clock())
    run_id = "it's 100% [odd].*"
    desk.create(graph([], [0], [0], [0], s3={"agent": "agent1"}), id=run_id)
    claimed = desk.claim(run_id, 0)
    monkeypatch.setattr(store._connection, "token", lambda: "the same")  # pyright: ignore[reportPrivateUsage]
    onward = Onward("w1", "q", 5, frozenset({"m:agent1"}), most=2)
    first, again = (store.record(claimed.claim, Completed("1"), desk.clock(), onward) for _ in range(2))
    assert first is not None
    assert again is not None
    assert len(first.onward) == 2
    assert [(each, its.claim) for each, its in first.onward] == [(each, its.claim) for each, its in again.onward]
    assert ([each.ref.step.n for each in first.dispatches], again.dispatches) == ([2], [])
