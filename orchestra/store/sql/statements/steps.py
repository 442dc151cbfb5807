"""Steps: created, stopped, read."""

from typing import Any

from sqlalchemy import func, insert, null, select, update

from orchestra.model.status import IDLE, OPEN, TaskStatus, WorkflowStatus
from orchestra.store.sql.schema import runs, steps
from orchestra.store.sql.statements.columns import RECORD, RELEASED, ROW
from orchestra.store.sql.statements.statement import THIS_STEP, Statement, bare, in_status, of, p, quoted

_RUNS_LOOKED_AT = 100
"""How many runs of a workflow that ended last are looked at for one that completed."""
ZERO = ("generation", "claims", "attempts", "crashes", "announced", "resends", "parts_broken")
ADD_STEP = Statement(
    "add step",
    "A step as it begins; also the parts of a map.",
    insert(steps).values({steps.c[name]: p(name) for name in ("run_id", *ROW, "created_at", "parked", *ZERO)}),
    table="steps",
)
ROW_OF = Statement("row of", "A step as it was created, for one made like it.", select(*of(*ROW)).where(THIS_STEP), ROW)
STATUS = Statement("status", "Why a claim was refused.", select(steps.c.status).where(THIS_STEP), ("status",))
STOP_IDLE = Statement(
    "stop idle",
    "What has not started will not.",
    update(steps)
    .where(steps.c.run_id == p("run_id"), in_status(*IDLE))
    .values(status=p("status"), error=p("error"), completed_at=p("now"), sent_at=null())
    .returning(*of(*RELEASED)),
    RELEASED,
)
STOP_OPEN = Statement(
    "stop open",
    "Cancel ends also what is running: late records are superseded.",
    update(steps)
    .where(steps.c.run_id == p("run_id"), in_status(*OPEN))
    .values(status=p("status"), error=p("error"), completed_at=p("now"), sent_at=null())
    .returning(*of(*RELEASED)),
    RELEASED,
)
STOP_ONE = Statement(
    "stop one",
    "Cancel of one step.",
    update(steps)
    .where(THIS_STEP, in_status(*OPEN))
    .values(status=p("status"), error=p("error"), completed_at=p("now"), sent_at=null())
    .returning(*of("name", "queue")),
    ("name", "queue"),
)
COUNT_RUNNING = Statement(
    "count running",
    "How many bodies an ending run waits for.",
    select(func.count()).select_from(steps).where(steps.c.run_id == p("run_id"), in_status(TaskStatus.RUNNING)),
    ("count",),
)
GET_STEP = Statement("get step", "One step with its output.", select(*of(*RECORD)).where(THIS_STEP), RECORD)
_ended_last: Any = (
    select(runs.c.id, runs.c.status, runs.c.completed_at)
    .where(runs.c.name == p("name"), runs.c.single == bare("0"), runs.c.completed_at.is_not(None))
    .order_by(runs.c.completed_at.desc())
    .limit(bare(str(_RUNS_LOOKED_AT)))
    .subquery("ended_last")
)
_completed_last: Any = (
    select(_ended_last.c.id)
    .where(_ended_last.c.status == quoted(WorkflowStatus.COMPLETED))
    .order_by(_ended_last.c.completed_at.desc())
    .limit(bare("1"))
    .scalar_subquery()
)
DURATIONS = Statement(
    "durations",
    "When the steps of a workflow began and ended in its last run that completed, of its last ones that ended.",
    select(*of("name", "started_at", "completed_at")).where(
        steps.c.run_id == _completed_last,
        steps.c.n < p("most"),
        steps.c.parent.is_(None),
        in_status(TaskStatus.COMPLETED),
    ),
    ("name", "started_at", "completed_at"),
)
FIND_STEP = Statement(
    "find step",
    "The step with a key in the newest run that has one.",
    select(*of(*RECORD))
    .where(steps.c.key == p("key"))
    .order_by(steps.c.created_at.desc(), steps.c.run_id.desc())
    .limit(bare("1")),
    RECORD,
)
_LIGHT: list[Any] = [bare("NULL") if name == "output" else steps.c[name] for name in RECORD]
STEPS = Statement(
    "steps",
    "The steps of a run, without outputs.",
    select(*_LIGHT).where(steps.c.run_id == p("run_id")).order_by(steps.c.n),
    RECORD,
)
STEPS_IN = Statement(
    "steps in status",
    "The steps of a run that have one status.",
    select(*_LIGHT).where(steps.c.run_id == p("run_id"), steps.c.status == p("status")).order_by(steps.c.n),
    RECORD,
)
COUNTS = Statement(
    "counts",
    "How far a run is.",
    select(steps.c.status, func.count()).where(steps.c.run_id == p("run_id")).group_by(steps.c.status),
    ("status", "count"),
)
OUTPUT = Statement(
    "output", "The output of one step.", select(steps.c.n, steps.c.output).where(THIS_STEP), ("n", "output")
)
NAMED_OUTPUTS = Statement(
    "named outputs",
    "Names and outputs of all steps up to a number; for inputs made of many predecessors.",
    select(*of("n", "name", "output")).where(steps.c.run_id == p("run_id"), steps.c.n.between(p("first"), p("last"))),
    ("n", "name", "output"),
)
EDGES = Statement(
    "edges",
    "How the steps of a run hang together.",
    select(*of("n", "waits_for", "feeds")).where(steps.c.run_id == p("run_id")).order_by(steps.c.n),
    ("n", "waits_for", "feeds"),
)
OPEN_QUEUES = Statement(
    "open queues", "Where work is left.", select(steps.c.queue).where(in_status(*OPEN)).distinct(), ("queue",)
)
