"""Parts: the steps that a step turned into, and waits for."""

from sqlalchemy import and_, func, null, select, update

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import steps
from orchestra.store.sql.statements.columns import HOT, RELEASED
from orchestra.store.sql.statements.statement import THIS_STEP, Statement, bare, in_status, of, p, quoted

FALL_BACK = Statement(
    "fall back",
    "A step waits for what runs in its place.",
    update(steps)
    .where(THIS_STEP)
    .values(fallback=null(), parts_left=bare("1"), parts_broken=bare("0"), collects=p("part")),
)
WAITING_STEP = Statement(
    "waiting step",
    "What the end of its parts means for a step.",
    select(*of(*HOT)).where(THIS_STEP, in_status(TaskStatus.WAITING)),
    HOT,
)
CATCHER = Statement(
    "catcher",
    "Whether a step is made up for by a fallback when its parts fail, or else what it is itself a part of.",
    select(*of("status", "fallback", "is_map", "parent")).where(THIS_STEP),
    ("status", "fallback", "is_map", "parent"),
)
END_WAITING = Statement(
    "end waiting",
    "All parts of a step have ended, and so has it.",
    update(steps)
    .where(THIS_STEP, in_status(TaskStatus.WAITING))
    .values(status=p("status"), output=p("output"), error=p("error"), completed_at=p("completed_at"))
    .returning(*of(*HOT)),
    HOT,
)
_PARTS = and_(steps.c.run_id == p("run_id"), steps.c.parent == p("parent"))
_next_part = select(func.min(steps.c.n)).where(_PARTS, in_status(TaskStatus.PENDING)).scalar_subquery()
RELEASE_PART = Statement(
    "release part",
    "A map with max_parallel has a place free for its next part.",
    update(steps)
    .where(steps.c.run_id == p("run_id"), steps.c.n == _next_part, in_status(TaskStatus.PENDING))
    .values(status=quoted(TaskStatus.QUEUED))
    .returning(*of(*RELEASED)),
    RELEASED,
)
COUNT_PART = Statement(
    "count part",
    "One part of a step has ended.",
    update(steps)
    .where(THIS_STEP, in_status(TaskStatus.WAITING))
    .values(parts_left=steps.c.parts_left - bare("1"), parts_broken=steps.c.parts_broken + p("broken"))
    .returning(*of("parts_left", "parts_broken", "collects", "max_parallel")),
    ("parts_left", "parts_broken", "collects", "max_parallel"),
)
PART_OUTPUTS = Statement(
    "part outputs",
    "The outputs of a step's parts, in order.",
    select(steps.c.n, steps.c.output).where(_PARTS).order_by(steps.c.n),
    ("n", "output"),
)
