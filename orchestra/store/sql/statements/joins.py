"""Joins: counted, and what is behind them released or skipped."""

from typing import Any

from sqlalchemy import and_, insert, select, update

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import joins, steps
from orchestra.store.sql.statements.columns import HOT, RELEASED
from orchestra.store.sql.statements.statement import Statement, bare, named, of, p, quoted

WIDE = 64
"""Joins of more parts than this are counted in shards."""
SHARDS = 16

ADD_JOIN = Statement("add join", "A set of predecessors, none of them done.", insert(joins).values(named(joins)))
COUNT_JOIN = Statement(
    "count join",
    "One part of a join has ended.",
    update(joins)
    .where(joins.c.run_id == p("run_id"), joins.c.number == p("number"))
    .values(
        remaining=joins.c.remaining - bare("1"),
        live=joins.c.live + p("live"),
        broken=joins.c.broken + p("broken"),
        dead=joins.c.dead + p("dead"),
    )
    .returning(joins.c.remaining, joins.c.live, joins.c.broken, joins.c.any_way),
    ("remaining", "live", "broken", "any_way"),
)
JOIN_PARTS = Statement(
    "join parts",
    "The predecessors behind a join, and those whose way was not taken.",
    select(joins.c.parts, joins.c.dead).where(joins.c.run_id == p("run_id"), joins.c.number == p("number")),
    ("parts", "dead"),
)
_behind = steps.alias("behind")
# In an order that one index has: while statistics are missing the planner thinks the primary key as good, and a plan
# that is kept would read all steps of the run each time.
_first: Any = (
    select(_behind.c.run_id, _behind.c.n)
    .where(
        _behind.c.run_id == p("run_id"),
        _behind.c.waits_for == p("number"),
        _behind.c.status == quoted(TaskStatus.PENDING),
    )
    .order_by(_behind.c.parent)
    .subquery("waiting_behind")
)
# Looked at again where another transaction had the row; not as the partial index has it, which would be read through.
_is_pending = steps.c.status.concat(bare("''")) == quoted(TaskStatus.PENDING)
IS_BEHIND = and_(steps.c.run_id == _first.c.run_id, steps.c.n == _first.c.n, _is_pending)
RELEASE = Statement(
    "release",
    "A join is complete: its bodies are ready.",
    update(steps).where(IS_BEHIND).values(status=quoted(TaskStatus.QUEUED)).returning(*of(*RELEASED)),
    RELEASED,
)
SKIP = Statement(
    "skip",
    "No way into the steps behind a join was taken, or something before them failed.",
    update(steps)
    .where(IS_BEHIND)
    .values(status=quoted(TaskStatus.SKIPPED), error=p("error"), completed_at=p("now"))
    .returning(*of(*HOT)),
    HOT,
)
