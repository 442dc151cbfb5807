"""Again: what a retry by hand runs, and how a run stands before it does. Pure.

Only what failed, was cancelled or was skipped because of that runs again; what completed keeps its output, and what no
way led to stays out. A step that failed with its parts waits for those of them that run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestra.engine.join import Arrivals, Verdict, verdict
from orchestra.engine.rows import fallback_name, is_last
from orchestra.model.status import TaskStatus as S

NOT_TAKEN = "NotTaken"
"""Type of the error of a step that no way led to."""
_UNDONE = frozenset({S.FAILED, S.CANCELLED, S.SKIPPED})


@dataclass(frozen=True, slots=True)
class Standing:
    """A step of a run that has ended."""

    n: int
    key: str
    name: str
    queue: str
    status: S
    waits_for: int | None
    feeds: Sequence[Sequence[int]]
    parent: int | None = None
    is_map: bool = False
    max_parallel: int | None = None
    collects: int | None = None
    error_type: str | None = None

    @property
    def is_undone(self) -> bool:
        """Whether it failed, was cancelled, or was kept from running by what did."""
        return self.status in _UNDONE and not (self.status is S.SKIPPED and self.error_type == NOT_TAKEN)


@dataclass(frozen=True, slots=True)
class Counted:
    """A join as it stands before its parts run again."""

    remaining: int
    live: int
    dead: frozenset[int]
    """Parts that have ended, and whose way was not taken."""


@dataclass(frozen=True, slots=True)
class Again:
    """How a run stands when it is opened again."""

    steps: Mapping[int, S]
    """The steps that run again, and how they begin."""
    parts: Mapping[int, int] = field(default_factory=dict[int, int])
    """How many parts those that wait for parts wait for."""
    joins: Mapping[int, Counted] = field(default_factory=dict[int, Counted])
    """The joins of which a part runs again, and that have counted something."""
    shut: Mapping[int, Sequence[int]] = field(default_factory=dict[int, Sequence[int]])
    """The joins that no way leads through, and the steps behind them that run again: these are skipped at once."""
    remaining: int = 0
    """How many last steps the run waits for."""


def again(steps: Sequence[Standing], dead: Mapping[int, frozenset[int]]) -> Again | None:
    """Return how a run that has ended is opened again; None when nothing of it is left to do.

    Args:
        dead: By join, the parts whose way was not taken.
    """
    known = {each.n: each for each in steps}
    undone = _undone(known)
    if not undone:
        return None
    parts_of: dict[int, list[Standing]] = {}
    joins: dict[int, list[int]] = {}
    any_way: set[int] = set()
    for each in steps:
        if each.parent is not None and each.n in undone:
            parts_of.setdefault(each.parent, []).append(each)
        for number, _parts, _bodies, is_any in each.feeds:
            joins.setdefault(number, []).append(each.n)
            any_way |= {number} if is_any else set()
    arrived = {number: _arrived(parts, known, undone, dead.get(number, frozenset())) for number, parts in joins.items()}
    begins: dict[int, S] = {}
    for n in sorted(undone):
        begins[n] = _begins(known[n], parts_of, arrived, any_way)
    for parent, parts in parts_of.items():
        _hold_back(known[parent], parts, begins)
    shut: dict[int, list[int]] = {}
    for n in sorted(undone):
        join = known[n].waits_for
        if begins[n] is S.PENDING and join is not None and _meaning(arrived[join], join in any_way) is Verdict.SKIP:
            shut.setdefault(join, []).append(n)
    counted = {
        number: arrived[number]
        for number, parts in joins.items()
        if (len(parts) > 1 or dead.get(number)) and any(part in undone for part in parts)
    }
    left = {parent: sum(is_last(part.feeds) for part in parts) for parent, parts in parts_of.items()}
    remaining = sum(known[n].parent is None and is_last(known[n].feeds) for n in undone)
    return Again(begins, left, counted, shut, remaining)


def downstream(steps: Sequence[Standing], n: int) -> set[int]:
    """Return a step and all that depend on it."""
    bodies: dict[int, list[int]] = {}
    for each in steps:
        if each.waits_for is not None:
            bodies.setdefault(each.waits_for, []).append(each.n)
    known = {each.n: each for each in steps}
    found: set[int] = set()
    open_ = [n]
    while open_:
        at = open_.pop()
        if at not in found:
            found.add(at)
            open_ += [body for feed in known[at].feeds for body in bodies.get(feed[0], ())]
    return found


def _undone(known: Mapping[int, Standing]) -> set[int]:
    """Return the steps that run again: a part only if what it is a part of does, and counts on it."""
    children: dict[int, list[Standing]] = {}
    for each in known.values():
        if each.parent is not None:
            children.setdefault(each.parent, []).append(each)
    found: set[int] = set()
    open_ = [each for each in known.values() if each.parent is None and each.is_undone]
    while open_:
        at = open_.pop()
        found.add(at.n)
        parts = children.get(at.n, [])
        # What it turned into while its run was ending was never begun, so that what it collects need not exist.
        taken = None if at.collects is None else known.get(at.collects)
        if taken is not None and taken.key == fallback_name(at.name):
            parts = [taken]  # what ran in its place; what it had turned into before counts no more
        undone = [part for part in parts if part.is_undone]
        if parts and not any(is_last(part.feeds) for part in undone):
            # It was cancelled after its last part had completed: that one gives it its output once more.
            undone.append(max((part for part in parts if is_last(part.feeds)), key=lambda part: part.n))
        open_ += undone
    return found


def _arrived(parts: Sequence[int], known: Mapping[int, Standing], undone: set[int], dead: frozenset[int]) -> Counted:
    ended = [known[part] for part in parts if part not in undone]
    not_taken = frozenset(each.n for each in ended if each.n in dead or each.status is not S.COMPLETED)
    return Counted(len(parts) - len(ended), len(ended) - len(not_taken), not_taken)


def _begins(
    step: Standing, parts_of: Mapping[int, Sequence[Standing]], arrived: Mapping[int, Counted], any_way: set[int]
) -> S:
    if step.n in parts_of:
        return S.WAITING
    if step.waits_for is None:
        return S.QUEUED
    meaning = _meaning(arrived[step.waits_for], step.waits_for in any_way)
    return S.QUEUED if meaning is Verdict.RELEASE else S.PENDING


def _meaning(its: Counted, is_any: bool) -> Verdict:
    return verdict(Arrivals(its.remaining, its.live, 0, is_any))


def _hold_back(parent: Standing, parts: Sequence[Standing], begins: dict[int, S]) -> None:
    """Parts of a map begin no more at once than it allows."""
    if parent.is_map and parent.max_parallel is not None:
        for part in sorted(parts, key=lambda part: part.n)[parent.max_parallel :]:
            if begins[part.n] is S.QUEUED:
                begins[part.n] = S.PENDING
