"""Jobs: edited, fired, read."""

from sqlalchemy import and_, delete, func, insert, select, update

from orchestra.store.sql.schema import jobs, runs
from orchestra.store.sql.statements.columns import JOB, MOVING
from orchestra.store.sql.statements.statement import THIS_RUN, Statement, bare, named, p, quoted

_JOB = jobs.c.id == p("id")
_SAME_JOB = and_(_JOB, jobs.c.version == p("version"))
_ACTIVE = jobs.c.status == quoted("ACTIVE")
HAS_JOB = Statement("has job", "Whether an id is taken.", select(jobs.c.version).where(_JOB), ("version",))
ADD_JOB = Statement("add job", "A job as it begins.", insert(jobs).values(named(jobs)))
PUT_JOB = Statement(
    "put job",
    "A job is edited, paused or resumed, unless it has changed since it was read.",
    update(jobs)
    .where(_SAME_JOB)
    .values({**{jobs.c[name]: p(name) for name in JOB if name not in ("id", "version")}, jobs.c.version: p("next")})
    .returning(jobs.c.id),
    ("id",),
)
MOVE_JOB = Statement(
    "move job",
    "A job fires, unless somebody else did it, or it has changed since it was read.",
    update(jobs)
    .where(_SAME_JOB)
    .values({**{jobs.c[name]: p(name) for name in MOVING}, jobs.c.version: jobs.c.version + bare("1")})
    .returning(jobs.c.id),
    ("id",),
)
GET_JOB = Statement("get job", "One job.", select(*jobs.columns).where(_JOB), JOB)
JOBS = Statement("jobs", "All jobs by age.", select(*jobs.columns).order_by(jobs.c.created_at, jobs.c.id), JOB)
DROP_JOB = Statement("drop job", "A job is deleted.", delete(jobs).where(_JOB).returning(jobs.c.id), ("id",))
DROP_BACKFILLS = Statement(
    "drop backfills", "The backfills of a job go with it.", delete(jobs).where(jobs.c.backfills == p("id"))
)
NEXT_JOB = Statement(
    "next job",
    "When the next job is due.",
    select(jobs.c.due_at).where(_ACTIVE, jobs.c.due_at.is_not(None)).order_by(jobs.c.due_at).limit(bare("1")),
    ("due_at",),
)
DUE_JOBS = Statement(
    "due jobs",
    "Jobs whose time has come, earliest first.",
    select(*jobs.columns).where(_ACTIVE, jobs.c.due_at <= p("now")).order_by(jobs.c.due_at).limit(p("limit")),
    JOB,
)
FIRED = Statement(
    "fired",
    "Which times of a job have a run.",
    select(runs.c.scheduled_for).where(
        runs.c.job_id == p("job_id"), runs.c.scheduled_for.between(p("first"), p("last"))
    ),
    ("scheduled_for",),
)
COUNT_OPEN = Statement(
    "count open",
    "How many runs of a job have not ended.",
    select(func.count()).select_from(runs).where(runs.c.job_id == p("job_id"), runs.c.completed_at.is_(None)),
    ("count",),
)
JOB_OF_RUN = Statement(
    "job of run",
    "Which job made a run.",
    select(jobs.c.id, jobs.c.name, runs.c.scheduled_for)
    .join_from(runs, jobs, jobs.c.id == runs.c.job_id)
    .where(THIS_RUN),
    ("id", "name", "scheduled_for"),
)
BLAME_JOB = Statement("blame job", "What a job calls is gone.", update(jobs).where(_JOB).values(error=p("error")))
