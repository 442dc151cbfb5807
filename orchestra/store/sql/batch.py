"""Batches: many claims and records of one transaction in few statements, on databases that can (PostgreSQL).

Completions go together, as do claims; every other change goes the general way, one after the other.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from orchestra.engine.outcome import Completed
from orchestra.engine.plan import StepInput
from orchestra.model.ids import MessageRef, StepRef
from orchestra.store import transitions
from orchestra.store.contract import Claimed, Dispatch, Onward, Recorded, Refused, ToClaim, ToRecord
from orchestra.store.effects import Window, fill
from orchestra.store.sql import statements as sql
from orchestra.store.sql.database import Transaction
from orchestra.store.sql.ends import BatchTransaction, Ends
from orchestra.store.sql.results import Packing, whole
from orchestra.store.sql.rows import claimed_of
from orchestra.store.sql.transaction import SqlTransaction

Answer = Claimed | Refused | Recorded | None


@dataclass(frozen=True, slots=True)
class _GoingOn:
    """What a worker would go on with, of what the record at some place hands on."""

    at: int
    dispatch: Dispatch
    claim: ToClaim


class Batch:
    """What is wanted of one transaction, made in the order in which it is wanted.

    Args:
        packing: Knows which outputs are too large for the rows of their steps; such ends are recorded one by one.
        onward: What the worker goes on with, last.
    """

    def __init__(self, tx: Transaction, packing: Packing, window: Window, onward: Onward | None) -> None:
        self._tx = BatchTransaction(tx, packing)
        self._packing, self._window, self._onward = packing, window, onward
        self._room = 0 if onward is None else onward.most
        self._answers: dict[int, Answer] = {}
        self.wrote_events = False

    def make(self, wanted: Sequence[ToClaim | ToRecord]) -> list[Answer]:
        """Return the answer of each."""
        self._tx.tx.lock_all(self._locks(wanted))
        self._answers = dict.fromkeys(range(len(wanted)))
        groups = [(kind, list(group)) for kind, group in groupby(enumerate(wanted), lambda each: self._kind(each[1]))]
        claims = (
            {at: each for at, each in groups.pop()[1] if isinstance(each, ToClaim)}
            if _ends_with(groups, "claim")
            else {}
        )
        ends = Ends(self._tx, self._window, None if self._onward is None else self._onward.queue)
        last = groups.pop()[1] if _ends_with(groups, "end") else []
        for kind, group in groups:
            self._make_all(kind, group)
        if last:
            ends.complete([(at, each) for at, each in last if isinstance(each, ToRecord)])
        self._finish(wanted, ends, claims)
        self.wrote_events |= self._tx.wrote_events
        return [self._answers[at] for at in range(len(wanted))]

    def _make_all(self, kind: str, group: Sequence[tuple[int, ToClaim | ToRecord]]) -> None:
        """Make several of one kind; what comes behind them finds it so."""
        records = [(at, each) for at, each in group if isinstance(each, ToRecord)]
        if kind == "claim":
            self._answers |= self._claim({at: each for at, each in group if isinstance(each, ToClaim)})
        elif kind == "end":
            ends = Ends(self._tx, self._window, None)
            ends.complete(records)
            self._send(ends)
            self._tx.flush()
        else:
            self._answers |= {at: self._record(each) for at, each in records}

    def _send(self, ends: Ends) -> None:
        if ends.queues:
            ends.share(fill(self._tx, list(ends.queues), self._window, ends.now))
        self._answers |= {each.at: each.recorded for each in ends.each}

    def _finish(self, wanted: Sequence[ToClaim | ToRecord], ends: Ends, claims: Mapping[int, ToClaim]) -> None:
        """Claim what is wanted last and what the worker goes on with; send what else there is room for."""
        ready = [each for end in ends.each for each in self._fitting(end.at, end.wanted, end.ready)]
        if self._onward is not None and len(ready) < sum(len(each.ready) for each in ends.each):
            ends.queues[self._onward.queue] = None
        answers = self._claim({**claims} | {len(wanted) + at: each.claim for at, each in enumerate(ready)})
        self._answers |= {at: answers[at] for at in claims}
        self._send(ends)
        self._tx.flush()
        self._go_on(ready, [answers[len(wanted) + at] for at in range(len(ready))])
        going: list[_GoingOn] = []
        for at, each in enumerate(wanted):
            recorded = self._answers[at]
            if isinstance(each, ToRecord) and isinstance(recorded, Recorded):
                going += self._fitting(at, each, recorded.dispatches)
        self._go_on(going, list(self._claim({at: each.claim for at, each in enumerate(going)}).values()))

    def _fitting(self, at: int, wanted: ToRecord, dispatches: Iterable[Dispatch]) -> Iterator[_GoingOn]:
        onward = self._onward
        for each in dispatches:
            fits = self._room and onward is not None and isinstance(wanted.change, Completed)
            if fits and onward is not None and onward.takes(wanted.claim.ref.step.run_id, each):
                self._room -= 1
                yield _GoingOn(at, each, ToClaim(each.ref, onward.worker, wanted.now))

    def _go_on(self, going: Sequence[_GoingOn], claims: Sequence[Answer]) -> None:
        for each, claimed in zip(going, claims, strict=True):
            recorded = self._answers[each.at]
            if isinstance(recorded, Recorded) and isinstance(claimed, Claimed):
                others = [other for other in recorded.dispatches if other is not each.dispatch]
                its = [*recorded.onward, (each.dispatch, claimed)]
                self._answers[each.at] = replace(recorded, dispatches=others, onward=its)

    def _kind(self, wanted: ToClaim | ToRecord) -> str:
        if isinstance(wanted, ToClaim):
            return "claim"
        change = wanted.change
        is_plain = isinstance(change, Completed) and not change.dead and self._packing.body(change.output) is None
        return "end" if is_plain else "record"

    def _locks(self, wanted: Sequence[ToClaim | ToRecord]) -> dict[str, bool]:
        """Return the runs to lock, and which of them alone: completions that are made together count in one order."""
        ends = {
            each.claim.ref.step.run_id for each in wanted if isinstance(each, ToRecord) and self._kind(each) == "end"
        }
        others = transitions.locks([each for each in wanted if self._kind(each) == "record"])
        return {
            run_id: run_id in others and (others[run_id] or run_id in ends) for run_id in sorted(ends.union(others))
        }

    def _record(self, wanted: ToRecord) -> Recorded | None:
        tx = SqlTransaction(self._tx.tx, self._packing)
        recorded = transitions.record(tx, wanted.claim, wanted.change, self._window, wanted.now)
        tx.flush()
        self.wrote_events |= tx.wrote_events
        return recorded

    def _claim(self, wanted: Mapping[int, ToClaim]) -> dict[int, Answer]:
        """Make claims, and write the events that have not been written."""
        if not wanted:
            return {}
        asked: dict[MessageRef, ToClaim] = {}
        for each in wanted.values():
            asked.setdefault(each.message, each)
        rows, events = json.dumps([_claim_row(each) for _message, each in sorted(asked.items())]), self._tx.unwritten()
        found = (
            self._tx.tx.all(sql.batch.CLAIM_ALL, rows=rows)
            if events is None
            else self._tx.tx.all(sql.batch.CLAIM_ALL_AND_ADD, rows=rows, events=events)
        )
        claims: dict[MessageRef, Claimed] = {}
        for run_id, generation, *row in found:
            message = MessageRef(StepRef(run_id, row[0]), generation)
            claims[message] = claimed_of(message, tuple(row))
        if claims and self._tx.tx.wrote is None:  # nothing is in the log: a claim tells whether it was committed
            message, its = next(iter(claims)), asked[next(iter(claims))]
            about = {"run_id": message.step.run_id, "n": message.step.n, "generation": message.generation}
            self._tx.tx.wrote = sql.claims.OWN_CLAIM, {**about, "worker": its.worker, "now": its.now}
        claims = _with_inputs(self._tx, claims)
        return {
            at: claims.pop(each.message, None) or transitions.refused(self._tx, each.message)
            for at, each in wanted.items()
        }


def _ends_with(groups: Sequence[tuple[str, object]], kind: str) -> bool:
    return bool(groups) and groups[-1][0] == kind


def _claim_row(wanted: ToClaim) -> dict[str, object]:
    (run_id, n), generation = wanted.message
    return {"run_id": run_id, "n": n, "generation": generation, "worker": wanted.worker, "at": wanted.now}


def _with_inputs(tx: SqlTransaction, claims: Mapping[MessageRef, Claimed]) -> dict[MessageRef, Claimed]:
    """Return claims with the outputs that they need."""
    given = {message: StepInput.from_json(claimed.row.input) for message, claimed in claims.items()}
    needed = {(message.step.run_id, n) for message, each in given.items() for n in each.needs()}
    outputs: dict[tuple[str, int], str] = {}
    if needed:
        rows = json.dumps([{"run_id": run_id, "n": n} for run_id, n in sorted(needed)])
        for run_id, n, output in tx.tx.all(sql.batch.OUTPUTS, rows=rows):
            if (text := whole(tx.tx, run_id, n, output)) is not None:
                outputs[run_id, n] = text
    behind: dict[tuple[str, int], dict[int, tuple[str, str]]] = {}
    filled: dict[MessageRef, Claimed] = {}
    for message, claimed in claims.items():
        run_id, waits_for = message.step.run_id, claimed.row.waits_for
        its = {n: outputs[run_id, n] for n in given[message].needs() if (run_id, n) in outputs}
        names: dict[int, str] = {}
        if given[message].from_predecessors and waits_for is not None:
            if (run_id, waits_for) not in behind:
                behind[run_id, waits_for] = tx.predecessors(run_id, waits_for)
            for n, (name, output) in behind[run_id, waits_for].items():
                names[n], its[n] = name, output
        filled[message] = replace(claimed, outputs=its, predecessors=names)
    return filled
