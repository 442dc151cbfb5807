"""Transitions: what each operation of the contract does, written once over the primitives of a transaction.

The backends that can run Python inside a transaction (SQL, memory) share this module; it holds the semantics, they
hold the rows. Order matters for databases with row locks: a step's own row comes first, then joins and successors
(whose numbers are greater), then the run. Two records of one run therefore never wait for each other in a circle.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from orchestra.engine.join import Way
from orchestra.engine.outcome import Change, Completed, Expanded, Failed, Reopened, Rescheduled, Vanished, decide
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import StepRow, is_last, rows
from orchestra.errors import KeyConflict
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo
from orchestra.model.retry import ONCE, RetryPolicy
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import (
    Claimed,
    ClaimRef,
    Created,
    Dispatch,
    NewRun,
    Onward,
    Recorded,
    Refused,
    ToClaim,
    ToRecord,
)
from orchestra.store.effects import Effects, Window, fill
from orchestra.store.endings import (
    Aftermath,
    count_run,
    end_early,
    end_run,
    failed,
    fall_back,
    gather,
    has_fallback,
    settle,
)
from orchestra.store.entries import Entry, completed_entry, started_entry
from orchestra.store.primitives import Ending, Hot, Transaction

_CANCELLED = ErrorInfo("Cancelled", "cancelled by request")
_NOT_FOUND = "TaskNotFound"
_ENDING = ErrorInfo("Skipped", "not tried again, because the run was ending")


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
        return refused(tx, message)
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


def refused(tx: Transaction, message: MessageRef) -> Refused:
    """Say why a step was not given to a worker."""
    status = tx.status(message.step)
    return Refused(
        status, "no such step" if status is None else f"it is {status}, or paused, or the message is an old one"
    )


def together(
    tx: Callable[[], Transaction], wanted: Sequence[ToClaim | ToRecord], window: Window, onward: Onward | None = None
) -> list[Claimed | Refused | Recorded | None]:
    """See the contract. ``tx`` gives the primitives for one of them; all are of the same transaction."""
    for run_id, alone in locks(wanted).items():
        tx().lock_run(run_id, alone=alone)
    answers = [
        claim(tx(), each.message, each.worker, each.now)
        if isinstance(each, ToClaim)
        else record(tx(), each.claim, each.change, window, each.now)
        for each in wanted
    ]
    return answers if onward is None else go_on(tx, wanted, answers, onward)


def locks(wanted: Sequence[ToClaim | ToRecord]) -> dict[str, bool]:
    """Return the runs to lock for records that are made one after the other, in one order for all, and whether alone.

    That is so where there are several of a run, since these meet at its joins in no order.
    """
    records = [each for each in wanted if isinstance(each, ToRecord)]
    far = Counter(each.claim.ref.step.run_id for each in records)
    far.update(each.claim.ref.step.run_id for each in records if _reaches_far(each.change))
    return {run_id: far[run_id] > 1 for run_id in sorted(far)}


def go_on(
    tx: Callable[[], Transaction],
    wanted: Sequence[ToClaim | ToRecord],
    answers: Sequence[Claimed | Refused | Recorded | None],
    onward: Onward,
) -> list[Claimed | Refused | Recorded | None]:
    """Claim what a worker goes on with, of what the completions of a transaction hand on."""
    room, gone_on = onward.most, list(answers)
    for at, (each, recorded) in enumerate(zip(wanted, answers, strict=True)):
        if isinstance(each, ToClaim) or not isinstance(recorded, Recorded) or not isinstance(each.change, Completed):
            continue
        taken: list[tuple[Dispatch, Claimed]] = []
        others: list[Dispatch] = []
        for dispatch in recorded.dispatches:
            fits = len(taken) < room and onward.takes(each.claim.ref.step.run_id, dispatch)
            claimed = claim(tx(), dispatch.ref, onward.worker, each.now) if fits else None
            if isinstance(claimed, Claimed):
                taken.append((dispatch, claimed))
            else:
                others.append(dispatch)
        room -= len(taken)
        gone_on[at] = replace(recorded, dispatches=others, onward=taken)
    return gone_on


def announce(tx: Transaction, worker: str, started_before: float, now: float) -> int:
    """See the contract."""
    started = tx.unannounced(worker, started_before)
    for ref, single, entry in started:
        tx.append(ref.run_id, single, worker, [entry], now)
    return len(started)


def record(tx: Transaction, claim: ClaimRef, change: Change, window: Window, now: float) -> Recorded | None:
    """See the contract."""
    run_id = claim.ref.step.run_id
    tx.lock_run(run_id, alone=_reaches_far(change))
    held = tx.held_step(claim) if isinstance(change, Failed) else None
    falls_back = held is not None and has_fallback(tx, run_id, held)
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
        fall_back(tx, effects, held, ending.error)
    else:
        arriving, ended_run = _follow_up(tx, effects, hot, change)
        ended_run = settle(tx, effects, arriving) or ended_run
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


def _follow_up(tx: Transaction, effects: Effects, hot: Hot, change: Change) -> Aftermath:
    about: dict[str, object] = {"name": hot.name, "attempt": hot.attempts}
    match change:
        case Completed(_output, dead):
            effects.entries.append(completed_entry(hot.n, hot.name, hot.attempts, hot.started_at, effects.now))
            return [(hot, Way.LIVE, dead)], None
        case Failed(error):
            return failed(tx, effects, hot, error, about)
        case Expanded(expansion) if not expansion.steps:
            return gather(tx, effects, hot.n, 0, None, frozenset())
        case Rescheduled() | Reopened() | Expanded():
            run = tx.run_state(effects.run_id)
            if run.ending is not None:
                # The run is only waiting for what is running to be over: nothing is begun any more.
                tx.stop_one(StepRef(effects.run_id, hot.n), S.SKIPPED, _ENDING, effects.now)
                effects.say("task.skipped", [hot.n], **about)
                return [], count_run(tx, effects)
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
    ended_run = end_early(tx, effects, name, WorkflowStatus.CANCELLED, _CANCELLED)
    return Recorded(effects.commit(), ended_run)


def due(tx: Transaction, window: Window, now: float) -> list[Dispatch]:
    """See the contract."""
    queues: dict[str, None] = {}
    for ref, queue, single in tx.due(now):
        tx.append(ref.run_id, single, None, [("task.queued", (ref.n,), {})], now)
        queues[queue] = None
    return fill(tx, list(queues), window, now) if queues else []
