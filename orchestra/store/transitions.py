"""Transitions: what each operation of the contract does, written once over the primitives of a transaction.

The backends that can run Python inside a transaction (SQL, memory) share this module; it holds the semantics, they
hold the rows. Order matters for databases with row locks: a step's own row comes first, then joins and successors
(whose numbers are greater), then the run. Two records of one run therefore never wait for each other in a circle.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from orchestra.engine.join import Arrivals, Verdict, Way, verdict
from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Reopened, Rescheduled, Vanished, decide
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import StepRow, is_last, rows
from orchestra.errors import KeyConflict
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Created, Dispatch, NewRun, Recorded, Refused, ToClaim, ToRecord
from orchestra.store.entries import Entry
from orchestra.store.primitives import Counted, Ending, Hot, Transaction

Window = Callable[[str], int]
"""How many ready steps of a queue and priority may be with the broker."""

_CANCELLED = ErrorInfo("Cancelled", "cancelled by request")
_NOT_FOUND = "TaskNotFound"
_ENDING = ErrorInfo("Skipped", "not tried again, because the run was ending")
_NOT_TAKEN = ErrorInfo("NotTaken", "not run, because no way into it was taken")

Arriving = tuple[Hot, Way, frozenset[int]]
"""A step that has ended: how, and the joins whose condition on its output does not hold."""
Onward = tuple[list[Arriving], WorkflowStatus | None]
"""What ended because of a change and has to be counted, and how the run ended, if it did."""


class Effects:
    """What one transaction does to one run beside its main change: events, and queues whose windows may have room."""

    def __init__(self, tx: Transaction, run_id: str, single: bool, window: Window, now: float) -> None:
        self.tx, self.run_id, self.single, self.window, self.now = tx, run_id, single, window, now
        self.entries: list[Entry] = []
        self.queues: dict[str, None] = {}
        self.dispatches: list[Dispatch] = []

    def say(self, event: str, numbers: Sequence[int] = (), **data: object) -> None:
        """Add an event of the run that the transaction is about."""
        self.entries.append((event, numbers, data))

    def release(self, join: int, bodies: int, queue: str) -> None:
        """The steps behind a join became ready."""
        at_once = self.window(queue) if bodies == 1 else None
        released, sent = self.tx.release(self.run_id, join, at_once, self.now)
        self.released(released)
        self.dispatches += sent

    def released(self, steps: Sequence[tuple[int, str]]) -> None:
        """Steps became ready."""
        if steps:
            self.say("task.queued", [n for n, _queue in steps])
            self.touch(*(queue for _n, queue in steps))

    def meet(self, hot: Hot) -> Hot:
        """A step is concerned: the first one of a single run says by its key that the run is one."""
        self.single = self.single or hot.key == self.run_id
        return hot

    def touch(self, *queues: str) -> None:
        """The windows of these queues may have room."""
        self.queues.update(dict.fromkeys(queues))

    def commit(self) -> list[Dispatch]:
        """Write the events and fill the windows; the last thing in a transaction."""
        if self.entries:
            self.tx.append(self.run_id, self.single, None, self.entries, self.now)
        return self.dispatches + fill(self.tx, list(self.queues), self.window, self.now)


def fill(tx: Transaction, queues: Sequence[str], window: Window, now: float) -> list[Dispatch]:
    """Send the best waiting steps of each queue as far as its window has room for their priority."""
    dispatches: list[Dispatch] = []
    for queue in queues:
        picked, has_room = tx.pick(queue, window(queue), now)
        dispatches += picked
        while picked and has_room:  # nothing picked although something waits: another transaction is picking it
            picked, has_room = tx.pick(queue, window(queue), now)
            dispatches += picked
    return dispatches


def create_runs(tx: Transaction, runs: Sequence[NewRun], window: Window, now: float) -> list[Created]:
    """See the contract."""
    created: list[Created] = []
    queues: dict[str, None] = {}
    for run in runs:
        ready = add_run(tx, run, now)
        if ready is None:
            created.append(_existing(tx, run))
            continue
        queues.update(dict.fromkeys(ready))
        created.append(Created(run.id, ()))
    dispatches = fill(tx, list(queues), window, now)
    # Which run of the call a dispatch belongs to does not matter: they are published together.
    return [replace(each, dispatches=dispatches if at == 0 else ()) for at, each in enumerate(created)]


def add_run(tx: Transaction, run: NewRun, now: float) -> list[str] | None:
    """Insert a run with its steps, joins and events; returns the queues in which steps of it are ready.

    None when its key or its id is taken.
    """
    steps, joins = rows(run.plan)
    if not tx.add_run(run, sum(is_last(step.feeds) for step in steps), len(steps), len(joins), now):
        return None
    tx.add_steps(run.id, steps, now)
    tx.add_joins(run.id, joins)
    tx.append(run.id, run.single, None, created_entries(run, steps), now)
    return [step.queue for step in steps if step.status is S.QUEUED]


def created_entries(run: NewRun, steps: Sequence[StepRow]) -> list[Entry]:
    """Return the events of a run that is created."""
    entries: list[Entry] = [] if run.single else [("workflow.started", (), {"name": run.name})]
    if run.job_id is not None:
        fired = {"job_id": run.job_id, "name": run.name, "scheduled_for": run.scheduled_for}
        entries.insert(0, ("job.fired", (), fired))
    entries.append(("task.submitted", [step.n for step in steps], {}))
    entries.append(("task.queued", [step.n for step in steps if step.status is S.QUEUED], {}))
    return entries


def _existing(tx: Transaction, run: NewRun) -> Created:
    taken = tx.taken(run.id, run.key)
    assert taken is not None, run.id
    run_id, fingerprint, by_key = taken
    if not by_key:
        raise KeyConflict(run.id, run_id, "ids are used once; give the task another id, or submit it with key=…")
    if fingerprint != run.fingerprint:
        raise KeyConflict(run.key or "", run_id, "that run calls something else, or with another input")
    return Created(run_id, (), existing=True)


def claim(tx: Transaction, message: MessageRef, worker: str, now: float) -> Claimed | Refused:
    """See the contract."""
    claimed = tx.claim(message, worker, now)
    if claimed is None:
        status = tx.status(message.step)
        return Refused(
            status, "no such step" if status is None else f"it is {status}, or paused, or the message is an old one"
        )
    given = StepInput.from_json(claimed.row.input)
    needs, waits_for = given.needs(), claimed.row.waits_for
    if not needs and not given.from_predecessors:
        return claimed
    outputs = tx.outputs(message.step.run_id, needs)
    names: dict[int, str] = {}
    if given.from_predecessors and waits_for is not None:
        for n, (name, output) in tx.predecessors(message.step.run_id, waits_for).items():
            names[n], outputs[n] = name, output
    return replace(claimed, outputs=outputs, predecessors=names)


def together(
    tx: Callable[[], Transaction], wanted: Sequence[ToClaim | ToRecord], window: Window
) -> list[Claimed | Refused | Recorded | None]:
    """See the contract. ``tx`` gives the primitives for one of them; all are of the same transaction."""
    far = Counter(each.claim.ref.step.run_id for each in wanted if isinstance(each, ToRecord))
    far.update(
        each.claim.ref.step.run_id for each in wanted if isinstance(each, ToRecord) and _reaches_far(each.change)
    )
    # In one order for all, and not beside others where there are several of a run: these meet at its joins in no order.
    for run_id in sorted(far):
        tx().lock_run(run_id, alone=far[run_id] > 1)
    return [
        claim(tx(), each.message, each.worker, each.now)
        if isinstance(each, ToClaim)
        else record(tx(), each.claim, each.change, window, each.now)
        for each in wanted
    ]


def announce(tx: Transaction, worker: str, started_before: float, now: float) -> int:
    """See the contract."""
    started = tx.unannounced(worker, started_before)
    for ref, single, entry in started:
        tx.append(ref.run_id, single, worker, [entry], now)
    return len(started)


def started_entry(n: int, name: str, attempts: int, claims: int, worker: str, at: float) -> Entry:
    """Return the event of a start. Its time is that of the claim, not that of the transaction that writes it."""
    return "task.started", [n], {"name": name, "attempt": attempts, "claim": claims, "worker": worker, "at": at}


def completed_entry(n: int, name: str, attempts: int, started_at: float | None, now: float) -> Entry:
    """Return the event of a completion."""
    took = {} if started_at is None else {"duration_s": round(now - started_at, 6)}
    return "task.completed", [n], {"name": name, "attempt": attempts, **took}


def record(tx: Transaction, claim: ClaimRef, change: Change, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    run_id = claim.ref.step.run_id
    tx.lock_run(run_id, alone=_reaches_far(change))
    held = tx.held_step(claim) if isinstance(change, Failed) else None
    falls_back = held is not None and _has_fallback(tx, run_id, held)
    ending = _ending(change, now)
    if falls_back:
        ending = replace(ending, status=S.WAITING, completed_at=None)
    hot = tx.end(claim, ending)
    if hot is None:
        return None
    effects = Effects(tx, run_id, hot.key == run_id, window, now)
    if hot.announced < hot.claims:
        attempt = hot.attempts + (not ending.attempted)
        effects.entries.append(
            started_entry(hot.n, hot.name, attempt, hot.claims, hot.worker or "", hot.started_at or now)
        )
    effects.touch(hot.queue)
    if held is not None and falls_back:
        ended_run: WorkflowStatus | None = None
        _fall_back(tx, effects, held, ending.error)
    else:
        arriving, ended_run = _follow_up(tx, effects, hot, change)
        ended_run = _settle(tx, effects, arriving) or ended_run
    if isinstance(change, Failed) and change.error.type == _NOT_FOUND:
        _blame_job(tx, effects, change.error)
    parent = claim.ref.celery_id
    dispatches = [replace(each, parent=parent) if each.ref.step.run_id == run_id else each for each in effects.commit()]
    return Recorded(dispatches, ended_run)


def _blame_job(tx: Transaction, effects: Effects, error: ErrorInfo) -> None:
    """What a job calls is gone: that is said where people look for the job, and not in its run alone."""
    blamed = tx.blame_job(effects.run_id, str(error)[:500])
    if blamed is not None:
        job_id, name, scheduled_for = blamed
        data = {"job_id": job_id, "name": name, "scheduled_for": scheduled_for, "count": 1, "reason": str(error)[:500]}
        effects.entries.append(("job.missed", (), data))


def _reaches_far(change: Change) -> bool:
    """Whether a change may touch more of its run than what comes next: then it does not do so beside others.

    What is skipped is counted at joins and at the run in no fixed order, and the end of a run is decided by what is
    running. A plain completion that finds out late that it reaches far asks again, at the risk of a deadlock, which
    databases resolve.
    """
    return isinstance(change, Failed) or (isinstance(change, Completed) and bool(change.dead))


def _has_fallback(tx: Transaction, run_id: str, hot: Hot) -> bool:
    """Whether something runs in the place of a step that is about to fail. That of a map is for each of its parts."""
    return hot.fallback is not None and not hot.is_map and tx.run_state(run_id).ending is None


def _fall_back(tx: Transaction, effects: Effects, hot: Hot, error: ErrorInfo | None) -> None:
    assert hot.fallback is not None, hot
    n, _join = tx.reserve(effects.run_id, 1, 0)
    parked = tx.run_state(effects.run_id).paused
    queue = tx.add_fallback(effects.run_id, hot.n, n, hot.fallback, effects.now, parked=parked)
    effects.say("task.retrying", [hot.n], name=hot.name, error=str(error)[:500], fallback=hot.fallback[2])
    effects.say("task.submitted", [n], of=hot.n)
    effects.released([(n, queue)])


def _ending(change: Change, now: float) -> Ending:
    match change:
        case Completed(output):
            return Ending(S.COMPLETED, output, attempted=True, completed_at=now)
        case Failed(error, attempted, crashed):
            return Ending(S.FAILED, None, error, attempted, crashed, completed_at=now)
        case Rescheduled(error, after_s, attempted):
            return Ending(S.RETRYING, None, error, attempted, due_at=now + after_s)
        case Reopened(reason, crashed):
            return Ending(S.QUEUED, None, ErrorInfo("WorkerLost", reason) if crashed else None, crashed=crashed)
        case Expanded(expansion):
            return Ending(S.WAITING, parts_left=expansion.parts, collects=expansion.collects)
        case _:
            assert_never(change)


def _follow_up(tx: Transaction, effects: Effects, hot: Hot, change: Change) -> Onward:
    about: dict[str, object] = {"name": hot.name, "attempt": hot.attempts}
    match change:
        case Completed(_output, dead):
            effects.entries.append(completed_entry(hot.n, hot.name, hot.attempts, hot.started_at, effects.now))
            return [(hot, Way.LIVE, dead)], None
        case Failed(error):
            return _failed(tx, effects, hot, error, about)
        case Expanded(expansion) if not expansion.steps:
            return _gather(tx, effects, hot.n, 0, None, frozenset())
        case Rescheduled() | Reopened() | Expanded():
            run = tx.run_state(effects.run_id)
            if run.ending is not None:
                # The run is only waiting for what is running to be over: nothing is begun any more.
                tx.stop_one(StepRef(effects.run_id, hot.n), S.SKIPPED, _ENDING, effects.now)
                effects.say("task.skipped", [hot.n], **about)
                return [], _count_run(tx, effects)
            _go_on(tx, effects, hot, change, about, run.paused)
            return [], None
        case _:
            assert_never(change)


def _go_on(
    tx: Transaction,
    effects: Effects,
    hot: Hot,
    change: Rescheduled | Reopened | Expanded,
    about: Mapping[str, object],
    paused: bool,
) -> None:
    match change:
        case Rescheduled(error, after_s):
            effects.say("task.retrying", [hot.n], **about, error=str(error)[:500], after_s=round(after_s, 3))
        case Reopened(reason):
            effects.say("task.retrying", [hot.n], **about, error=reason, crashes=hot.crashes, after_s=0)
        case Expanded(expansion):
            tx.add_steps(effects.run_id, expansion.steps, effects.now, parked=paused)
            tx.add_joins(effects.run_id, expansion.joins)
            effects.say("task.submitted", [step.n for step in expansion.steps], of=hot.n)
            effects.released([(step.n, step.queue) for step in expansion.steps if step.status is S.QUEUED])
        case _:
            assert_never(change)


def _failed(tx: Transaction, effects: Effects, hot: Hot, error: ErrorInfo, about: Mapping[str, object]) -> Onward:
    """A step failed for good: end the run, or let go on what does not depend on it.

    What something with a fallback turned into goes on as well, since that one will not have failed.
    """
    told = {**about, "error": str(error)[:500], "error_type": error.type}
    effects.say("task.failed", [hot.n], **told)
    run = tx.run_state(effects.run_id)
    broken: list[Arriving] = [(hot, Way.BROKEN, frozenset())]
    if run.ending is None and hot.parent is not None and tx.is_caught(effects.run_id, hot.parent):
        return broken, None
    if run.goes_on:
        tx.note_error(effects.run_id, _blamed(effects, hot.name, error))
        return broken, None
    _fail_parents(tx, effects, hot, error)
    return [], _end_early(tx, effects, hot.name, WorkflowStatus.FAILED, error)


def _fail_parents(tx: Transaction, effects: Effects, hot: Hot, error: ErrorInfo) -> None:
    """What a failed step was a part of has failed with it."""
    blamed = replace(error, message=f"{hot.name!r}: {error}")
    parent = hot.parent
    while parent is not None:
        ended = tx.end_waiting(effects.run_id, parent, Ending(S.FAILED, error=blamed, completed_at=effects.now))
        if ended is None:
            return
        effects.meet(ended)
        effects.say("task.failed", [ended.n], name=ended.name, error=str(blamed)[:500], error_type=error.type)
        parent = ended.parent


def _settle(tx: Transaction, effects: Effects, arriving: list[Arriving]) -> WorkflowStatus | None:
    """Count what has ended wherever it counts. What is skipped or gathered because of it is counted in turn."""
    ended_run: WorkflowStatus | None = None
    while arriving:
        hot, way, dead = arriving.pop()
        for feed in hot.feeds:
            way_in = Way.DEAD if way is Way.LIVE and feed[0] in dead else way
            arriving += _arrive(tx, effects, hot, feed, way_in)
        onward, ended = _count(tx, effects, hot, way, dead)
        arriving += onward
        ended_run = ended or ended_run
    return ended_run


def _arrive(tx: Transaction, effects: Effects, hot: Hot, feed: Sequence[int], way: Way) -> list[Arriving]:
    """Count a step at a join; release what is behind it, or return what was skipped."""
    join, parts, bodies, any_way = feed
    if parts == 1:
        arrivals = Arrivals(0, live=int(way is Way.LIVE), broken=int(way is Way.BROKEN))
    else:
        arrivals = tx.count_join(effects.run_id, join, way, hot.n, None if any_way else parts)
    match verdict(arrivals):
        case Verdict.WAIT:
            return []
        case Verdict.RELEASE:
            effects.release(join, bodies, hot.queue)
            return []
        case Verdict.SKIP:
            error, onward = _NOT_TAKEN, Way.DEAD
        case Verdict.BREAK:
            error = ErrorInfo("Skipped", f"not run, because {hot.name!r} before it did not complete")
            onward = Way.BROKEN
    skipped = tx.skip(effects.run_id, join, error, effects.now)
    if skipped:
        effects.say("task.skipped", [each.n for each in skipped], because=hot.name)
    return [(each, onward, frozenset[int]()) for each in skipped]


def _count(tx: Transaction, effects: Effects, hot: Hot, way: Way, dead: frozenset[int]) -> Onward:
    """Count a step that has ended with its parent or with its run."""
    if is_last(hot.feeds):
        if hot.parent is None:
            return [], _tell_end(effects, hot.counted or tx.count_run(effects.run_id, effects.now))
        of_parent = tx.count_part(effects.run_id, hot.parent, way is Way.BROKEN)
        if of_parent is not None:
            left, broken, collects, max_parallel = of_parent
            if left == 0:
                # Conditions on the output of the parent were looked at where that was made.
                return _gather(tx, effects, hot.parent, broken, collects, dead if collects == hot.n else frozenset())
            if max_parallel is not None:
                effects.released(tx.release_part(effects.run_id, hot.parent))
    return [], None if tx.run_state(effects.run_id).ending is None else _count_run(tx, effects)


def _gather(
    tx: Transaction, effects: Effects, parent: int, broken: int, collects: int | None, dead: frozenset[int]
) -> Onward:
    """All parts of a step have ended: so has it, with their output."""
    if broken:
        return _break(tx, effects, parent, ErrorInfo("PartsFailed", f"{broken} of its parts did not complete"))
    if collects is None:
        output = tx.part_outputs(effects.run_id, parent)
    else:
        output = tx.outputs(effects.run_id, [collects]).get(collects, "null")
    hot = tx.end_waiting(effects.run_id, parent, Ending(S.COMPLETED, output, completed_at=effects.now))
    if hot is None:
        return [], None
    effects.meet(hot)
    effects.say("task.completed", [hot.n], name=hot.name, attempt=hot.attempts)
    return [(hot, Way.LIVE, dead)], None


def _break(tx: Transaction, effects: Effects, parent: int, error: ErrorInfo) -> Onward:
    """Parts of a step did not complete: it has failed, unless it has a fallback."""
    waiting = tx.waiting_step(effects.run_id, parent)
    if waiting is None:
        return [], None
    effects.meet(waiting)
    if _has_fallback(tx, effects.run_id, waiting):
        _fall_back(tx, effects, waiting, error)
        return [], None
    tx.end_waiting(effects.run_id, parent, Ending(S.FAILED, error=error, completed_at=effects.now))
    return _failed(tx, effects, waiting, error, {"name": waiting.name, "attempt": waiting.attempts})


def _end_early(
    tx: Transaction, effects: Effects, name: str, status: WorkflowStatus, error: ErrorInfo
) -> WorkflowStatus | None:
    """Skip what has not started, and wait for what is running."""
    run_id = effects.run_id
    tx.lock_run(run_id, alone=True)
    if not tx.begin_ending(run_id, status, _blamed(effects, name, error)):
        return _count_run(tx, effects)
    reason = ErrorInfo("Skipped", f"not run, because {name!r} ended before: {str(error)[:300]}")
    skipped = tx.stop(run_id, S.SKIPPED, reason, effects.now, running_too=False)
    if skipped:
        effects.say("task.skipped", [n for n, _queue in skipped], because=name)
        effects.touch(*(queue for _n, queue in skipped))
    running = tx.count_running(run_id)
    tx.wait_for(run_id, running)
    return end_run(tx, effects, status) if running == 0 else None


def _blamed(effects: Effects, name: str, error: ErrorInfo) -> ErrorInfo:
    return error if effects.single else replace(error, message=f"{name!r}: {error}")


def _count_run(tx: Transaction, effects: Effects) -> WorkflowStatus | None:
    return _tell_end(effects, tx.count_run(effects.run_id, effects.now))


def _tell_end(effects: Effects, counted: Counted) -> WorkflowStatus | None:
    if counted.ended is not None and not counted.single:
        effects.say(f"workflow.{counted.ended.value.lower()}")
    return counted.ended


def end_run(tx: Transaction, effects: Effects, status: WorkflowStatus) -> WorkflowStatus | None:
    """Everything that the run waited for has ended."""
    single = tx.end_run(effects.run_id, status, effects.now)
    return None if single is None else _tell_end(effects, Counted(status, single))


def vanish(tx: Transaction, claim: ClaimRef, reason: str, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    hot = tx.held_step(claim)
    if hot is None:
        return None
    retry = RetryPolicy.from_json(dict(hot.retry)) if hot.retry else ONCE
    change = decide(Vanished(reason), name=hot.name, attempts=hot.attempts, crashes=hot.crashes, retry=retry)
    return record(tx, claim, change, window, now)


def cancel(tx: Transaction, run_id: str, n: int | None, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    tx.lock_run(run_id, alone=True)
    run = tx.run_state(run_id)
    if run.ended:
        return None
    effects = Effects(tx, run_id, run.single, window, now)
    if n is None or run.single:
        tx.begin_ending(run_id, WorkflowStatus.CANCELLED, _CANCELLED)
        effects.entries += tx.starts(run_id, None)
        stopped = tx.stop(run_id, S.CANCELLED, _CANCELLED, now, running_too=True)
        effects.say("task.cancelled", [number for number, _queue in stopped])
        effects.touch(*(queue for _number, queue in stopped))
        ended = end_run(tx, effects, run.ending or WorkflowStatus.CANCELLED)
        return Recorded(effects.commit(), ended)
    effects.entries += tx.starts(run_id, n)
    stopped_one = tx.stop_one(StepRef(run_id, n), S.CANCELLED, _CANCELLED, now)
    if stopped_one is None:
        return None
    name, queue = stopped_one
    effects.say("task.cancelled", [n], name=name)
    effects.touch(queue)
    ended_run = _end_early(tx, effects, name, WorkflowStatus.CANCELLED, _CANCELLED)
    return Recorded(effects.commit(), ended_run)


def due(tx: Transaction, window: Window, now: float) -> list[Dispatch]:
    """See the contract."""
    queues: dict[str, None] = {}
    for ref, queue, single in tx.due(now):
        tx.append(ref.run_id, single, None, [("task.queued", (ref.n,), {})], now)
        queues[queue] = None
    return fill(tx, list(queues), window, now) if queues else []
