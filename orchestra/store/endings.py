"""Endings: what the end of a step means for what waits for it: joins, the step that it is a part of, and its run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.engine.join import Arrivals, Verdict, Way, verdict
from orchestra.engine.rows import is_last
from orchestra.model.record import ErrorInfo
from orchestra.model.status import TaskStatus as S
from orchestra.model.status import WorkflowStatus
from orchestra.store.effects import Effects
from orchestra.store.primitives import Counted, Ending, Hot, Transaction

_NOT_TAKEN = ErrorInfo("NotTaken", "not run, because no way into it was taken")

Arriving = tuple[Hot, Way, frozenset[int]]
"""A step that has ended: how, and the joins whose condition on its output does not hold."""
Aftermath = tuple[list[Arriving], WorkflowStatus | None]
"""What ended because of a change and has to be counted, and how the run ended, if it did."""


def has_fallback(tx: Transaction, run_id: str, hot: Hot) -> bool:
    """Whether something runs in the place of a step that is about to fail. That of a map is for each of its parts."""
    return hot.fallback is not None and not hot.is_map and tx.run_state(run_id).ending is None


def fall_back(tx: Transaction, effects: Effects, hot: Hot, error: ErrorInfo | None) -> None:
    assert hot.fallback is not None, hot
    n, _join = tx.reserve(effects.run_id, 1, 0)
    parked = tx.run_state(effects.run_id).paused
    queue = tx.add_fallback(effects.run_id, hot.n, n, hot.fallback, effects.now, parked=parked)
    effects.say("task.retrying", [hot.n], name=hot.name, error=str(error)[:500], fallback=hot.fallback[2])
    effects.say("task.submitted", [n], of=hot.n)
    effects.released([(n, queue)])


def failed(tx: Transaction, effects: Effects, hot: Hot, error: ErrorInfo, about: Mapping[str, object]) -> Aftermath:
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
    return [], end_early(tx, effects, hot.name, WorkflowStatus.FAILED, error)


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


def settle(tx: Transaction, effects: Effects, arriving: list[Arriving]) -> WorkflowStatus | None:
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
    if parts == 1 and way is not Way.DEAD:  # a dead way is written down, for those who retry the run
        arrivals = Arrivals(0, live=int(way is Way.LIVE), broken=int(way is Way.BROKEN))
    else:
        arrivals = tx.count_join(effects.run_id, join, way, hot.n, None if any_way else parts)
    return arrived(tx, effects, hot, join, bodies, arrivals)


def arrived(tx: Transaction, effects: Effects, hot: Hot, join: int, bodies: int, arrivals: Arrivals) -> list[Arriving]:
    """A step was counted at a join, at which so much has arrived now."""
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


def shut(tx: Transaction, effects: Effects, joins: Sequence[int]) -> WorkflowStatus | None:
    """Skip what is behind joins that no way leads through; returns how the run ended, if it did."""
    skipped = [each for join in joins for each in tx.skip(effects.run_id, join, _NOT_TAKEN, effects.now)]
    if skipped:
        effects.say("task.skipped", [each.n for each in skipped])
    return settle(tx, effects, [(each, Way.DEAD, frozenset[int]()) for each in skipped])


def _count(tx: Transaction, effects: Effects, hot: Hot, way: Way, dead: frozenset[int]) -> Aftermath:
    """Count a step that has ended with its parent or with its run."""
    if is_last(hot.feeds):
        if hot.parent is None:
            return [], _tell_end(effects, hot.counted or tx.count_run(effects.run_id, effects.now))
        of_parent = tx.count_part(effects.run_id, hot.parent, way is Way.BROKEN)
        if of_parent is not None:
            left, broken, collects, max_parallel = of_parent
            if left == 0:
                # Conditions on the output of the parent were looked at where that was made.
                return gather(tx, effects, hot.parent, broken, collects, dead if collects == hot.n else frozenset())
            if max_parallel is not None:
                effects.released(tx.release_part(effects.run_id, hot.parent))
    return [], None if tx.run_state(effects.run_id).ending is None else count_run(tx, effects)


def gather(
    tx: Transaction, effects: Effects, parent: int, broken: int, collects: int | None, dead: frozenset[int]
) -> Aftermath:
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


def _break(tx: Transaction, effects: Effects, parent: int, error: ErrorInfo) -> Aftermath:
    """Parts of a step did not complete: it has failed, unless it has a fallback."""
    waiting = tx.waiting_step(effects.run_id, parent)
    if waiting is None:
        return [], None
    effects.meet(waiting)
    if has_fallback(tx, effects.run_id, waiting):
        fall_back(tx, effects, waiting, error)
        return [], None
    tx.end_waiting(effects.run_id, parent, Ending(S.FAILED, error=error, completed_at=effects.now))
    return failed(tx, effects, waiting, error, {"name": waiting.name, "attempt": waiting.attempts})


def end_early(
    tx: Transaction, effects: Effects, name: str, status: WorkflowStatus, error: ErrorInfo
) -> WorkflowStatus | None:
    """Skip what has not started, and wait for what is running."""
    run_id = effects.run_id
    tx.lock_run(run_id, alone=True)
    if not tx.begin_ending(run_id, status, _blamed(effects, name, error)):
        return count_run(tx, effects)
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


def count_run(tx: Transaction, effects: Effects) -> WorkflowStatus | None:
    return _tell_end(effects, tx.count_run(effects.run_id, effects.now))


def _tell_end(effects: Effects, counted: Counted) -> WorkflowStatus | None:
    if counted.ended is not None and not counted.single:
        effects.say(f"workflow.{counted.ended.value.lower()}")
    return counted.ended


def end_run(tx: Transaction, effects: Effects, status: WorkflowStatus) -> WorkflowStatus | None:
    """Everything that the run waited for has ended."""
    single = tx.end_run(effects.run_id, status, effects.now)
    return None if single is None else _tell_end(effects, Counted(status, single))
