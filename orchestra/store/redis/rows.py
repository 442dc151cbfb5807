"""Rows: between what Redis holds and the values of the contract. ``lua/core.lua`` says where what stands."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from orchestra.engine.join import Edges
from orchestra.engine.plan import StepInput
from orchestra.engine.rows import StepRow
from orchestra.model.event import Event, Wanted
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo, RunRecord, StepRecord
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Lease, NewRun
from orchestra.store.entries import events_of as events_of_entries

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def encoded(value: object) -> str:
    """Return compact JSON text."""
    return _ENCODER.encode(value)


def text_of(value: float | int) -> str:
    """Return a time as it is kept: the shortest text that is the same number."""
    return repr(value)


# --- steps ----------------------------------------------------------------------------------------------------------


Links = Mapping[int, tuple[int, int]]
"""The one part and the one body of joins that have just these: such joins need no rows."""


def facts_of(step: StepRow, created: str, links: Links) -> str:
    """Return the text ``f<n>``: what functions look at, and what listings show."""
    given = StepInput.from_json(step.input)
    inherits: object = False
    if given.from_predecessors and step.waits_for is not None:
        inherits = [links[step.waits_for][0]] if step.waits_for in links else 0
    quoted = repr(step.name)
    return encoded(
        [
            step.name,
            0 if step.key == step.name else step.key,
            step.queue,
            step.priority,
            step.rank,
            created,
            [[*feed, links[feed[0]][1]] if feed[0] in links else feed for feed in step.feeds or ()] or 0,
            False if step.parent is None else step.parent,
            False if step.waits_for is None else step.waits_for,
            False if step.max_parallel is None else step.max_parallel,
            int(step.is_map),
            given.needs() or 0,
            inherits,
            step.fallback or 0,
            0 if quoted == f"'{step.name}'" else quoted,
            step.task,
            False if step.timeout_s is None else step.timeout_s,
            step.chain or 0,
            step.target,
            0 if step.metadata is None else encoded(step.metadata),
        ]
    )


def input_of(step: StepRow) -> str:
    """Return the text ``i<n>``: what only workers need."""
    row: list[object] = [step.input, step.retry, step.whens, step.round, step.max_rounds]
    while len(row) > 1 and not row[-1]:
        row.pop()
    return encoded(row)


def fallback_of(step: StepRow, links: Links) -> str | None:
    """Return the text ``g<n>``: the rows of what runs in the place of a step, around the time of making."""
    if step.fallback is None:
        return None
    task, target, name = step.fallback
    instead = replace(
        step, key=name, name=name, task=task, target=target, status=TaskStatus.QUEUED, parent=step.n,
        is_map=False, feeds=None, chain=None, fallback=None, retry=None,
    )  # fmt: skip
    before, after = facts_of(instead, "\x00", links).split("\\u0000")
    return f"{before}\n{after}\n{input_of(instead)}"


def row_of(n: int, status: TaskStatus, facts: str, given: str) -> StepRow:
    """Return a step as it was created, from its texts."""
    (name, key, queue, priority, rank, _created, feeds, parent, waits_for, max_parallel, is_map, _needs, _inherits,
     fallback, _quoted, task, timeout_s, chain, target, metadata) = json.loads(facts)  # fmt: skip
    inputs, retry, whens, depth, max_rounds = (json.loads(given) + [None] * 4)[:5]
    return StepRow(
        n, key or name, name, task, target, status, priority, queue, rank, inputs, retry, _none(timeout_s),
        json.loads(metadata) if metadata else None, bool(is_map), _none(max_parallel), _none(waits_for),
        [feed[:4] for feed in feeds or ()] or None,
        chain or None, whens, _none(parent), fallback or None, depth or 0, max_rounds,
    )  # fmt: skip


def _none(value: Any) -> Any:
    return None if value is False else value


def claimed_of(
    message: MessageRef, state: Sequence[int], facts: str, given: str, started_at: float, ready_at: str = ""
) -> Claimed:
    """Return a claim without its inputs; ``state`` is claim, attempts and crashes."""
    claim, attempts, crashes = state
    row = row_of(message.step.n, TaskStatus.RUNNING, facts, given)
    return Claimed(
        ClaimRef(message, claim), row, attempts, crashes, ready_at=_time(ready_at or False), started_at=started_at
    )


def record_of(ref: StepRef, state: str, facts: str, output: str | None, error: str | None) -> StepRecord:
    """Return a step as the contract has it."""
    status, generation, claims, attempts, crashes, _announced, worker, started, ended, _token, *rare = json.loads(state)
    (name, key, queue, priority, _rank, created, _feeds, parent, *_rest, target, metadata) = json.loads(facts)
    due = rare[1] if rare else False
    return StepRecord(
        ref, key or name, name, target, TaskStatus(status), priority, queue, json.loads(metadata) if metadata else {},
        claims, attempts, crashes, generation, output, error_of(error), worker or None, float(created), _time(due),
        _time(started), _time(ended), _none(parent),
    )  # fmt: skip


def span_of(state: str, facts: str) -> tuple[str, float | None, float | None]:
    """Return the name of a step, when it was started and when it ended; no times of a part of another."""
    name, _key, _queue, _priority, _rank, _created, _feeds, parent, *_rest = json.loads(facts)
    started, ended = json.loads(state)[7:9]
    return name, _time(started) if parent is False else None, _time(ended)


def edges_of(n: int, facts: str) -> Edges:
    """Return how a step hangs together with others."""
    _name, _key, _queue, _priority, _rank, _created, feeds, _parent, waits_for, *_rest = json.loads(facts)
    return n, _none(waits_for), feeds or None


def _time(text: str | bool) -> float | None:
    return None if text is False else float(text)


def dispatches_of(found: Sequence[Any], parent: MessageRef | None = None) -> list[Dispatch]:
    """Return what is to be published; ``parent`` is the step whose record released those of its run."""
    dispatches: list[Dispatch] = []
    for at in range(0, len(found), 4):
        run_id, n, generation, facts = found[at : at + 4]
        name, _key, queue, priority, *rest = json.loads(facts)
        task, timeout_s, chain, target = rest[11:15]
        released_by = parent.celery_id if parent is not None and parent.step.run_id == run_id else None
        ref = MessageRef(StepRef(run_id, int(n)), int(generation))
        dispatches.append(
            Dispatch(ref, task, name, queue, priority, _none(timeout_s), chain or (), False, released_by, target)
        )
    return dispatches


@lru_cache(maxsize=16384)
def claim_ref(name: str) -> ClaimRef:
    """Return the claim that a set of what is running names. Workers ask for the same ones again and again."""
    run_id, n, generation, claim = name.rsplit(".", 3)
    return ClaimRef(MessageRef(StepRef(run_id, int(n)), int(generation)), int(claim))


# --- errors ---------------------------------------------------------------------------------------------------------


def error_parts(error: ErrorInfo) -> tuple[str, str, str, str]:
    """Return an error as functions take it: type, message, traceback, names as JSON text."""
    return error.type, error.message, error.traceback, encoded(list(error.names))


def error_of(text: str | None) -> ErrorInfo | None:
    """Return an error as functions write it."""
    if not text:
        return None
    kind, message, traceback, names = json.loads(text)
    return ErrorInfo(kind, message, traceback, tuple(names))


# --- runs, leases, events -------------------------------------------------------------------------------------------


def run_text(run: NewRun, now: float) -> str:
    """Return the text ``run``: a run as it was made."""
    data = encoded(dict(run.metadata)) if run.metadata else 0
    about = [run.name, run.workflow_id, run.single, run.priority, data, run.key, run.fingerprint or ""]
    return encoded([*about, run.job_id, run.scheduled_for, now])


def run_of(run_id: str, at: str, made: str, error: str | None) -> RunRecord:
    """Return a run as the contract has it."""
    status, *_counts, ended = (stands := json.loads(at))[:6]
    deadline = _time(stands[13]) if len(stands) > 13 else None
    name, workflow_id, single, priority, data, key, _fingerprint, job_id, scheduled_for, created = json.loads(made)
    return RunRecord(
        run_id, name, workflow_id, WorkflowStatus(status), single, priority, json.loads(data) if data else {}, key,
        None, None, error_of(error), job_id, scheduled_for, created, created, _time(ended), deadline,
    )  # fmt: skip


def lease_text(lease: Lease) -> str:
    """Return the text of a lease."""
    return encoded([getattr(lease, name) for name in Lease.__slots__])


def lease_of(text: str) -> Lease:
    """Return a lease from its text."""
    return Lease(*json.loads(text))


def events_of(texts: Sequence[str], wanted: Wanted | None = None) -> tuple[list[Event], int | None]:
    """Return the events of rows of the log that are wanted, and the cursor behind the last row."""
    events: list[Event] = []
    seq: int | None = None
    for head, run_id, worker in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        place, time, single, entries = head.split(" ", 3)
        seq = int(place.partition("-")[0])
        events += events_of_entries(
            seq, float(time), run_id or None, single == "1", worker or None, json.loads(entries), wanted
        )
    return events, seq
