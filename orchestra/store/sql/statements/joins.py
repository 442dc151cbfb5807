"""Joins: counted, and what is behind them released or skipped."""

from sqlalchemy import insert, select, update

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import joins, steps
from orchestra.store.sql.statements.columns import HOT, RELEASED
from orchestra.store.sql.statements.statement import Statement, bare, in_status, named, of, p, quoted

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
RELEASE = Statement(
    "release",
    "A join is complete: its bodies are ready.",
    update(steps)
    .where(steps.c.run_id == p("run_id"), steps.c.waits_for == p("number"), in_status(TaskStatus.PENDING))
    .values(status=quoted(TaskStatus.QUEUED))
    .returning(*of(*RELEASED)),
    RELEASED,
)
SKIP = Statement(
    "skip",
    "No way into the steps behind a join was taken, or something before them failed.",
    update(steps)
    .where(steps.c.run_id == p("run_id"), steps.c.waits_for == p("number"), in_status(TaskStatus.PENDING))
    .values(status=quoted(TaskStatus.SKIPPED), error=p("error"), completed_at=p("now"))
    .returning(*of(*HOT)),
    HOT,
)
