"""RedisStore: the contract over Redis. One function on the server is one operation: atomic, and one round trip."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from orchestra.engine.join import predecessors
from orchestra.engine.outcome import Change, Completed, Expanded, Vanished, decide
from orchestra.errors import KeyConflict, StoreUnavailable
from orchestra.model.event import Event, Wanted
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import RunRecord, StepRecord
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import (
    MOST_LEARNED,
    WINDOW,
    Backlog,
    Census,
    Claimed,
    ClaimRef,
    Created,
    Cursor,
    Dispatch,
    Lease,
    NewRun,
    Onward,
    Recorded,
    Refused,
    RunFilter,
    ToClaim,
    ToRecord,
)
from orchestra.store.learning import took
from orchestra.store.redis import changes, rows
from orchestra.store.redis.connection import Address, Connection
from orchestra.store.redis.control import RedisControl
from orchestra.store.redis.creation import creation
from orchestra.store.redis.jobs import RedisJobs
from orchestra.store.redis.notes import RedisNotes
from orchestra.store.redis.opening import check
from orchestra.store.window import LiveWindow, steps_of

_PAGE = 500


class RedisStore(RedisJobs, RedisNotes, RedisControl):
    """Runs, steps, results, joins and events in Redis. The contract says what each method does.

    The server must be Redis 7.0, Valkey 7.2 or newer, and must not evict keys. With ``appendonly`` off, which is
    accepted with a warning, a stop of the server loses everything; with ``appendfsync everysec`` a crash of it may lose
    the last second of outcomes, whose steps then run again; with ``always`` nothing that was recorded is lost.

    Args:
        url: ``redis://host:6379/0``, ``rediss://…`` or ``unix://…``, with all that redis-py takes in the query.
            ``?prefix=name`` keeps several stores in one database; ``?durable=1`` refuses a server that has not
            ``appendonly yes`` and ``appendfsync always``.
        window: Ready steps of one queue and priority that may be with the broker at a time; more for many live slots.

    Raises:
        SettingsError: The URL or a setting of the server is not possible, or the data is of another version.
        StoreUnavailable: It cannot be opened.
    """

    def __init__(self, url: str, *, window: int = WINDOW) -> None:
        address = Address(url)
        self._connection = Connection(address)
        self.url = self._connection.url
        self._key = self._connection.key
        self._window = LiveWindow(self.leases, window)
        self._listeners: list[Callable[[], None]] = []
        check(self._connection, durable=address.durable)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _run_key(self, run_id: str) -> str:
        return f"{self._key}r:{run_id}"

    # --- writing ------------------------------------------------------------------------------------------------

    def create_runs(self, runs: Sequence[NewRun], now: float) -> list[Created]:
        token = self._connection.token()
        new = [creation(run, now) for run in runs]
        arguments: list[object] = [rows.text_of(now), self._window.at(now, steps_of(runs)).text, token, len(new)]
        for at, each in enumerate(new):
            arguments += each.sent(self._connection.run, f"{token}.{at}")
        conflict, states, found = self._connection.run("create", *arguments)
        if conflict:
            place: int = states
            raise self._conflict(conflict, runs[place - 1], found)
        self._tell()
        dispatches = rows.dispatches_of(found)
        # Which run of the call a dispatch belongs to does not matter: they are published together.
        return [
            Created(state or run.id, dispatches if at == 0 else (), existing=bool(state))
            for at, (run, state) in enumerate(zip(runs, states, strict=True))
        ]

    def _conflict(self, kind: str, run: NewRun, found: str) -> Exception:
        match kind:
            case "id":
                reason = "ids are used once; give the task another id, or submit it with key=…"
                return KeyConflict(run.id, found, reason)
            case "key":
                return KeyConflict(run.key or "", found, "that run calls something else, or with another input")
            case _:
                return StoreUnavailable(self.url, f"run {run.id!r} took more than an hour to be written")

    def claim(self, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
        return self._claimed(message, now, self._connection.run("claim", *self._claiming(message, worker, now)))

    def _claiming(self, message: MessageRef, worker: str, now: float) -> list[object]:
        (run_id, n), generation = message
        return [run_id, n, generation, worker, rows.text_of(now), self._connection.token()]

    def _claimed(self, message: MessageRef, now: float, answer: Any) -> Claimed | Refused:
        if len(answer) == 2:
            status = TaskStatus(answer[1]) if answer[1] else None
            reason = "no such step" if status is None else f"it is {status}, or paused, or the message is an old one"
            return Refused(status, reason)
        *state, facts, given, named, inherited, since = answer
        claimed = rows.claimed_of(message, state, facts, given, now, since)
        if not named and not inherited:
            return claimed
        outputs = {int(named[at]): named[at + 1] for at in range(0, len(named), 2)}
        names: dict[int, str] = {}
        for at in range(0, len(inherited), 3):
            part, its_facts, output = inherited[at : at + 3]
            names[int(part)], outputs[int(part)] = json.loads(its_facts)[0], output
        return replace(claimed, outputs=outputs, predecessors=names)

    def claimed(self, message: MessageRef, worker: str) -> Claimed | None:
        state, facts, given = self._fields(message.step, "sfi")
        return self._held(message, state, facts, given, lambda held: held[6] == worker)

    def _held(
        self, message: MessageRef, state: str | None, facts: str, given: str, is_it: Callable[[list[Any]], bool]
    ) -> Claimed | None:
        held = None if state is None else json.loads(state)
        if held is None or held[0] != TaskStatus.RUNNING or held[1] != message.generation or not is_it(held):
            return None
        return rows.claimed_of(message, held[2:5], facts, given, float(held[7]))

    def announce(self, worker: str, started_before: float, now: float) -> int:
        found: int = self._connection.run("announce", worker, rows.text_of(started_before), rows.text_of(now))
        if found:
            self._tell()
        return found

    def reserve(self, run_id: str, steps: int, joins: int) -> tuple[int, int]:
        first_n, first_join = self._connection.run("reserve", run_id, steps, joins)
        return first_n, first_join

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        if onward is not None and isinstance(change, Completed):
            return cast("Recorded | None", self.together([ToRecord(claim, change, now)], onward)[0])
        arguments = self._recording(claim, change, now)
        return None if arguments is None else self._recorded(self._connection.run("record", *arguments), claim.ref)

    def _recording(self, claim: ClaimRef, change: Change, now: float) -> list[object] | None:
        """Return what the function asks for; None when rows that it needs had no place, since a newer claim stands."""
        (step, generation), number = claim
        fence = (step.run_id, step.n, generation, number)
        arguments = changes.arguments(change, now)
        if isinstance(change, Expanded):
            added = changes.parts(change.expansion, now)
            arguments += [added.ready, added.open, added.index]
            if changes.fits(added):
                arguments += [text for each in added.slices for text in each]
            elif not all(self._connection.run("stage_parts", *fence, *fields) for fields in added.slices):
                return None
        return [*fence, rows.text_of(now), self._connection.token(), self._window.at(now).text, *arguments]

    def together(
        self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None
    ) -> list[Claimed | Refused | Recorded | None]:
        calls = [self._wanting(each) for each in wanted]
        parts = [part for name, arguments in calls if arguments for part in (name, len(arguments), *arguments)]
        answers = iter(self._connection.run("together", *_going_on(onward), *parts))
        found = [next(answers) if arguments else None for _name, arguments in calls]
        return [
            self._claimed(each.message, each.now, answer)
            if isinstance(each, ToClaim)
            else self._recorded(answer, each.claim.ref, each.now)
            for each, answer in zip(wanted, found, strict=True)
        ]

    def _wanting(self, wanted: ToClaim | ToRecord) -> tuple[str, list[object] | None]:
        if isinstance(wanted, ToClaim):
            return "claim", self._claiming(wanted.message, wanted.worker, wanted.now)
        return "record", self._recording(wanted.claim, wanted.change, wanted.now)

    def _recorded(self, answer: Any, parent: MessageRef | None = None, now: float = 0.0) -> Recorded | None:
        if not answer:
            return None
        ended, found, *onward = answer
        self._tell()
        recorded = Recorded(rows.dispatches_of(found, parent), WorkflowStatus(ended) if ended else None)
        gone_on: list[Any] = onward[0] if onward and onward[0] != 1 else []  # 1: it was asked again
        if not gone_on:
            return recorded
        taken: list[tuple[Dispatch, Claimed]] = []
        for at in range(0, len(gone_on), 2):
            (dispatch,) = rows.dispatches_of(gone_on[at], parent)
            claimed = self._claimed(dispatch.ref, now, gone_on[at + 1])
            if isinstance(claimed, Claimed):
                taken.append((dispatch, claimed))
        return replace(recorded, onward=taken)

    def vanish(self, claim: ClaimRef, reason: str, now: float) -> Recorded | None:
        state, facts, given = self._fields(claim.ref.step, "sfi")
        held = self._held(claim.ref, state, facts, given, lambda held: held[2] == claim.claim)
        if held is None:
            return None
        retry = RetryPolicy.from_json(dict(held.row.retry)) if held.row.retry else ONCE
        change = decide(Vanished(reason), name=held.name, attempts=held.attempts, crashes=held.crashes, retry=retry)
        # Whoever records in between makes this the record of a claim that is no more.
        return self.record(claim, change, now)

    def cancel(self, run_id: str, n: int | None, now: float) -> Recorded | None:
        token = self._connection.token()
        which = "" if n is None else n
        return self._recorded(
            self._connection.run("cancel", run_id, which, rows.text_of(now), token, self._window.at(now).text)
        )

    def due(self, now: float) -> tuple[Sequence[Dispatch], float | None]:
        next_due, news, found = self._connection.run("due", rows.text_of(now), self._window.at(now).text)
        if news:
            self._tell()
        return rows.dispatches_of(found), float(next_due) if next_due else None

    def refill(self, queues: Sequence[str], now: float) -> Sequence[Dispatch]:
        return rows.dispatches_of(self._connection.run("refill", rows.text_of(now), self._window.at(now).text, *queues))

    def resend(self, queues: Sequence[str], unheard_since: float, limit: int, now: float) -> Sequence[Dispatch]:
        times = (rows.text_of(now), rows.text_of(unheard_since))
        return rows.dispatches_of(self._connection.run("resend", *times, limit, *queues))

    def emit(
        self,
        event_type: str,
        data: Mapping[str, object],
        now: float,
        *,
        worker: str | None = None,
        of: StepRef | None = None,
        single: bool = False,
    ) -> None:
        entries = f"[[{rows.encoded(event_type)},[{of.n if of else ''}],{rows.encoded(dict(data))}]]"
        run_id, token = of.run_id if of else "", self._connection.token()
        self._connection.run("emit", run_id, rows.text_of(now), worker or "", entries, token)
        self._tell()

    # --- subscribers --------------------------------------------------------------------------------------------

    def take_cursor(self, name: str, holder: str, start: int, now: float, until: float, instead_of: str = "") -> Cursor:
        times = (rows.text_of(now), rows.text_of(until))
        seq, its_holder = self._connection.run("take_cursor", name, holder, start, *times, instead_of or holder)
        return Cursor(int(seq), its_holder)

    def move_cursor(self, name: str, holder: str, seq: int, until: float) -> bool:
        return self._connection.run("move_cursor", name, holder, seq, rows.text_of(until)) == 1

    def drop_cursor(self, name: str) -> bool:
        return self._connection.command("DEL", f"{self._key}cursor:{name}") == 1

    # --- workers ------------------------------------------------------------------------------------------------

    def note_body(self, seconds: float) -> None:
        self._window.note(seconds)

    def renew(self, lease: Lease) -> None:
        self._connection.command("HSET", f"{self._key}leases", lease.incarnation, rows.lease_text(lease))

    def leases(self) -> list[Lease]:
        return [rows.lease_of(text) for text in self._connection.command("HVALS", f"{self._key}leases")]

    def release_lease(self, incarnation: str, expires_at: float | None = None) -> bool:
        until = "" if expires_at is None else rows.text_of(expires_at)
        return self._connection.run("release_lease", incarnation, until, self._connection.token()) == 1

    def held(self, incarnation: str) -> list[ClaimRef]:
        names = self._connection.command("ZRANGE", f"{self._key}h:{incarnation}", 0, -1)
        return [rows.claim_ref(name) for name in names]

    def orphans(self) -> list[ClaimRef]:
        return [rows.claim_ref(name) for name in self._connection.run("orphans")]

    # --- reading ------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord | None:
        at, made, error = self._connection.command("HMGET", self._run_key(run_id), "at", "run", "err")
        return None if at is None else rows.run_of(run_id, at, made, error)

    def runs(self, where: RunFilter) -> list[RunRecord]:
        index = _index(where)
        since = "-inf" if where.since is None else rows.text_of(where.since)
        found: list[RunRecord] = []
        offset = 0
        while len(found) < where.limit:
            page = self._connection.run("list_runs", index, since, offset, _PAGE)
            listed = [rows.run_of(*page[at : at + 4]) for at in range(0, len(page), 4)]
            found += [run for run in listed if _meets(run, where)]
            if len(listed) < _PAGE:
                break
            offset += _PAGE
        return found[: where.limit]

    def step(self, ref: StepRef) -> StepRecord | None:
        state, facts, output, error = self._fields(ref, "sfox")
        return None if state is None else rows.record_of(ref, state, facts, output, error)

    def _fields(self, ref: StepRef, letters: str) -> list[Any]:
        return self._connection.command("HMGET", self._run_key(ref.run_id), *(f"{each}{ref.n}" for each in letters))

    def find_step(self, key: str) -> StepRecord | None:
        answer = self._connection.run("find_step", key)
        if not answer:
            return None
        run_id, n, state, facts, _given, output, error = answer
        return rows.record_of(StepRef(run_id, int(n)), state, facts, output, error)

    def steps(self, run_id: str, status: TaskStatus | None = None) -> list[StepRecord]:
        found = self._connection.run("read_steps", run_id, "" if status is None else f'{status}"')
        return [
            rows.record_of(StepRef(run_id, n), state, facts, None, error)
            for n, state, facts, error in (found[at : at + 4] for at in range(0, len(found), 4))
        ]

    def counts(self, run_id: str) -> dict[TaskStatus, int]:
        found = self._connection.run("counts", run_id)
        return {TaskStatus(found[at]): found[at + 1] for at in range(0, len(found), 2)}

    def outputs(self, run_id: str, numbers: Sequence[int]) -> dict[int, str]:
        if not numbers:
            return {}
        found = self._connection.command("HMGET", self._run_key(run_id), *(f"o{n}" for n in numbers))
        return {n: output for n, output in zip(numbers, found, strict=True) if output is not None}

    def result_template(self, run_id: str) -> object:
        text = self._connection.command("HGET", self._run_key(run_id), "res")
        return None if text is None else json.loads(text)

    def depth(self) -> dict[str, int]:
        found = self._connection.run("depth")
        return {found[at]: found[at + 1] for at in range(0, len(found), 2)}

    def backlog(self) -> list[Backlog]:
        found = self._connection.run("backlog")
        listed = [
            Backlog(
                queue, priority, ready, sent, float(sent_since) if sent_since else None, float(since) if since else None
            )
            for queue, priority, ready, sent, sent_since, since in (
                found[at : at + 6] for at in range(0, len(found), 6)
            )
        ]
        return sorted(listed, key=lambda each: (each.queue, each.priority))

    def predecessors(self, run_id: str) -> dict[int, Sequence[int]]:
        found = self._connection.run("read_steps", run_id, "")
        return predecessors(rows.edges_of(found[at], found[at + 2]) for at in range(0, len(found), 4))

    def durations(self, name: str) -> Mapping[str, float]:
        found = self._connection.run("durations", name, MOST_LEARNED)
        return took(rows.span_of(found[at], found[at + 1]) for at in range(0, len(found), 2))

    def open_queues(self) -> list[str]:
        found = self._connection.command("HGETALL", f"{self._key}open")
        return [queue for queue, number in zip(found[::2], found[1::2], strict=True) if int(number) > 0]

    def last_event(self) -> int:
        return int(self._connection.command("GET", f"{self._key}seq") or 0)

    def events(
        self,
        after: int,
        limit: int = 1000,
        *,
        run_id: str | None = None,
        newest: bool = False,
        wanted: Wanted | None = None,
    ) -> tuple[list[Event], int]:
        if run_id is not None:
            found = self._connection.run("events_of_run", run_id, after, limit)
        else:
            found = self._connection.run("read_log", after, limit, int(newest))
        events, last = rows.events_of(found, wanted)
        if last is None and run_id is None and after:
            # A server that lost its last second gives numbers out again: readers must not wait for them to pass.
            last = min(after, self.last_event())
        return events, after if last is None else last

    # --- keeping and looking after ------------------------------------------------------------------------------

    def prune(self, ended_before: float, limit: int) -> int:
        before = rows.text_of(ended_before)
        behind: str | None = "0"
        while behind is not None:
            behind = self._connection.run("prune_loose", before, behind)
        left_out = 0
        while True:
            dropped, kept, more = self._connection.run("prune", before, limit, left_out)
            if dropped or not more:
                return dropped
            left_out += kept

    def prunable(self, ended_before: float) -> int:
        return self._count("prunable", rows.text_of(ended_before))

    def census(self) -> Census:
        runs = {status: self._connection.command("ZCARD", f"{self._key}runs:{status}") for status in WorkflowStatus}
        all_runs: int = self._connection.command("ZCARD", f"{self._key}runs")
        runs[WorkflowStatus.COMPLETED] = all_runs - sum(runs.values())  # they have no index of their own
        events: int = self._connection.command("XLEN", f"{self._key}events")
        return Census({status: count for status, count in runs.items() if count}, self._count("count_steps"), events)

    def _count(self, name: str, *args: object) -> int:
        """Add up what a function counts page by page."""
        total = offset = 0
        while True:
            counted, seen = self._connection.run(name, *args, offset)
            if not seen:
                return total
            total, offset = total + counted, offset + seen

    # --- life ---------------------------------------------------------------------------------------------------

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, listener]

        def stop() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return stop

    def close(self) -> None:
        self._connection.close()


def _going_on(onward: Onward | None) -> Sequence[object]:
    if onward is None:
        return ("",) * 5
    return onward.most, onward.worker, onward.queue, onward.priority, "\n".join(("", *onward.targets, ""))


def _index(where: RunFilter) -> str:
    """Return which index of runs holds all that is looked for, and little else."""
    if where.job_id is not None:
        return f"jr:{where.job_id}"
    # Completed runs have no index of their own: nearly all are.
    return "runs" if where.status in (None, WorkflowStatus.COMPLETED) else f"runs:{where.status}"


def _meets(run: RunRecord, where: RunFilter) -> bool:
    """Whether a run meets the conditions that the index does not show."""
    if where.name is not None and run.name != where.name:
        return False
    if where.status is not None and run.status is not where.status:
        return False
    if not where.has_error(run.error):
        return False
    return all(key in run.metadata and run.metadata[key] == value for key, value in where.metadata.items())
