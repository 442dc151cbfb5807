"""The primitives of ``orchestra.store.steering`` as statements."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, exists, insert, null, select, update

from orchestra.engine.again import Again, Standing
from orchestra.engine.rows import fallback_name
from orchestra.model.status import OPEN, TaskStatus, WorkflowStatus
from orchestra.store.sql import wide
from orchestra.store.sql.database import Row, Transaction
from orchestra.store.sql.rows import encoded, loads
from orchestra.store.sql.schema import joins, results, runs, shards, steps
from orchestra.store.sql.statements.statement import THIS_RUN, THIS_STEP, Statement, bare, in_status, p, quoted

_OF_RUN = steps.c.run_id == p("run_id")
_STANDING = (
    "n", "key", "name", "queue", "status", "waits_for", "feeds", "parent", "is_map", "max_parallel", "collects",
    "error",
)  # fmt: skip
_R, _P = quoted(WorkflowStatus.RUNNING), quoted(WorkflowStatus.PAUSED)

PAUSE = Statement(
    "pause",
    "A run is paused, unless it is ending.",
    update(runs).where(THIS_RUN, runs.c.status == _R, runs.c.ending.is_(None)).values(status=_P).returning(runs.c.id),
    ("id",),
)
RESUME = Statement(
    "resume",
    "A paused run goes on.",
    update(runs).where(THIS_RUN, runs.c.status == _P).values(status=_R).returning(runs.c.id),
    ("id",),
)
PARK = Statement(
    "park",
    "What is ready of a paused run, or will be, is offered to nobody.",
    update(steps)
    .where(_OF_RUN, in_status(*OPEN))
    .values(parked=bare("1"), sent_at=null())
    .returning(steps.c.status, steps.c.queue),
    ("status", "queue"),
)
UNPARK = Statement(
    "unpark",
    "What is ready of a run that goes on waits for its turn again.",
    update(steps)
    .where(_OF_RUN, steps.c.parked == bare("1"))
    .values(parked=bare("0"))
    .returning(steps.c.status, steps.c.queue),
    ("status", "queue"),
)
STANDING = Statement(
    "standing",
    "How far each step of a run has come.",
    select(*[steps.c[name] for name in _STANDING]).where(_OF_RUN).order_by(steps.c.n),
    _STANDING,
)
DEAD = Statement(
    "dead",
    "The parts of joins whose way was not taken.",
    select(joins.c.number, joins.c.dead).where(joins.c.run_id == p("run_id")),
    ("number", "dead"),
)
DEAD_OF_SHARDS = Statement(
    "dead of shards",
    "The parts of wide joins whose way was not taken.",
    select(shards.c.number, shards.c.dead).where(shards.c.run_id == p("run_id")),
    ("number", "dead"),
)
REOPEN = Statement(
    "reopen",
    "A run that had ended goes on.",
    update(runs)
    .where(THIS_RUN)
    .values(
        status=_R, ending=null(), error=null(), completed_at=null(), deadline=null(), expires_at=null(),
        remaining=p("remaining"),
    ),
)  # fmt: skip
SET_BACK = Statement(
    "set back",
    "A step of a run that is retried begins anew.",
    update(steps)
    .where(THIS_STEP)
    .values(
        status=p("status"), generation=steps.c.generation + bare("1"), attempts=bare("0"), crashes=bare("0"),
        error=null(), output=null(), completed_at=null(), due_at=null(), sent_at=null(), parked=bare("0"),
        resends=bare("0"), parts_left=p("parts_left"), parts_broken=bare("0"),
    ),
)  # fmt: skip
SET_JOIN = Statement(
    "set join",
    "Parts of a join run again.",
    update(joins)
    .where(joins.c.run_id == p("run_id"), joins.c.number == p("number"))
    .values(remaining=p("remaining"), live=p("live"), broken=bare("0"), dead=p("dead")),
)
SET_SHARD = Statement(
    "set shard",
    "Parts of a wide join run again.",
    update(shards)
    .where(shards.c.run_id == p("run_id"), shards.c.number == p("number"), shards.c.shard == p("shard"))
    .values(remaining=p("remaining"), live=p("live"), broken=bare("0"), dead=p("dead")),
)
PARTS = Statement(
    "parts",
    "The parts of a run's joins.",
    select(joins.c.number, joins.c.parts, joins.c.any_way).where(joins.c.run_id == p("run_id")),
    ("number", "parts", "any_way"),
)
OVERDUE = Statement(
    "overdue",
    "Runs whose deadline has come.",
    select(runs.c.id).where(runs.c.deadline.is_not(None), runs.c.completed_at.is_(None), runs.c.deadline <= p("now")),
    ("id",),
)
EXPIRED = Statement(
    "expired",
    "Runs whose expiry has come.",
    select(runs.c.id).where(
        runs.c.expires_at.is_not(None), runs.c.completed_at.is_(None), runs.c.expires_at <= p("now")
    ),
    ("id",),
)
_OPEN_RUN = runs.c.completed_at.is_(None)
NEXT_DEADLINE = Statement(
    "next deadline",
    "When the next run ends, whatever it has come to.",
    select(runs.c.deadline).where(runs.c.deadline.is_not(None), _OPEN_RUN).order_by(runs.c.deadline).limit(bare("1")),
    ("deadline",),
)
NEXT_EXPIRY = Statement(
    "next expiry",
    "When the next run ends if nothing of it has begun.",
    select(runs.c.expires_at)
    .where(runs.c.expires_at.is_not(None), _OPEN_RUN)
    .order_by(runs.c.expires_at)
    .limit(bare("1")),
    ("expires_at",),
)
HAS_BEGUN = Statement(
    "has begun",
    "Whether a step of a run was ever claimed.",
    select(bare("1")).where(exists(select(bare("1")).select_from(steps).where(_OF_RUN, steps.c.claims > bare("0")))),
    ("yes",),
)
WILL_NOT_EXPIRE = Statement(
    "will not expire", "A run has begun in time.", update(runs).where(THIS_RUN).values(expires_at=null())
)


def _copy(table: Table, name: str, why: str, condition: Any, **changed: Any) -> Statement:
    columns = [column for column in table.columns if column.name != "seq"]
    picked = select(*[changed.get(column.name, column) for column in columns]).where(condition)
    return Statement(name, why, insert(table).from_select([column.name for column in columns], picked))


_first = select(steps.c.waits_for).where(_OF_RUN, steps.c.parent.is_(None), steps.c.waits_for.is_not(None))
_new, _now, _no, _zero = p("new_id"), p("now"), null(), bare("0")
_WHY = "A run is forked."
_ENDED = quoted(WorkflowStatus.CANCELLED)
COPIES = (
    _copy(
        runs, "copy run", _WHY, THIS_RUN, id=_new, status=_ENDED, ending=_ENDED, key=_no, fingerprint=_no, job_id=_no,
        scheduled_for=_no, deadline=_no, expires_at=_no, error=_no, created_at=_now, started_at=_now,
        completed_at=_now, next_n=p("next_n"),
    ),
    _copy(
        steps, "copy steps", _WHY, (_OF_RUN) & steps.c.parent.is_(None), run_id=_new, created_at=_now,
        completed_at=_now, sent_at=_no, due_at=_no, worker=_no, started_at=_no, parked=_zero, generation=_zero,
        claims=_zero, attempts=_zero, crashes=_zero, announced=_zero, resends=_zero, parts_left=_no,
        parts_broken=_zero, collects=_no,
    ),
    _copy(joins, "copy joins", _WHY, (joins.c.run_id == p("run_id")) & joins.c.number.in_(_first), run_id=_new),
    _copy(shards, "copy shards", _WHY, (shards.c.run_id == p("run_id")) & shards.c.number.in_(_first), run_id=_new),
    _copy(
        results, "copy results", _WHY,
        (results.c.run_id == p("run_id")) & (results.c.n < p("next_n")),
        run_id=_new,
    ),
)  # fmt: skip
NAME_OF_RUN = Statement("name of run", "What a run is called.", select(runs.c.name).where(THIS_RUN), ("name",))
UNDO = Statement(
    "undo",
    "A step of a fork has not run.",
    update(steps).where(THIS_STEP).values(status=quoted(TaskStatus.CANCELLED), output=null(), error=null()),
)
_part = steps.alias("part")
USED_FALLBACKS = Statement(
    "used fallbacks",
    "What ran in the place of the steps that a run began with: they have forgotten it since.",
    select(steps.c.n, _part.c.task, _part.c.target, _part.c.name).where(
        _OF_RUN, steps.c.parent.is_(None), _part.c.run_id == steps.c.run_id, _part.c.n == steps.c.collects,
        _part.c.key == steps.c.name + quoted(fallback_name("")),
    ),
    ("n", "task", "target", "name"),
)  # fmt: skip
GIVE_FALLBACK = Statement(
    "give fallback", "A step of a fork has its fallback.", update(steps).where(THIS_STEP).values(fallback=p("fallback"))
)


class SqlControl:
    """A part of ``SqlTransaction``."""

    tx: Transaction
    _state: tuple[str, Row | None]
    """What is known of a run that this transaction holds."""

    def set_paused(self, run_id: str, paused: bool) -> bool:
        self._state = ("", None)
        return self.tx.one(PAUSE if paused else RESUME, run_id=run_id) is not None

    def park(self, run_id: str) -> list[str]:
        return _ready(self.tx.all(PARK, run_id=run_id))

    def unpark(self, run_id: str) -> list[str]:
        return _ready(self.tx.all(UNPARK, run_id=run_id))

    def standing(self, run_id: str) -> tuple[list[Standing], Mapping[int, frozenset[int]]]:
        dead: dict[int, frozenset[int]] = {}
        for statement in (DEAD, DEAD_OF_SHARDS):
            for number, text in self.tx.all(statement, run_id=run_id):
                dead[number] = dead.get(number, frozenset()) | {int(n) for n in text.split(",") if n}
        return [_standing(row) for row in self.tx.all(STANDING, run_id=run_id)], dead

    def reopen(self, run_id: str, remaining: int) -> None:
        self._state = ("", None)
        self.tx.run(REOPEN, run_id=run_id, remaining=remaining)

    def set_back(self, run_id: str, to: Again) -> None:
        about = [
            {"run_id": run_id, "n": n, "status": status, "parts_left": to.parts.get(n)}
            for n, status in sorted(to.steps.items())
        ]
        self.tx.many(SET_BACK, about)
        parts = {number: (json.loads(text), any_way) for number, text, any_way in self.tx.all(PARTS, run_id=run_id)}
        for number, its in sorted(to.joins.items()):
            its_parts: list[int] = parts[number][0]
            again = [part for part in its_parts if part in to.steps]
            rows = wide.set_back(run_id, number, its_parts, bool(parts[number][1]), again, its.dead)
            if rows:
                self.tx.many(SET_SHARD, rows)
                remaining = sum(1 for row in rows if row["remaining"])
                live = sum(row["live"] for row in rows if not row["remaining"])
                dead = "".join(str(row["dead"]) for row in rows if not row["remaining"])
            else:
                remaining, live, dead = its.remaining, its.live, "".join(f",{n}" for n in sorted(its.dead))
            self.tx.run(SET_JOIN, run_id=run_id, number=number, remaining=remaining, live=live, dead=dead)

    def copy_run(self, run_id: str, new_id: str, undone: Sequence[int], now: float) -> str | None:
        name: str | None = self.tx.value(NAME_OF_RUN, run_id=run_id)
        if name is None:
            return None
        first = [each for each in self.standing(run_id)[0] if each.parent is None]
        about = {"run_id": run_id, "new_id": new_id, "now": now, "next_n": len(first)}
        for statement in COPIES:
            names = statement.clause.compile().params
            self.tx.run(statement, **{key: value for key, value in about.items() if key in names})
        self.tx.many(UNDO, [{"run_id": new_id, "n": n} for n in undone])
        used = self.tx.all(USED_FALLBACKS, run_id=run_id)
        self.tx.many(GIVE_FALLBACK, [{"run_id": new_id, "n": n, "fallback": encoded(its)} for n, *its in used])
        return name

    def overdue(self, now: float) -> list[tuple[str, bool]]:
        found = [(run_id, True) for (run_id,) in self.tx.all(OVERDUE, now=now)]
        return found + [(run_id, False) for (run_id,) in self.tx.all(EXPIRED, now=now)]

    def has_begun(self, run_id: str) -> bool:
        begun = self.tx.one(HAS_BEGUN, run_id=run_id) is not None
        if begun:
            self.tx.run(WILL_NOT_EXPIRE, run_id=run_id)
        return begun


def next_timed(tx: Transaction) -> float | None:
    """Return the deadline or expiry that comes first."""
    times = (tx.value(NEXT_DEADLINE), tx.value(NEXT_EXPIRY))
    return min((at for at in times if at is not None), default=None)


def _ready(rows: Sequence[Row]) -> list[str]:
    return sorted({queue for status, queue in rows if status == TaskStatus.QUEUED})


def _standing(row: Row) -> Standing:
    n, key, name, queue, status, waits_for, feeds, parent, is_map, max_parallel, collects, error = row
    error_type = None if error is None else json.loads(error)[0]
    return Standing(
        n, key, name, queue, TaskStatus(status), waits_for, loads(feeds) or (), parent, bool(is_map), max_parallel,
        collects, error_type,
    )  # fmt: skip
