"""What a pool child goes on with by itself, and when it records, decided without processes; the store is a real one."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from orchestra.engine.outcome import Done, Outcome, Raised
from orchestra.errors import StoreUnavailable
from orchestra.model.graph import StepOptions
from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.board import At, Board
from orchestra.runtime.continuing import AWAY_S, CONTINUE_S, LATE_S, Continuation
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.durations import SHORT_S
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, Dispatch, Refused
from orchestra.store.memory.store import MemoryStore
from orchestra.testing.clock import Clock
from orchestra.testing.contract.desk import BOOM, Desk, graph
from tests.recording import Recording

REQUEST = {HEADER: 1, "timelimit": [None, None], "chain": None, "delivery_info": {"routing_key": "q"}}


class Child:
    """A child with its queue. Each body takes ``seconds``, and what ``during`` says happens while it runs."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Recording(MemoryStore())
        self.desk = Desk(self.store, self.clock)  # pyright: ignore[reportArgumentType]
        self.cycle = Cycle(self.store, self, self.clock, "w1")  # pyright: ignore[reportArgumentType]
        self.ahead: Claimed | None = None
        self.stays, self.is_leaving, self.left = False, False, 0
        self.sent: list[Dispatch] = []
        self.ran: list[str] = []
        self.queue: list[dict[str, Any]] = []
        self.delivers = False
        self.looked: list[list[str]] = []
        self.busy: dict[str, int] = {}
        """How urgent the messages of other queues are."""
        self.delivers_no_steps = False
        self.seconds = 0.0001
        self.during: dict[str, Callable[[], object]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.board = Board(2)
        self.board.allow(["q"])
        self.relief: Callable[[], object] | None = None
        self.continuation = self.cycle.going_on = Continuation(
            self.board, 1, {"task": self.run}, self, self, lambda: self.is_leaving,
            monotonic=self.clock, later=self.later,
        )  # fmt: skip

    # --- what it is given ---------------------------------------------------------------------------------------

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        assert (seconds, self.relief) == (LATE_S, None)
        self.relief = function

    def insist(self, operation: Callable[[], object]) -> object:
        try:
            return operation()
        except StoreUnavailable:
            return operation()

    def leave_place(self) -> None:
        self.stays, self.left = False, self.left + 1

    def check(self) -> None: ...

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        self.sent += dispatches
        if self.delivers:
            self.queue += [message(each.ref.step.run_id, each.ref.step.n) for each in dispatches]

    def is_open(self) -> bool:
        return not self.delivers_no_steps

    def take(self, queue: str, most: int, at_least: int | None = None) -> Sequence[tuple[str, dict[str, Any]]] | None:
        assert queue == "q"
        if self.delivers_no_steps:
            return None
        taken = [each for each in self.queue if at_least is None or each["headers"].get("urgency", 5) <= at_least][
            :most
        ]
        self.queue = [each for each in self.queue if each not in taken]
        return [("key", each) for each in taken]

    def put_back(self, key: str, message: Mapping[str, Any]) -> None:
        assert key == "key"
        self.queue.insert(0, dict(message))

    def waits(self, queues: Sequence[str], at_least: int | None = None) -> bool:
        self.looked.append(list(queues))
        return any(at_least is None or self.busy.get(each, 11) <= at_least for each in queues)

    # --- what it does -------------------------------------------------------------------------------------------

    def run(self, uuid: str, _args: object, _kwargs: object, request: dict[str, Any]) -> str:
        """Be the tracer of a task: the hooks of Celery's, as the adapter has them."""
        assert request["id"] == uuid
        return self.body(uuid)

    def body(self, uuid: str) -> str:
        message, (claimed, self.ahead) = MessageRef.parse(uuid), (self.ahead, None)
        answer = self.cycle.claim(message) if claimed is None else claimed
        if isinstance(answer, Refused):
            return "refused"
        assert answer.claim.ref == message
        self.ran.append(answer.name)
        self.clock.now += self.seconds
        self.during.pop(answer.name, lambda: None)()
        outcome = self.outcomes.pop(answer.name, Done("null"))
        self.insist(lambda: self.cycle.finish(answer, outcome))
        return f"answer of {answer.name}"

    def handle(self, run_id: str, n: int = 0, **request: Any) -> str:
        """Be given the message of a step by the parent."""
        uuid = f"{run_id}.{n}.0"
        return self.continuation.trace(lambda *_: self.body(uuid), uuid, [], {}, {**REQUEST, "id": uuid, **request})

    def learn(self, *agents: int, seconds: float = 0.0001) -> None:
        """Let it be known how long calls take."""
        self.seconds, before = seconds, self.seconds
        for agent in agents:
            self.handle(self.desk.create(graph([], s0={"agent": f"agent{agent}"})))
        self.seconds = before
        self.ran.clear()
        self.sent.clear()
        self.store.calls.clear()
        self.left = 0

    def statuses(self, run_id: str) -> str:
        return self.desk.statuses(run_id)


def message(run_id: str, n: int = 0, **headers: Any) -> dict[str, Any]:
    """Return a message as it lies in Redis."""
    about = {HEADER: 1, "id": f"{run_id}.{n}.0", "task": "task", "timelimit": [None, None], **headers}
    return {"headers": about, "body": base64.b64encode(json.dumps([[], {}, {"chain": []}]).encode()).decode()}


def wide(child: Child, width: int, **first: Any) -> str:
    """Create a run with a step, many that wait for it, and one behind those; all but the first call the same."""
    middle: dict[str, Any] = {f"s{n}": {"agent": "agent1"} for n in range(1, width + 2)}
    return child.desk.create(graph([], *([0],) * width, range(1, width + 1), s0=first, **middle))


@pytest.fixture
def child() -> Child:
    made = Child()
    made.learn(0, 1, 2)
    return made


# --- one after the other ----------------------------------------------------------------------------------------


def test_it_goes_on_with_what_a_record_hands_on_and_answers_for_the_message(child: Child) -> None:
    run = child.desk.create(graph([], [0], [1]))
    assert child.handle(run) == "answer of s0"
    assert (child.ran, child.sent) == (["s0", "s1", "s2"], [])
    assert child.store.calls == [("claim", 1), ("record", 1), ("record", 1), ("record", 1)]
    assert (child.statuses(run), child.board.read(1), child.left) == ("CO CO CO", None, 1)


@pytest.mark.parametrize(
    "other",
    [{"queue": "another"}, {"priority": 6}, {"timeout_s": 1.0}, {"agent": "never_called"}],
    ids=lambda other: next(iter(other)),
)
def test_what_does_not_fit_is_sent(child: Child, other: dict[str, Any]) -> None:
    fields = other if "agent" in other else {"options": StepOptions(**other)}
    run = child.desk.create(graph([], [0], s1=fields))
    child.handle(run)
    assert (child.ran, [each.ref.step.n for each in child.sent]) == (["s0"], [1])


def begin_chain(child: Child, length: int) -> str:
    """Let it be known that six links take a little more than the time after which a child looks at the broker."""
    child.learn(*[1] * 30, seconds=CONTINUE_S / 5.45)
    child.seconds = CONTINUE_S / 5.45
    child.looked.clear()
    alike: dict[str, Any] = {f"s{n}": {"agent": "agent1"} for n in range(length)}
    return child.desk.create(graph([], *([n] for n in range(length - 1)), **alike))


def test_it_looks_at_the_broker_now_and_then_and_ends_after_a_while(child: Child) -> None:
    run = begin_chain(child, 100)
    child.board.allow(["q", "r"])
    child.handle(run)
    assert len(child.ran) == int(AWAY_S / child.seconds) + 1 == 55
    assert ([each.ref.step.n for each in child.sent], child.looked) == ([55], [["r"]] * 9)
    child.handle(run, 55)
    assert len(child.ran) == 100


@pytest.mark.parametrize("why", ["another queue", "cannot be said", "no longer served", "nothing can be taken"])
def test_its_parent_has_the_slot_again_where_others_may_wait(child: Child, why: str) -> None:
    run = begin_chain(child, 20)
    child.board.allow({"another queue": ["q", "r"], "no longer served": ["r"], "cannot be said": []}.get(why, ["q"]))
    child.busy, child.delivers_no_steps = {"r": 5}, why == "nothing can be taken"
    child.handle(run)
    assert (len(child.ran), [each.ref.step.n for each in child.sent]) == (6, [6])
    child.handle(run, 6)
    assert len(child.ran) == 12


def test_what_it_finds_when_it_looks_comes_before_the_next_link(child: Child) -> None:
    run = begin_chain(child, 20)
    (other,) = singles(child, 1)
    child.queue, child.ran = [message(other)], []
    child.handle(run)
    assert (child.ran[:6], child.ran[6:7]) == ([f"s{n}" for n in range(6)], ["s0"])
    assert [each.ref.step.n for each in child.sent] == [6]


@pytest.mark.parametrize("where", ["its queue", "another queue"])
def test_what_is_less_urgent_waits_while_it_goes_on(child: Child, where: str) -> None:
    run = begin_chain(child, 20)
    (other,) = singles(child, 1)
    child.ran = []
    if where == "its queue":
        child.queue = [message(other, urgency=6)]
    else:
        child.board.allow(["q", "r"])
        child.busy = {"r": 6}
    child.handle(run)
    assert child.ran[:20] == [f"s{n}" for n in range(20)]
    assert child.sent == []


def test_what_it_finds_and_cannot_take_is_for_its_parent_at_once(child: Child) -> None:
    run = begin_chain(child, 20)
    (other,) = singles(child, 1)
    child.queue, child.ran = [message(other, timelimit=[5.0, None])], []
    child.handle(run)
    assert (len(child.ran), [each.ref.step.n for each in child.sent]) == (6, [6])
    assert child.queue == [message(other, timelimit=[5.0, None])]


def test_what_has_become_long_is_sent(child: Child) -> None:
    child.learn(1, seconds=SHORT_S * 6)
    run = child.desk.create(graph([], [0]))
    child.handle(run)
    assert (child.ran, len(child.sent)) == (["s0"], 1)


@pytest.mark.parametrize("why", ["leaving", "closed", "limit"])
def test_nothing_is_gone_on_with_when_the_parent_has_to_know(child: Child, why: str) -> None:
    run = child.desk.create(graph([], [0]))
    child.is_leaving = why == "leaving"
    if why == "closed":
        child.board.forbid()
    child.handle(run, timelimit=[5.0, None] if why == "limit" else [None, None])
    assert (child.ran, len(child.sent)) == (["s0"], 1)


def test_an_id_that_the_board_has_no_room_for_goes_to_the_broker(child: Child) -> None:
    run = child.desk.create(graph([], [0]), id="x" * 2100)
    child.handle(run)
    assert (child.ran, len(child.sent)) == (["s0"], 1)


def test_what_is_carried_by_a_task_that_it_has_no_tracer_for_is_given_back(child: Child) -> None:
    run = child.desk.create(graph([], [0]))
    child.continuation._traces = {}  # pyright: ignore[reportPrivateUsage]
    child.handle(run)
    assert (child.ran, child.statuses(run), len(child.sent)) == (["s0"], "CO QU", 1)


# --- several at a time ------------------------------------------------------------------------------------------


def test_very_short_steps_are_claimed_and_recorded_several_at_a_time(child: Child) -> None:
    run, child.delivers = wide(child, 40), True
    child.handle(run)
    assert child.statuses(run) == " ".join(["CO"] * 42)
    assert len(child.ran) == len(set(child.ran)) == 42
    # The first; 16 with it, which are recorded with claims of 16 that wait; then of 8, and of what joins them.
    assert len(child.store.calls) <= 7, child.store.calls


def test_what_could_not_be_kept_is_claimed_with_the_next_record(child: Child) -> None:
    run, child.delivers = wide(child, 20), True
    child.handle(run)
    assert child.statuses(run) == " ".join(["CO"] * 22)
    # The first, with claims of 16; these, with claims of the 4 that wait; these, with that of what joins all; that.
    assert child.store.calls == [("claim", 1), ("record", 1), ("together", 20), ("together", 4), ("record", 1)]


def test_the_way_to_the_store_is_no_part_of_what_a_body_takes(child: Child) -> None:
    claim = child.store.claim

    def late(*args: Any) -> Any:
        child.clock.now += 0.02
        return claim(*args)

    child.store.claim = late  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    child.learn(1)
    first, *others = singles(child, 9)
    child.queue = [message(run) for run in others]
    child.handle(first)
    assert ("together", 8) in child.store.calls


def test_no_more_are_taken_than_take_a_few_milliseconds(child: Child) -> None:
    child.learn(*[1] * 30, seconds=0.002)
    child.seconds = 0.002
    first, *others = singles(child, 9)
    child.queue = [message(run) for run in others]
    child.handle(first)
    assert (len(child.ran), max(number for _name, number in child.store.calls)) == (9, 4)  # 2 records, 2 claims


def test_what_is_in_hand_for_too_long_is_given_back_although_each_is_short(child: Child) -> None:
    child.seconds = LATE_S / 3.5
    run = wide(child, 14)
    child.handle(run)
    assert child.ran == ["s0", "s1", "s2", "s3", "s4"]
    assert (child.statuses(run).split()[:5], "RU" in child.statuses(run)) == (["CO"] * 5, False)
    assert len(child.sent) == 10


def test_the_parent_can_read_what_it_holds(child: Child) -> None:
    run, seen = wide(child, 14), list[tuple[At | None, set[str]]]()

    def look() -> None:
        held = {claim.ref.celery_id for claim in child.desk.store.held("w1")}
        seen.append((child.board.read(1), held))

    child.during["s6"] = look
    child.handle(run)
    ((at, held),) = seen
    assert at is not None
    assert (at.message, at.step, len(held)) == (f"{run}.0.0", f"{run}.6.0", 14)
    assert {at.step, *at.hand} == held


def test_a_body_that_takes_long_keeps_nobody_waiting(child: Child) -> None:
    run, found = wide(child, 14), list[str]()

    def meanwhile() -> None:
        child.clock.now += LATE_S + 0.001
        assert child.relief is not None
        relief, child.relief = child.relief, None
        relief()
        found.append(child.statuses(run))

    child.during["s5"] = meanwhile
    child.handle(run)
    (statuses,) = found
    before, own, behind = statuses.split()[:5], statuses.split()[5], statuses.split()[6:15]
    assert (set(before), own, set(behind)) == ({"CO"}, "RU", {"QU"})
    given_back = [each.ref.step.n for each in child.sent]
    assert (given_back[0], len(given_back) >= 2) == (6, True)
    assert child.desk.store.step(StepRef(run, 6)).crashes == 0  # pyright: ignore[reportOptionalMemberAccess]
    assert child.statuses(run).split()[5] == "CO"
    assert child.board.read(1) is None


def test_a_body_that_does_not_take_long_is_left_alone(child: Child) -> None:
    run, found = wide(child, 14), list[str]()

    def meanwhile() -> None:
        assert child.relief is not None
        relief, child.relief = child.relief, None
        relief()
        assert child.relief is not None  # it looks again
        found.append(child.statuses(run))

    child.during["s5"] = meanwhile
    child.handle(run)
    assert "RU" in found[0].split()[:5]
    assert (child.statuses(run), child.sent) == (" ".join(["CO"] * 16), [])


def test_what_fails_is_recorded_at_once_with_what_had_ended(child: Child) -> None:
    run, found = wide(child, 14), list[str]()
    child.outcomes["s4"] = Raised(BOOM)
    child.during["s5"] = lambda: found.append(child.statuses(run))
    child.handle(run)
    assert (child.statuses(run).split()[4], "RU" in child.statuses(run)) == ("FA", False)
    assert not found or found[0].split()[:5] == ["CO", "CO", "CO", "CO", "FA"]


def test_a_large_output_is_recorded_at_once(child: Child) -> None:
    run, found = wide(child, 14), list[str]()
    child.outcomes["s4"] = Done(json.dumps("x" * 20_000))
    child.during["s5"] = lambda: found.append(child.statuses(run))
    child.handle(run)
    assert found[0].split()[:5] == ["CO"] * 5


def test_a_suspect_is_begun_when_everything_else_is_recorded(child: Child) -> None:
    first, *others = singles(child, 6)
    suspect = child.desk.single(agent="agent1")
    for _ in range(2):
        claimed = child.desk.claim(suspect, 0)
        child.desk.store.vanish(claimed.claim, "its worker died", child.clock())
    child.queue = [message(run) for run in (others[0], suspect, *others[1:])]
    child.during["s0"] = lambda: None
    found: list[set[str]] = []
    run_body = child.body

    def body(uuid: str) -> str:
        if uuid.startswith(suspect):
            found.append({child.statuses(run) for run in (first, *others)})
        return run_body(uuid)

    child.body = body
    child.handle(first)
    assert (found, child.statuses(suspect)) == ([{"CO"}], "CO")


def test_an_error_of_the_tracer_records_what_has_ended_and_gives_back_what_has_not_begun(child: Child) -> None:
    run = wide(child, 14)

    def breaks() -> None:
        raise ValueError("boom")

    child.during["s5"] = breaks
    with pytest.raises(ValueError, match="boom"):
        child.handle(run)
    statuses = child.statuses(run).split()
    assert (statuses[:5], set(statuses[6:15])) == (["CO"] * 5, {"QU"})
    assert (child.board.read(1), child.left) == (None, 1)


def test_what_ends_the_process_leaves_its_own_step_to_the_parent(child: Child) -> None:
    run = wide(child, 14)

    def ends() -> None:
        raise SystemExit

    child.during["s5"] = ends
    with pytest.raises(SystemExit):
        child.handle(run)
    statuses = child.statuses(run).split()
    assert (statuses[:5], statuses[5], set(statuses[6:15])) == (["CO"] * 5, "RU", {"QU"})
    at = child.board.read(1)
    assert at is not None
    assert (at.message, at.step) == (f"{run}.0.0", f"{run}.5.0")


def test_who_is_told_to_go_gives_back_what_has_not_begun(child: Child) -> None:
    run = wide(child, 14)

    def told() -> None:
        child.is_leaving = True

    child.during["s5"] = told
    child.handle(run)
    statuses = child.statuses(run).split()
    assert (set(statuses[:6]), set(statuses[6:15])) == ({"CO"}, {"QU"})


def test_a_store_that_is_away_for_a_moment_loses_nothing(child: Child) -> None:
    run = wide(child, 14)

    def away() -> None:
        child.store.away = 1

    for name in ("s0", "s2", "s6", "s14"):
        child.during[name] = away
    child.handle(run)
    assert (child.statuses(run), len(child.ran)) == (" ".join(["CO"] * 16), 16)


# --- messages ---------------------------------------------------------------------------------------------------


def singles(child: Child, count: int) -> list[str]:
    return [child.desk.create(graph([], s0={"agent": "agent1"})) for _ in range(count)]


def test_messages_that_wait_are_taken_and_claimed_with_the_records_before_them(child: Child) -> None:
    first, *others = singles(child, 30)
    child.queue = [message(run) for run in others]
    child.handle(first)
    assert {child.statuses(run) for run in (first, *others)} == {"CO"}
    assert (len(child.ran), child.queue, child.sent) == (30, [], [])
    assert len(child.store.calls) < 10, child.store.calls


def test_doubles_are_run_once(child: Child) -> None:
    first, *others = singles(child, 8)
    child.queue = [message(run) for run in others for _ in range(2)]
    child.handle(first)
    assert (len(child.ran), {child.statuses(run) for run in others}) == (8, {"CO"})


@pytest.mark.parametrize(
    "headers",
    [{HEADER: 0}, {"timelimit": [3, None]}, {"task": "another"}, {"id": "y" * 2100}],
    ids=lambda each: str(each)[:20],
)
def test_what_the_parent_has_to_see_is_put_back_with_what_is_behind_it(child: Child, headers: dict[str, Any]) -> None:
    first, second, third = singles(child, 3)
    child.queue = [message(second, **headers), message(third)]
    child.handle(first)
    assert len(child.ran) == 1
    assert child.queue == [message(second, **headers), message(third)]


def test_what_is_handed_on_comes_before_messages(child: Child) -> None:
    run = child.desk.create(graph([], [0]))
    (other,) = singles(child, 1)
    child.queue = [message(other)]
    child.handle(run)
    assert child.ran == ["s0", "s1", "s0"]


def test_nothing_is_taken_when_its_time_is_over(child: Child) -> None:
    first, second = singles(child, 2)
    child.queue, child.seconds = [message(second)], AWAY_S
    child.handle(first)
    assert (len(child.ran), len(child.queue)) == (1, 1)


def test_messages_wait_again_when_the_store_is_away(child: Child) -> None:
    first, *others = singles(child, 9)
    child.queue = [message(run) for run in others]
    child.handle(first)
    first, *others = singles(child, 9)
    child.queue = [message(run) for run in others]

    def away() -> None:
        child.store.away = 2

    child.ran.clear()
    child.during["s0"] = away
    with pytest.raises(StoreUnavailable):
        child.handle(first)
    assert (len(child.ran), len(child.queue)) == (1, 8)
