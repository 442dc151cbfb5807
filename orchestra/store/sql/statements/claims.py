"""Claims: taken, held, announced, and brought to their end."""

from typing import Any

from sqlalchemy import and_, exists, null, select, true, update

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import leases, runs, steps
from orchestra.store.sql.statements.columns import CLAIMED, COUNTED, HOT, RUN_STATE_COLUMNS, STARTED
from orchestra.store.sql.statements.runs import count_run
from orchestra.store.sql.statements.statement import (
    HOLDS_CLAIM,
    THIS_RUN,
    THIS_STEP,
    UNPARKED,
    Statement,
    bare,
    in_status,
    of,
    p,
    quoted,
)

CLAIM = Statement(
    "claim",
    "Take a step that is ready; the new claim number fences every earlier one.",
    update(steps)
    .where(THIS_STEP, steps.c.generation == p("generation"), in_status(TaskStatus.QUEUED), UNPARKED)
    .values(
        status=quoted(TaskStatus.RUNNING),
        claims=steps.c.claims + bare("1"),
        worker=p("worker"),
        started_at=p("now"),
    )
    .returning(*of(*CLAIMED)),
    CLAIMED,
)
OWN_CLAIM = Statement(
    "own claim",
    "Whether a claim whose answer was lost has been made: then its worker and its time stand there.",
    select(*of(*CLAIMED)).where(
        THIS_STEP, steps.c.worker == p("worker"), steps.c.started_at == p("now"), in_status(TaskStatus.RUNNING),
        steps.c.generation == p("generation"),
    ),
    CLAIMED,
)  # fmt: skip
HELD_CLAIM = Statement(
    "held claim",
    "What a worker's parent process has to know of what its child was doing.",
    select(*of(*CLAIMED)).where(
        THIS_STEP, steps.c.generation == p("generation"), steps.c.worker == p("worker"), in_status(TaskStatus.RUNNING)
    ),
    CLAIMED,
)
_end: Any = (
    update(steps)
    .where(HOLDS_CLAIM)
    .values(
        status=p("status"),
        output=p("output"),
        error=p("error"),
        attempts=steps.c.attempts + p("attempted"),
        crashes=steps.c.crashes + p("crashed"),
        sent_at=null(),
        due_at=p("due_at"),
        parts_left=p("parts_left"),
        collects=p("collects"),
        completed_at=p("completed_at"),
    )
)
END = Statement("end", "A claim came to its end, if it is still the newest.", _end.returning(*of(*HOT)), HOT)
HELD_STEP = Statement(
    "held step", "What vanishing means depends on what it has been through.", select(*of(*HOT)).where(HOLDS_CLAIM), HOT
)
_unannounced = (
    select(steps.c.run_id, steps.c.n)
    .where(
        steps.c.worker == p("worker"),
        in_status(TaskStatus.RUNNING),
        steps.c.started_at < p("before"),
        steps.c.announced < steps.c.claims,
    )
    .with_for_update(skip_locked=True)
    .cte("unannounced")
)
UNANNOUNCED = Statement(
    "unannounced",
    "What a worker has been running for a while, and whose start is not in the log.",
    update(steps)
    .where(steps.c.run_id == _unannounced.c.run_id, steps.c.n == _unannounced.c.n)
    .values(announced=steps.c.claims)
    .returning(*of("run_id", "n", "key", "name", "attempts", "claims", "started_at")),
    ("run_id", "n", "key", "name", "attempts", "claims", "started_at"),
)
_silent = and_(in_status(TaskStatus.RUNNING), steps.c.announced < steps.c.claims)
STARTS = Statement(
    "starts",
    "What of a run is running, and whose start is not in the log.",
    update(steps)
    .where(steps.c.run_id == p("run_id"), _silent)
    .values(announced=steps.c.claims)
    .returning(*of(*STARTED)),
    STARTED,
)
START_OF = Statement(
    "start of",
    "Whether a step is running, and its start is not in the log.",
    update(steps).where(THIS_STEP, _silent).values(announced=steps.c.claims).returning(*of(*STARTED)),
    STARTED,
)
_ended: Any = _end.returning(*of(*HOT, "status")).cte("ended")
_feeds_nothing = and_(
    _ended.c.status == quoted(TaskStatus.COMPLETED), _ended.c.feeds.is_(None), _ended.c.parent.is_(None), THIS_RUN
)
_counted: Any = count_run.where(_feeds_nothing).cte("counted")
END_IN_RUN = Statement(
    "end in run",
    "A claim came to its end; with it the run that waits for nothing but such steps counts it, or says how it stands.",
    select(
        *[_ended.c[name] for name in HOT],
        *[_counted.c[name] for name in COUNTED],
        *[runs.c[name] for name in RUN_STATE_COLUMNS],
    ).select_from(_ended.join(runs, THIS_RUN).outerjoin(_counted, true())),
    (*HOT, *COUNTED, *RUN_STATE_COLUMNS),
)
HELD = Statement(
    "held",
    "What is running under an incarnation.",
    select(*of("run_id", "n", "generation", "claims")).where(
        steps.c.worker == p("worker"), in_status(TaskStatus.RUNNING)
    ),
    ("run_id", "n", "generation", "claims"),
)
ORPHANS = Statement(
    "orphans",
    "What is running under an incarnation that has no lease.",
    select(*of("run_id", "n", "generation", "claims")).where(
        in_status(TaskStatus.RUNNING), ~exists(select(bare("1")).where(leases.c.incarnation == steps.c.worker))
    ),
    ("run_id", "n", "generation", "claims"),
)
