"""The log of events."""

from sqlalchemy import func, insert, select, text

from orchestra.store.sql.schema import events
from orchestra.store.sql.statements.columns import EVENT
from orchestra.store.sql.statements.statement import Statement, bare, p

add_events = insert(events).values({c: p(c.name) for c in events.columns if c.name != "seq"})
ADD_EVENTS = Statement("add events", "What one transaction did to one run.", add_events)
ADDING_ALL = """
INSERT INTO events (time, run_id, single, worker, entries)
SELECT g.* FROM json_to_recordset(CAST(:events AS json))
  AS g(time float8, run_id text, single int, worker text, entries text)
"""
ADD_ALL_EVENTS = Statement("add all events", "What one transaction did to several runs.", text(ADDING_ALL))
WROTE = Statement(
    "wrote",
    "Whether what one transaction did to one run is in the log.",
    select(events.c.seq)
    .where(events.c.run_id == p("run_id"), events.c.time == p("time"), events.c.entries == p("entries"))
    .limit(bare("1")),
    ("seq",),
)
EVENTS = Statement(
    "events",
    "The log, from a cursor on.",
    select(*[events.c[name] for name in EVENT])
    .where(events.c.seq > p("after"))
    .order_by(events.c.seq)
    .limit(p("limit")),
    EVENT,
)
NEWEST_EVENTS = Statement(
    "newest events",
    "The end of the log.",
    select(*[events.c[name] for name in EVENT])
    .where(events.c.seq > p("after"))
    .order_by(events.c.seq.desc())
    .limit(p("limit")),
    EVENT,
)
EVENTS_OF_RUN = Statement(
    "events of run",
    "What happened to one run.",
    select(*[events.c[name] for name in EVENT])
    .where(events.c.run_id == p("run_id"), events.c.seq > p("after"))
    .order_by(events.c.seq)
    .limit(p("limit")),
    EVENT,
)
LAST_EVENT = Statement(
    "last event",
    "The cursor behind the newest event.",
    select(func.coalesce(func.max(events.c.seq), bare("0"))),
    ("seq",),
)
