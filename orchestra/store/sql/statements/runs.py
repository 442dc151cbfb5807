"""Runs: created, counted, ended, read."""

from typing import Any

from sqlalchemy import and_, bindparam, case, exists, func, insert, or_, select, update

from orchestra.model.status import WorkflowStatus
from orchestra.store.sql.schema import runs
from orchestra.store.sql.statements.columns import COUNTED, RUN, RUN_STATE_COLUMNS
from orchestra.store.sql.statements.statement import THIS_RUN, Statement, bare, p, quoted

_NEW_RUN = [column for column in runs.columns if column.name not in ("ending", "error", "completed_at")]
_old = runs.alias("old")
_is_taken = exists(select(bare("1")).where(or_(_old.c.key == p("key"), _old.c.id == p("id"))))
adding_run: Any = (
    insert(runs)
    .from_select(_NEW_RUN, select(*[bindparam(c.name, type_=c.type) for c in _NEW_RUN]).where(~_is_taken))
    .returning(runs.c.id)
)
ADD_RUN = Statement(
    "add run", "A run as it begins, unless its idempotency key or its id is taken.", adding_run, ("id",)
)
RUN_OF_KEY = Statement(
    "run of key",
    "Whether an idempotency key or an id is taken.",
    select(runs.c.id, runs.c.fingerprint, runs.c.key).where(or_(runs.c.key == p("key"), runs.c.id == p("run_id"))),
    ("id", "fingerprint", "key"),
)
RESERVE = Statement(
    "reserve",
    "Set numbers aside for steps and joins that a step adds to its run.",
    update(runs)
    .where(THIS_RUN)
    .values(next_n=runs.c.next_n + p("steps"), next_join=runs.c.next_join + p("joins"))
    .returning(runs.c.next_n, runs.c.next_join),
    ("next_n", "next_join"),
)
_is_over = and_(runs.c.remaining <= bare("1"), runs.c.completed_at.is_(None))
_by_errors = case((runs.c.error.is_(None), quoted(WorkflowStatus.COMPLETED)), else_=quoted(WorkflowStatus.FAILED))
count_run: Any = (
    update(runs)
    .where(THIS_RUN)
    .values(
        remaining=runs.c.remaining - bare("1"),
        status=case((_is_over, func.coalesce(runs.c.ending, _by_errors)), else_=runs.c.status),
        completed_at=case((_is_over, p("now")), else_=runs.c.completed_at),
    )
    .returning(runs.c.status, runs.c.completed_at, runs.c.single)
)
COUNT_RUN = Statement(
    "count run", "One of the steps that the run waits for has ended; the last one ends it.", count_run, COUNTED
)
RUN_STATE = Statement(
    "run state",
    "Whether a run has ended, or is on its way to an early end.",
    select(*[runs.c[name] for name in RUN_STATE_COLUMNS]).where(THIS_RUN),
    RUN_STATE_COLUMNS,
)
BEGIN_ENDING = Statement(
    "begin ending",
    "The first failure decides how the run will end.",
    update(runs)
    .where(THIS_RUN, runs.c.ending.is_(None), runs.c.completed_at.is_(None))
    .values(ending=p("ending"), error=p("error"))
    .returning(runs.c.id, runs.c.single),
    ("id", "single"),
)
NOTE_ERROR = Statement(
    "note error",
    "The first error of a run that goes on.",
    update(runs).where(THIS_RUN, runs.c.error.is_(None)).values(error=p("error")),
)
WAIT_FOR = Statement(
    "wait for",
    "An ending run waits for what is still running.",
    update(runs).where(THIS_RUN).values(remaining=p("remaining")),
)
END_RUN = Statement(
    "end run",
    "Everything that the run waited for has ended.",
    update(runs)
    .where(THIS_RUN, runs.c.completed_at.is_(None))
    .values(status=p("status"), completed_at=p("now"))
    .returning(runs.c.single),
    ("single",),
)
GET_RUN = Statement("get run", "One run.", select(*[runs.c[name] for name in RUN]).where(THIS_RUN), RUN)
GET_RESULT = Statement(
    "get result", "The template of a run's output.", select(runs.c.result).where(THIS_RUN), ("result",)
)
