"""Ends: completions that are recorded together, and what follows from them.

One statement does what follows from most of them: it counts joins and runs, each row once and in their order, and makes
ready what is behind complete joins. A step that is a part of another one, or feeds a join of any, is only ended by it:
what follows is made the general way, one after the other. So is what is skipped because something before it broke.
"""

import json
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import cast

from orchestra.engine.join import Arrivals, Way
from orchestra.engine.outcome import Completed
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import ClaimRef, Dispatch, Recorded, ToRecord
from orchestra.store.effects import Effects, Window
from orchestra.store.endings import arrived, count_run, settle
from orchestra.store.entries import Entry, completed_entry, started_entry
from orchestra.store.primitives import Hot
from orchestra.store.sql import statements as sql
from orchestra.store.sql.database import Row, Transaction
from orchestra.store.sql.results import Packing
from orchestra.store.sql.rows import dispatch_of, encoded, hot_of, picked_of
from orchestra.store.sql.statements.columns import HOT
from orchestra.store.sql.transaction import SqlTransaction

_NONE = frozenset[int]()


class BatchTransaction(SqlTransaction):
    """The primitives, where the events of several runs are written with what comes last."""

    def __init__(self, tx: Transaction, packing: Packing) -> None:
        super().__init__(tx, packing)
        self._events: list[dict[str, object]] = []

    def append(
        self, run_id: str | None, single: bool, worker: str | None, entries: Sequence[Entry], now: float
    ) -> None:
        self.wrote_events = True
        row: dict[str, object] = {
            "time": now,
            "run_id": run_id,
            "single": int(single),
            "worker": worker,
            "entries": encoded(entries),
        }
        self._events.append(row)
        self.tx.wrote = sql.log.WROTE, {name: row[name] for name in ("run_id", "time", "entries")}

    def pick(self, queue: str, window: int, now: float) -> tuple[list[Dispatch], bool]:
        if not self._events:
            return super().pick(queue, window, now)
        events, self._events = json.dumps(self._events), []
        return picked_of(self.tx.all(sql.window.PICK_AND_ADD_ALL, queue=queue, window=window, now=now, events=events))

    def unwritten(self) -> str | None:
        """Give what has to be written with the next statement, as JSON text."""
        if not self._events:
            return None
        events, self._events = json.dumps(self._events), []
        return events

    def flush(self) -> None:
        if (events := self.unwritten()) is not None:
            self.tx.run(sql.log.ADD_ALL_EVENTS, events=events)


@dataclass(slots=True)
class End:
    """One completion: what was wanted, and what came of it."""

    at: int
    wanted: ToRecord
    hot: Hot
    plain: bool
    is_run_ending: bool
    effects: Effects
    ended_run: WorkflowStatus | None = None
    dispatches: list[Dispatch] = field(default_factory=list[Dispatch])
    ready: list[Dispatch] = field(default_factory=list[Dispatch])
    """What it made ready in a queue in which nothing else waits: it may be claimed without being sent."""
    released: list[int] = field(default_factory=list[int])

    @property
    def run_id(self) -> str:
        """The run of the step."""
        return self.wanted.claim.ref.step.run_id

    @property
    def recorded(self) -> Recorded:
        """The answer."""
        return Recorded(self.dispatches, self.ended_run, [])

    def own(self, dispatch: Dispatch) -> Dispatch:
        """Return a dispatch as what this one hands on."""
        if dispatch.ref.step.run_id != self.run_id:
            return dispatch
        return replace(dispatch, parent=self.wanted.claim.ref.celery_id)

    @contextmanager
    def following(self) -> Generator[None]:
        """Keep what follows from this one, of all that is told and handed on in its run."""
        told, sent = len(self.effects.entries), len(self.effects.dispatches)
        yield
        self.dispatches += map(self.own, self.effects.dispatches[sent:])
        self.released += [n for kind, ns, _data in self.effects.entries[told:] if kind == "task.queued" for n in ns]


class Ends:
    """Completions that were recorded together.

    Args:
        onward: The queue in which the worker would go on, if it would.
    """

    def __init__(self, tx: BatchTransaction, window: Window, onward: str | None) -> None:
        self._tx, self._window, self._onward = tx, window, onward
        self.each: list[End] = []
        self.now = 0.0
        self.queues: dict[str, None] = {}
        """Whose windows may have room for something."""

    def complete(self, records: Sequence[tuple[int, ToRecord]]) -> None:
        """End what still is held; what was superseded is left out."""
        asked: dict[ClaimRef, tuple[int, ToRecord]] = {}
        for at, each in records:
            asked.setdefault(each.claim, (at, each))
        rows = json.dumps([_end_row(each) for _claim, (_at, each) in sorted(asked.items())])
        found = self._tx.tx.one(sql.batch.END_ALL, rows=rows)
        if found is None or not found[0]:
            return
        ended, released, broken, runs, waiting = found
        every = self._meet(asked, ended)
        self.queues = dict.fromkeys(waiting or ())
        self._release(released or (), {each.hot.queue for each in self.each} - set(self.queues))
        self._follow(broken or ())
        self._tell_ends(runs or ())
        for effects in every:
            if effects.entries:
                self._tx.append(effects.run_id, effects.single, None, effects.entries, effects.now)
            self.queues.update(effects.queues)
            self.now = effects.now

    def share(self, picked: Iterable[Dispatch]) -> None:
        """Say which record hands on what: it made it ready, or is the last one of the same run, or else the first."""
        of_step = {StepRef(each.run_id, n): each for each in self.each for n in each.released}
        of_run = {each.run_id: each for each in self.each}
        for each in picked:
            end = of_step.get(each.ref.step) or of_run.get(each.ref.step.run_id) or self.each[0]
            end.dispatches.append(end.own(each))

    def _meet(self, asked: Mapping[ClaimRef, tuple[int, ToRecord]], rows: Iterable[Row]) -> list[Effects]:
        """Keep what has ended in the order in which that was wanted; return a row of the log for each run and time."""
        found: dict[ClaimRef, Row] = {}
        for row in rows:
            (run_id, generation), n, claims = row[:2], row[4], row[4 + HOT.index("claims")]
            found[ClaimRef(MessageRef(StepRef(run_id, n), generation), claims)] = row
        every: list[Effects] = []
        newest: dict[str, Effects] = {}
        for claim, (at, each) in asked.items():
            if claim not in found:
                continue
            (run_id, _generation, plain, ending), hot = found[claim][:4], hot_of(tuple(found[claim][4:]))
            effects = newest.get(run_id)
            if effects is None or effects.now != each.now:
                effects = newest[run_id] = Effects(self._tx, run_id, hot.key == run_id, self._window, each.now)
                every.append(effects)
            effects.meet(hot)
            effects.entries += _entries(hot, each.now)
            self.each.append(End(at, each, hot, plain, ending is not None, effects))
        for each in self.each:
            each.effects = newest[each.run_id]  # what follows from it is told behind all that it may follow from
        return every

    def _release(self, rows: Iterable[Sequence[object]], free: Collection[str]) -> None:
        """Steps became ready, each because of the last part of its join."""
        last = {(each.run_id, feed[0]): each for each in self.each if each.plain for feed in each.hot.feeds}
        for (run_id, join), released in groupby(rows, lambda row: (str(row[2]), row[0])):
            several = [(row[0], row[1], dispatch_of(tuple(row[2:]))) for row in released]
            each = last[run_id, cast("int", join)]
            with each.following():
                each.effects.say("task.queued", [dispatch.ref.step.n for _join, _parked, dispatch in several])
            for _waits_for, parked, dispatch in several:
                if dispatch.queue == self._onward and dispatch.queue in free and not parked:
                    each.ready.append(each.own(dispatch))
                else:
                    each.effects.touch(dispatch.queue)

    def _follow(self, broken: Iterable[tuple[str, int, int, int]]) -> None:
        """Do what the statement did not do."""
        last = {(each.run_id, feed[0]): (each, feed[2]) for each in self.each if each.plain for feed in each.hot.feeds}
        for run_id, join, live, gone in broken:
            each, bodies = last[run_id, join]
            with each.following():
                skipped = arrived(self._tx, each.effects, each.hot, join, bodies, Arrivals(0, live, gone))
                each.ended_run = settle(self._tx, each.effects, skipped) or each.ended_run
        for each in sorted(self.each, key=lambda end: (end.run_id, end.hot.parent or 0)):
            with each.following():
                if not each.plain:
                    each.ended_run = settle(self._tx, each.effects, [(each.hot, Way.LIVE, _NONE)])
                elif each.is_run_ending and each.hot.feeds:
                    each.ended_run = count_run(self._tx, each.effects)

    def _tell_ends(self, runs: Iterable[tuple[str, str]]) -> None:
        last = {each.run_id: each for each in self.each if each.plain and not each.hot.feeds}
        for run_id, status in runs:
            each = last[run_id]
            each.ended_run = WorkflowStatus(status)
            if not each.effects.single:
                each.effects.say(f"workflow.{status.lower()}")


def _end_row(wanted: ToRecord) -> dict[str, object]:
    assert isinstance(wanted.change, Completed)
    ((run_id, n), generation), number = wanted.claim
    about = {"run_id": run_id, "n": n, "generation": generation, "claim": number}
    return {**about, "output": wanted.change.output, "at": wanted.now}


def _entries(hot: Hot, now: float) -> Iterator[Entry]:
    if hot.announced < hot.claims:
        yield started_entry(hot.n, hot.name, hot.attempts, hot.claims, hot.worker or "", hot.started_at or now)
    yield completed_entry(hot.n, hot.name, hot.attempts, hot.started_at, now)
