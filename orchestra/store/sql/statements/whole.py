"""Whole transactions in one statement each, for databases where a statement may change several tables."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Text,
    bindparam,
    case,
    func,
    insert,
    null,
    select,
    text,
    true,
    type_coerce,
    update,
)

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import events, runs, steps
from orchestra.store.sql.statements.columns import CLAIMED, COUNTED, PICKED, ROW
from orchestra.store.sql.statements.runs import adding_run, count_run
from orchestra.store.sql.statements.statement import FEW, HOLDS_CLAIM, Statement, bare, p, quoted
from orchestra.store.sql.statements.steps import ZERO
from orchestra.store.sql.statements.window import has_room_for, picking

MOST_PICKED = 2
"""What a completion sends at most: those of one moment may see the same room, and would each fill all of it."""
_LOGGED = ("time", "run_id", "single", "worker", "entries")


def _of_step(name: str) -> Any:
    """Return the parameter for a column of the step; those of its run have the same names."""
    return bindparam(f"step_{name}", type_=steps.c[name].type)


_run: Any = adding_run.cte("run")
_step_columns = [*ROW, "run_id", "created_at", "sent_at", "parked", *ZERO]
_sent_at = case((has_room_for(_of_step("queue"), _of_step("priority")), p("created_at", type_=Float)), else_=null())
_step: Any = (
    insert(steps)
    .from_select(
        _step_columns,
        select(
            *[_of_step(name) for name in ROW], _run.c.id, p("created_at", type_=Float), _sent_at, bare("0"),
            *[bare("0") for _name in ZERO],
        ),
    )
    .returning(steps.c.sent_at)
    .cte("step")
)  # fmt: skip
_log_creation: Any = insert(events).from_select(
    _LOGGED,
    select(p("created_at", type_=Float), _run.c.id, p("single", type_=Integer), null(), p("entries", type_=Text)),
)
CREATE = Statement(
    "create",
    "A run of one step, unless its key or its id is taken: sent at once, if nothing waits before it and the window has"
    " room; otherwise whoever makes room picks it.",
    select(_step.c.sent_at).add_cte(_log_creation.cte("logged")),
    ("sent_at",),
)
OWN_RUN = Statement(
    "own run",
    "Whether a run whose creation was not answered was created: then its time stands there.",
    select(steps.c.sent_at).where(
        steps.c.run_id == p("run_id"), steps.c.n == bare("0"), steps.c.created_at == p("now")
    ),
    ("sent_at",),
)

# Held before any row is, like everywhere. What was committed before it was given is not in the snapshot of the
# statement; the rows that are updated are looked at again, and nothing else of the run is asked for.
_locked: Any = select(func.pg_advisory_xact_lock_shared(p("lock", type_=BigInteger)).cast(Text).label("lock")).cte(
    "locked"
)
_ended: Any = (
    update(steps)
    .where(
        HOLDS_CLAIM, steps.c.feeds.is_(None), steps.c.parent.is_(None), steps.c.announced < steps.c.claims,
        _locked.c.lock.is_not(None),
    )
    .values(
        status=quoted(TaskStatus.COMPLETED), output=p("output"), error=null(), attempts=steps.c.attempts + bare("1"),
        sent_at=null(), due_at=null(), parts_left=null(), collects=null(), completed_at=p("now"),
    )
    .returning(steps.c.run_id)
    .cte("ended")
)  # fmt: skip
_counted: Any = count_run.where(runs.c.id == _ended.c.run_id).cte("counted")
_end_of_run: Any = case(
    (
        (_counted.c.completed_at == p("now", type_=Float)) & (_counted.c.single == bare("0")),
        type_coerce(quoted(',["workflow.'), Text) + func.lower(_counted.c.status) + quoted('",[],{}]'),
    ),
    else_=quoted(""),
)
_log_end: Any = insert(events).from_select(
    _LOGGED,
    select(
        p("now", type_=Float),
        p("run_id", type_=Text),
        _counted.c.single,
        null(),
        p("entries", type_=Text) + _end_of_run + quoted("]"),
    ),
)
_picked: Any = picking(select(bare("1")).select_from(_ended).exists(), most=MOST_PICKED).cte("picked")
COMPLETE = Statement(
    "complete",
    "A step that feeds nothing and is a part of nothing completed: it is counted and logged, and the best of what"
    " waits is picked.",
    select(*[_counted.c[name] for name in COUNTED], *_picked.c)
    .select_from(_counted.outerjoin(_picked, true()))
    .add_cte(_log_end.cte("logged")),
    (*COUNTED, *PICKED),
)
OWN_END = Statement(
    "own end",
    "Whether the end of a claim that was not answered was recorded: then its time stands there.",
    select(runs.c.status, runs.c.completed_at, runs.c.single).where(
        runs.c.id == steps.c.run_id, steps.c.run_id == p("run_id"), steps.c.n == p("n"),
        steps.c.generation == p("generation"), steps.c.claims == p("claim"),
        steps.c.status == quoted(TaskStatus.COMPLETED), steps.c.completed_at == p("now"),
    ),
    COUNTED,
)  # fmt: skip

_CLAIMED = ", ".join(f"s.{name}" for name in CLAIMED)
# The step behind is locked before the other one ends, and looked at again where somebody changed it meanwhile (a pause,
# a cancellation): either both change or neither does.
LINK = Statement(
    "link",
    "A step that feeds one join, of which it is the only part, completed; the one step behind that is claimed by the"
    " same worker, if it fits and nothing waits in its queue.",
    text(f"""
WITH locked AS (
  SELECT CAST(pg_advisory_xact_lock_shared(:lock) AS text) AS lock
), behind AS (
  SELECT b.run_id, b.n
  FROM locked l JOIN steps b ON l.lock IS NOT NULL
  WHERE b.run_id = :run_id AND b.waits_for = :join AND b.status = 'PENDING' AND b.parked + 0 = 0
    AND b.queue || '' = :queue AND b.priority + 0 <= :priority AND b.timeout_s IS NULL
    AND strpos(:targets, chr(10) || b.target || chr(10)) > 0
    AND NOT EXISTS (
      SELECT 1 FROM steps w WHERE w.queue = :queue AND w.status = 'QUEUED' AND w.sent_at IS NULL AND w.parked = 0)
  ORDER BY b.parent FOR UPDATE OF b
), ended AS (
  UPDATE steps s
  SET status = 'COMPLETED', output = :output, error = NULL, attempts = s.attempts + 1, sent_at = NULL, due_at = NULL,
    parts_left = NULL, collects = NULL, completed_at = :now
  FROM behind b
  WHERE s.run_id = :run_id AND s.n = :n AND s.claims = :claim AND s.generation = :generation
    AND s.status || '' = 'RUNNING' AND s.announced < s.claims
  RETURNING b.run_id, b.n
), taken AS (
  UPDATE steps s
  SET status = 'RUNNING', claims = s.claims + 1, worker = :worker, started_at = :now, sent_at = :now
  FROM ended e
  WHERE {FEW.format("e")} AND s.run_id = e.run_id AND s.n = e.n
  RETURNING s.generation, {_CLAIMED}
), logged AS (
  INSERT INTO events (time, run_id, single, entries)
  SELECT :now, :run_id, 0, CAST(:entries AS text) || ',["task.queued",[' || n || '],{{}}]]' FROM taken
)
SELECT * FROM taken
"""),
    ("generation", *CLAIMED),
)
OWN_LINK = Statement(
    "own link",
    "What was claimed by a link that was not answered: then its worker and its time stand there.",
    text(f"""
SELECT s.generation, {_CLAIMED} FROM steps s
WHERE s.run_id = :run_id AND s.waits_for = :join AND s.worker = :worker AND s.started_at = :now
  AND s.status || '' = 'RUNNING'
"""),
    ("generation", *CLAIMED),
)
