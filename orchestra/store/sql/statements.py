"""The statements: each has a name and a sentence. SQLAlchemy builds them; each is compiled once per dialect.

They are executed on the driver's own cursor: what Core adds per execution would cost more than SQLite does.
"""

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import (
    Dialect,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)

from orchestra.model.status import IDLE, OPEN, TaskStatus, WorkflowStatus
from orchestra.store.sql.schema import events, jobs, joins, leases, meta, runs, steps


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One named statement. Results come as tuples in the order of ``columns``."""

    name: str
    why: str
    clause: Any
    columns: tuple[str, ...] = ()

    def compile(self, dialect: Dialect) -> tuple[str, dict[str, object]]:
        """Return its text in a dialect, and the values that SQLAlchemy itself put in (such as OFFSET 0).

        All other parameters are named and have to be given.
        """
        compiled = self.clause.compile(dialect=dialect)
        own = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required and bind.value is not None
        }
        return str(compiled), own


def _sql(expression: str) -> Any:
    """Return a piece of SQL that needs no parameter."""
    return cast("Any", literal_column(expression))


def _text(value: str) -> Any:
    return _sql(f"'{value}'")


def _status(*statuses: TaskStatus) -> Any:
    if len(statuses) == 1:
        # Written as the partial indexes write it, or the planner does not see that they apply.
        return steps.c.status == _text(statuses[0])
    return steps.c.status.in_([_text(each) for each in sorted(statuses)])


def _named(table: Any) -> dict[Any, Any]:
    return {column: bindparam(column.name) for column in table.columns}


def _of(*names: str) -> list[Any]:
    return [steps.c[name] for name in names]


S = TaskStatus
_p: Any = bindparam
_STEP = and_(steps.c.run_id == _p("run_id"), steps.c.n == _p("n"))
HOLDS_CLAIM = and_(_STEP, steps.c.claims == _p("claim"), steps.c.generation == _p("generation"), _status(S.RUNNING))
_RUN = runs.c.id == _p("run_id")
UNPARKED = steps.c.parked == _sql("0")

DISPATCH = ("run_id", "n", "generation", "task", "name", "queue", "priority", "timeout_s", "chain")
HOT = (
    "n", "key", "name", "queue", "feeds", "parent", "is_map", "attempts", "crashes", "retry", "fallback", "claims",
    "announced", "started_at", "worker",
)  # fmt: skip
ROW = (
    "n", "key", "name", "task", "target", "status", "priority", "queue", "rank", "input", "retry", "timeout_s",
    "metadata", "is_map", "max_parallel", "waits_for", "feeds", "chain", "whens", "parent", "fallback", "round",
    "max_rounds",
)  # fmt: skip
"""The columns of a StepRow."""
CLAIMED = (*ROW, "claims", "attempts", "crashes")
RECORD = (
    "run_id", "n", "key", "name", "target", "status", "priority", "queue", "metadata", "claims", "attempts", "crashes",
    "generation", "output", "error", "worker", "created_at", "due_at", "started_at", "completed_at", "parent",
)  # fmt: skip
RUN = (
    "id", "name", "workflow_id", "status", "single", "priority", "metadata", "key", "error", "job_id", "scheduled_for",
    "created_at", "started_at", "completed_at", "deadline",
)  # fmt: skip

# --- creating -------------------------------------------------------------------------------------------------------
_ZERO = ("generation", "claims", "attempts", "crashes", "announced", "resends", "parts_broken")
_NEW_RUN = [column for column in runs.columns if column.name not in ("ending", "error", "completed_at")]
_old = runs.alias("old")
_is_taken = exists(select(_sql("1")).where(or_(_old.c.key == _p("key"), _old.c.id == _p("id"))))
ADD_RUN = Statement(
    "add run",
    "A run as it begins, unless its idempotency key or its id is taken.",
    insert(runs)
    .from_select(_NEW_RUN, select(*[bindparam(c.name, type_=c.type) for c in _NEW_RUN]).where(~_is_taken))
    .returning(runs.c.id),
    ("id",),
)
ADD_STEP = Statement(
    "add step",
    "A step as it begins; also the parts of a map.",
    insert(steps).values(
        {
            **{steps.c[name]: _p(name) for name in ("run_id", *ROW, "created_at", "parked")},
            **{steps.c[name]: _sql("0") for name in _ZERO},
        }
    ),
)
ADD_JOIN = Statement("add join", "A set of predecessors, none of them done.", insert(joins).values(_named(joins)))
RUN_OF_KEY = Statement(
    "run of key",
    "Whether an idempotency key or an id is taken.",
    select(runs.c.id, runs.c.fingerprint, runs.c.key).where(or_(runs.c.key == _p("key"), runs.c.id == _p("run_id"))),
    ("id", "fingerprint", "key"),
)
RESERVE = Statement(
    "reserve",
    "Set numbers aside for steps and joins that a step adds to its run.",
    update(runs)
    .where(_RUN)
    .values(next_n=runs.c.next_n + _p("steps"), next_join=runs.c.next_join + _p("joins"))
    .returning(runs.c.next_n, runs.c.next_join),
    ("next_n", "next_join"),
)
ROW_OF = Statement("row of", "A step as it was created, for one made like it.", select(*_of(*ROW)).where(_STEP), ROW)
FALL_BACK = Statement(
    "fall back",
    "A step waits for what runs in its place.",
    update(steps)
    .where(_STEP)
    .values(fallback=null(), parts_left=_sql("1"), parts_broken=_sql("0"), collects=_p("part")),
)

# --- claiming and ending --------------------------------------------------------------------------------------------
CLAIM = Statement(
    "claim",
    "Take a step that is ready; the new claim number fences every earlier one.",
    update(steps)
    .where(_STEP, steps.c.generation == _p("generation"), _status(S.QUEUED), UNPARKED)
    .values(
        status=_text(S.RUNNING),
        claims=steps.c.claims + _sql("1"),
        worker=_p("worker"),
        started_at=_p("now"),
        sent_at=null(),
    )
    .returning(*_of(*CLAIMED)),
    CLAIMED,
)
OWN_CLAIM = Statement(
    "own claim",
    "Whether a claim whose answer was lost has been made: then its worker and its time stand there.",
    select(*_of(*CLAIMED)).where(
        _STEP, steps.c.worker == _p("worker"), steps.c.started_at == _p("now"), _status(S.RUNNING),
        steps.c.generation == _p("generation"),
    ),
    CLAIMED,
)  # fmt: skip
HELD_CLAIM = Statement(
    "held claim",
    "What a worker's parent process has to know of what its child was doing.",
    select(*_of(*CLAIMED)).where(
        _STEP, steps.c.generation == _p("generation"), steps.c.worker == _p("worker"), _status(S.RUNNING)
    ),
    CLAIMED,
)
STATUS = Statement("status", "Why a claim was refused.", select(steps.c.status).where(_STEP), ("status",))
_end: Any = (
    update(steps)
    .where(HOLDS_CLAIM)
    .values(
        status=_p("status"),
        output=_p("output"),
        error=_p("error"),
        attempts=steps.c.attempts + _p("attempted"),
        crashes=steps.c.crashes + _p("crashed"),
        due_at=_p("due_at"),
        parts_left=_p("parts_left"),
        collects=_p("collects"),
        completed_at=_p("completed_at"),
    )
)
END = Statement("end", "A claim came to its end, if it is still the newest.", _end.returning(*_of(*HOT)), HOT)
HELD_STEP = Statement(
    "held step", "What vanishing means depends on what it has been through.", select(*_of(*HOT)).where(HOLDS_CLAIM), HOT
)
WAITING_STEP = Statement(
    "waiting step",
    "What the end of its parts means for a step.",
    select(*_of(*HOT)).where(_STEP, _status(S.WAITING)),
    HOT,
)
CATCHER = Statement(
    "catcher",
    "Whether a step is made up for by a fallback when its parts fail, or else what it is itself a part of.",
    select(*_of("status", "fallback", "is_map", "parent")).where(_STEP),
    ("status", "fallback", "is_map", "parent"),
)
END_WAITING = Statement(
    "end waiting",
    "All parts of a step have ended, and so has it.",
    update(steps)
    .where(_STEP, _status(S.WAITING))
    .values(status=_p("status"), output=_p("output"), error=_p("error"), completed_at=_p("completed_at"))
    .returning(*_of(*HOT)),
    HOT,
)
_unannounced = (
    select(steps.c.run_id, steps.c.n)
    .where(
        steps.c.worker == _p("worker"),
        _status(S.RUNNING),
        steps.c.started_at < _p("before"),
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
    .returning(*_of("run_id", "n", "key", "name", "attempts", "claims", "started_at")),
    ("run_id", "n", "key", "name", "attempts", "claims", "started_at"),
)

_STARTED = ("n", "name", "attempts", "claims", "worker", "started_at")
_silent = and_(_status(S.RUNNING), steps.c.announced < steps.c.claims)
STARTS = Statement(
    "starts",
    "What of a run is running, and whose start is not in the log.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), _silent)
    .values(announced=steps.c.claims)
    .returning(*_of(*_STARTED)),
    _STARTED,
)
START_OF = Statement(
    "start of",
    "Whether a step is running, and its start is not in the log.",
    update(steps).where(_STEP, _silent).values(announced=steps.c.claims).returning(*_of(*_STARTED)),
    _STARTED,
)

# --- joins and releases ---------------------------------------------------------------------------------------------
COUNT_JOIN = Statement(
    "count join",
    "One part of a join has ended.",
    update(joins)
    .where(joins.c.run_id == _p("run_id"), joins.c.number == _p("number"))
    .values(
        remaining=joins.c.remaining - _sql("1"),
        live=joins.c.live + _p("live"),
        broken=joins.c.broken + _p("broken"),
        dead=joins.c.dead + _p("dead"),
    )
    .returning(joins.c.remaining, joins.c.live, joins.c.broken, joins.c.any_way),
    ("remaining", "live", "broken", "any_way"),
)
JOIN_PARTS = Statement(
    "join parts",
    "The predecessors behind a join, and those whose way was not taken.",
    select(joins.c.parts, joins.c.dead).where(joins.c.run_id == _p("run_id"), joins.c.number == _p("number")),
    ("parts", "dead"),
)
RELEASED = ("n", "queue")
RELEASE = Statement(
    "release",
    "A join is complete: its bodies are ready.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), steps.c.waits_for == _p("number"), _status(S.PENDING))
    .values(status=_text(S.QUEUED))
    .returning(*_of(*RELEASED)),
    RELEASED,
)
SKIP = Statement(
    "skip",
    "No way into the steps behind a join was taken, or something before them failed.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), steps.c.waits_for == _p("number"), _status(S.PENDING))
    .values(status=_text(S.SKIPPED), error=_p("error"), completed_at=_p("now"))
    .returning(*_of(*HOT)),
    HOT,
)
_PARTS = and_(steps.c.run_id == _p("run_id"), steps.c.parent == _p("parent"))
_next_part = select(func.min(steps.c.n)).where(_PARTS, _status(S.PENDING)).scalar_subquery()
RELEASE_PART = Statement(
    "release part",
    "A map with max_parallel has a place free for its next part.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), steps.c.n == _next_part, _status(S.PENDING))
    .values(status=_text(S.QUEUED))
    .returning(*_of(*RELEASED)),
    RELEASED,
)
COUNT_PART = Statement(
    "count part",
    "One part of a step has ended.",
    update(steps)
    .where(_STEP, _status(S.WAITING))
    .values(parts_left=steps.c.parts_left - _sql("1"), parts_broken=steps.c.parts_broken + _p("broken"))
    .returning(*_of("parts_left", "parts_broken", "collects", "max_parallel")),
    ("parts_left", "parts_broken", "collects", "max_parallel"),
)
PART_OUTPUTS = Statement(
    "part outputs",
    "The outputs of a step's parts, in order.",
    select(steps.c.n, steps.c.output).where(_PARTS).order_by(steps.c.n),
    ("n", "output"),
)

# --- the end of a run -----------------------------------------------------------------------------------------------
_is_over = and_(runs.c.remaining <= _sql("1"), runs.c.completed_at.is_(None))
_by_errors = case((runs.c.error.is_(None), _text(WorkflowStatus.COMPLETED)), else_=_text(WorkflowStatus.FAILED))
_count_run: Any = (
    update(runs)
    .where(_RUN)
    .values(
        remaining=runs.c.remaining - _sql("1"),
        status=case((_is_over, func.coalesce(runs.c.ending, _by_errors)), else_=runs.c.status),
        completed_at=case((_is_over, _p("now")), else_=runs.c.completed_at),
    )
    .returning(runs.c.status, runs.c.completed_at, runs.c.single)
)
COUNTED = ("status", "completed_at", "single")
COUNT_RUN = Statement(
    "count run", "One of the steps that the run waits for has ended; the last one ends it.", _count_run, COUNTED
)
_ended: Any = _end.returning(*_of(*HOT, "status")).cte("ended")
_feeds_nothing = and_(_ended.c.status == _text(S.COMPLETED), _ended.c.feeds.is_(None), _ended.c.parent.is_(None), _RUN)
_counted: Any = _count_run.where(_feeds_nothing).cte("counted")
RUN_STATE_COLUMNS = ("completed_at", "ending", "single", "on_failure", "status")
END_IN_RUN = Statement(
    "end in run",
    "A claim came to its end; with it the run that waits for nothing but such steps counts it, or says how it stands.",
    select(
        *[_ended.c[name] for name in HOT],
        *[_counted.c[name] for name in COUNTED],
        *[runs.c[name] for name in RUN_STATE_COLUMNS],
    ).select_from(_ended.join(runs, _RUN).outerjoin(_counted, true())),
    (*HOT, *COUNTED, *RUN_STATE_COLUMNS),
)
RUN_STATE = Statement(
    "run state",
    "Whether a run has ended, or is on its way to an early end.",
    select(*[runs.c[name] for name in RUN_STATE_COLUMNS]).where(_RUN),
    RUN_STATE_COLUMNS,
)
BEGIN_ENDING = Statement(
    "begin ending",
    "The first failure decides how the run will end.",
    update(runs)
    .where(_RUN, runs.c.ending.is_(None), runs.c.completed_at.is_(None))
    .values(ending=_p("ending"), error=_p("error"))
    .returning(runs.c.id, runs.c.single),
    ("id", "single"),
)
NOTE_ERROR = Statement(
    "note error",
    "The first error of a run that goes on.",
    update(runs).where(_RUN, runs.c.error.is_(None)).values(error=_p("error")),
)
WAIT_FOR = Statement(
    "wait for",
    "An ending run waits for what is still running.",
    update(runs).where(_RUN).values(remaining=_p("remaining")),
)
END_RUN = Statement(
    "end run",
    "Everything that the run waited for has ended.",
    update(runs)
    .where(_RUN, runs.c.completed_at.is_(None))
    .values(status=_p("status"), completed_at=_p("now"))
    .returning(runs.c.single),
    ("single",),
)
STOP_IDLE = Statement(
    "stop idle",
    "What has not started will not.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), _status(*IDLE))
    .values(status=_p("status"), error=_p("error"), completed_at=_p("now"), sent_at=null())
    .returning(*_of(*RELEASED)),
    RELEASED,
)
STOP_OPEN = Statement(
    "stop open",
    "Cancel ends also what is running: late records are superseded.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), _status(*OPEN))
    .values(status=_p("status"), error=_p("error"), completed_at=_p("now"), sent_at=null())
    .returning(*_of(*RELEASED)),
    RELEASED,
)
STOP_ONE = Statement(
    "stop one",
    "Cancel of one step.",
    update(steps)
    .where(_STEP, _status(*OPEN))
    .values(status=_p("status"), error=_p("error"), completed_at=_p("now"), sent_at=null())
    .returning(*_of("name", "queue")),
    ("name", "queue"),
)
COUNT_RUNNING = Statement(
    "count running",
    "How many bodies an ending run waits for.",
    select(func.count()).select_from(steps).where(steps.c.run_id == _p("run_id"), _status(S.RUNNING)),
    ("count",),
)

# --- the window -----------------------------------------------------------------------------------------------------
_WAITING = and_(steps.c.queue == _p("queue"), _status(S.QUEUED), steps.c.sent_at.is_(None), UNPARKED)
_SENT = and_(steps.c.queue == _p("queue"), _status(S.QUEUED), steps.c.sent_at.is_not(None))
# Not min(): PostgreSQL then reads all that waits unless its statistics are good.
_first: Any = select(steps.c.priority).where(_WAITING).order_by(steps.c.priority).limit(_sql("1")).cte("first")
_sent: Any = select(_sql("1")).where(_SENT, steps.c.priority <= _first.c.priority).limit(_p("window")).subquery("sent")
_room: Any = select((_p("window") - func.count()).label("room")).select_from(_sent).cte("room")
_best: Any = (
    select(steps.c.run_id, steps.c.n)
    .where(_WAITING, steps.c.priority == select(_first.c.priority).scalar_subquery())
    .order_by(steps.c.rank.desc(), steps.c.created_at, steps.c.run_id, steps.c.n)
    .limit(select(_room.c.room).scalar_subquery())
    # PostgreSQL: what another transaction is picking is passed over. A CTE, since an IN may be run more than once.
    .with_for_update(of=steps, skip_locked=True)
    .cte("best")
)
_of_picked: list[Any] = [*_of(*DISPATCH, "rank", "created_at"), select(_room.c.room).scalar_subquery()]
_is_best: Any = and_(steps.c.run_id == _best.c.run_id, steps.c.n == _best.c.n)
_pick: Any = cast("Any", update(steps).where(_is_best).values(sent_at=_p("now"))).returning(*_of_picked)
_PICKED = (*DISPATCH, "rank", "created_at", "room")
PICK = Statement(
    "pick",
    "The best waiting steps, all of one priority, go to the broker as far as the window has room for that priority;"
    " never counts further than the window.",
    _pick,
    _PICKED,
)
_other = steps.alias("other")
_others_waiting: Any = (
    select(_sql("1"))
    .where(
        _other.c.queue == steps.c.queue,
        _other.c.status == _text(S.QUEUED),
        _other.c.sent_at.is_(None),
        _other.c.parked == _sql("0"),
    )
    .correlate(steps)
)
_others_sent: Any = (
    select(func.count())
    .select_from(_other)
    .where(
        _other.c.queue == steps.c.queue,
        _other.c.status == _text(S.QUEUED),
        _other.c.sent_at.is_not(None),
        _other.c.priority <= steps.c.priority,
    )
    .correlate(steps)
    .scalar_subquery()
)
_has_room: Any = and_(UNPARKED, ~exists(_others_waiting), _others_sent < _p("window"))
RELEASE_ONE = Statement(
    "release one",
    "A join with one body is complete: it goes to the broker at once, if nothing waits and the window has room.",
    update(steps)
    .where(steps.c.run_id == _p("run_id"), steps.c.waits_for == _p("number"), _status(S.PENDING))
    .values(
        status=_text(S.QUEUED),
        sent_at=case((_has_room, _p("now")), else_=null()),
    )
    .returning(*_of(*DISPATCH, "sent_at")),
    (*DISPATCH, "sent_at"),
)
_unheard = (
    select(steps.c.run_id, steps.c.n)
    .where(_SENT, steps.c.sent_at < _p("before"))
    .order_by(steps.c.priority, steps.c.sent_at)
    .limit(_p("room"))
    .with_for_update(skip_locked=True)
    .cte("unheard")
)
RESEND = Statement(
    "resend",
    "The oldest steps that were sent and that nobody claimed, each waiting longer than the time before.",
    update(steps)
    .where(steps.c.run_id == _unheard.c.run_id, steps.c.n == _unheard.c.n)
    .values(
        # Dated ahead, so that it counts as unheard later each time: after 1, 2, 4, … seconds.
        sent_at=_p("now") + _sql("(1 << steps.resends)"),
        resends=case((steps.c.resends < _sql("5"), steps.c.resends + _sql("1")), else_=steps.c.resends),
    )
    .returning(*_of(*DISPATCH)),
    DISPATCH,
)
_due = (
    select(steps.c.run_id, steps.c.n)
    .where(_status(S.RETRYING), steps.c.due_at <= _p("now"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
DUE = Statement(
    "due",
    "Retries whose time has come.",
    update(steps)
    .where(steps.c.run_id == _due.c.run_id, steps.c.n == _due.c.n)
    .values(status=_text(S.QUEUED), due_at=null())
    .returning(*_of("run_id", "n", "queue", "key")),
    ("run_id", "n", "queue", "key"),
)
NEXT_DUE = Statement(
    "next due", "When the next retry is due.", select(func.min(steps.c.due_at)).where(_status(S.RETRYING)), ("due_at",)
)

# --- events and workers ---------------------------------------------------------------------------------------------
_add_events = insert(events).values({c: _p(c.name) for c in events.columns if c.name != "seq"})
ADD_EVENTS = Statement("add events", "What one transaction did to one run.", _add_events)
PICK_AND_ADD_EVENTS = Statement(
    "pick and add events",
    "What most transactions end with.",
    _pick.add_cte(_add_events.cte("logged")),
    _PICKED,
)
EVENT = ("seq", "time", "run_id", "single", "worker", "entries")
EVENTS = Statement(
    "events",
    "The log, from a cursor on.",
    select(*[events.c[name] for name in EVENT])
    .where(events.c.seq > _p("after"))
    .order_by(events.c.seq)
    .limit(_p("limit")),
    EVENT,
)
NEWEST_EVENTS = Statement(
    "newest events",
    "The end of the log.",
    select(*[events.c[name] for name in EVENT])
    .where(events.c.seq > _p("after"))
    .order_by(events.c.seq.desc())
    .limit(_p("limit")),
    EVENT,
)
EVENTS_OF_RUN = Statement(
    "events of run",
    "What happened to one run.",
    select(*[events.c[name] for name in EVENT])
    .where(events.c.run_id == _p("run_id"), events.c.seq > _p("after"))
    .order_by(events.c.seq)
    .limit(_p("limit")),
    EVENT,
)
LAST_EVENT = Statement(
    "last event",
    "The cursor behind the newest event.",
    select(func.coalesce(func.max(events.c.seq), _sql("0"))),
    ("seq",),
)
LEASE = tuple(column.name for column in leases.columns)
RENEW = Statement(
    "renew",
    "A worker says that it is alive.",
    update(leases)
    .where(leases.c.incarnation == _p("incarnation"))
    .values(expires_at=_p("expires_at"), queues=_p("queues"), slots=_p("slots"))
    .returning(leases.c.incarnation),
    ("incarnation",),
)
ADD_LEASE = Statement("add lease", "A worker has started.", insert(leases).values(_named(leases)))
LEASES = Statement("leases", "All workers that are known.", select(*leases.columns), LEASE)
DROP_LEASE = Statement(
    "drop lease",
    "A worker has stopped, or is known to be dead.",
    delete(leases).where(leases.c.incarnation == _p("incarnation")).returning(leases.c.incarnation),
    ("incarnation",),
)
HELD = Statement(
    "held",
    "What is running under an incarnation.",
    select(*_of("run_id", "n", "generation", "claims")).where(steps.c.worker == _p("worker"), _status(S.RUNNING)),
    ("run_id", "n", "generation", "claims"),
)
ORPHANS = Statement(
    "orphans",
    "What is running under an incarnation that has no lease.",
    select(*_of("run_id", "n", "generation", "claims")).where(
        _status(S.RUNNING), ~exists(select(_sql("1")).where(leases.c.incarnation == steps.c.worker))
    ),
    ("run_id", "n", "generation", "claims"),
)

# --- jobs -----------------------------------------------------------------------------------------------------------
JOB = tuple(column.name for column in jobs.columns)
_MOVES = ("status", "next_run_at", "due_at", "last_run_at", "last_run_id", "runs", "missed", "error")
_JOB = jobs.c.id == _p("id")
_SAME_JOB = and_(_JOB, jobs.c.version == _p("version"))
_ACTIVE = jobs.c.status == _text("ACTIVE")
HAS_JOB = Statement("has job", "Whether an id is taken.", select(jobs.c.version).where(_JOB), ("version",))
ADD_JOB = Statement("add job", "A job as it begins.", insert(jobs).values(_named(jobs)))
PUT_JOB = Statement(
    "put job",
    "A job is edited, paused or resumed, unless it has changed since it was read.",
    update(jobs)
    .where(_SAME_JOB)
    .values({**{jobs.c[name]: _p(name) for name in JOB if name not in ("id", "version")}, jobs.c.version: _p("next")})
    .returning(jobs.c.id),
    ("id",),
)
MOVE_JOB = Statement(
    "move job",
    "A job fires, unless somebody else did it, or it has changed since it was read.",
    update(jobs)
    .where(_SAME_JOB)
    .values({**{jobs.c[name]: _p(name) for name in _MOVES}, jobs.c.version: jobs.c.version + _sql("1")})
    .returning(jobs.c.id),
    ("id",),
)
MOVES = ("id", "version", *_MOVES)
GET_JOB = Statement("get job", "One job.", select(*jobs.columns).where(_JOB), JOB)
JOBS = Statement("jobs", "All jobs by age.", select(*jobs.columns).order_by(jobs.c.created_at, jobs.c.id), JOB)
DROP_JOB = Statement("drop job", "A job is deleted.", delete(jobs).where(_JOB).returning(jobs.c.id), ("id",))
DROP_BACKFILLS = Statement(
    "drop backfills", "The backfills of a job go with it.", delete(jobs).where(jobs.c.backfills == _p("id"))
)
NEXT_JOB = Statement(
    "next job",
    "When the next job is due.",
    select(jobs.c.due_at).where(_ACTIVE, jobs.c.due_at.is_not(None)).order_by(jobs.c.due_at).limit(_sql("1")),
    ("due_at",),
)
DUE_JOBS = Statement(
    "due jobs",
    "Jobs whose time has come, earliest first.",
    select(*jobs.columns).where(_ACTIVE, jobs.c.due_at <= _p("now")).order_by(jobs.c.due_at).limit(_p("limit")),
    JOB,
)
FIRED = Statement(
    "fired",
    "Which times of a job have a run.",
    select(runs.c.scheduled_for).where(
        runs.c.job_id == _p("job_id"), runs.c.scheduled_for.between(_p("first"), _p("last"))
    ),
    ("scheduled_for",),
)
COUNT_OPEN = Statement(
    "count open",
    "How many runs of a job have not ended.",
    select(func.count()).select_from(runs).where(runs.c.job_id == _p("job_id"), runs.c.completed_at.is_(None)),
    ("count",),
)
JOB_OF_RUN = Statement(
    "job of run",
    "Which job made a run.",
    select(jobs.c.id, jobs.c.name, runs.c.scheduled_for).join_from(runs, jobs, jobs.c.id == runs.c.job_id).where(_RUN),
    ("id", "name", "scheduled_for"),
)
BLAME_JOB = Statement("blame job", "What a job calls is gone.", update(jobs).where(_JOB).values(error=_p("error")))

# --- reading --------------------------------------------------------------------------------------------------------
GET_RUN = Statement("get run", "One run.", select(*[runs.c[name] for name in RUN]).where(_RUN), RUN)
GET_RESULT = Statement("get result", "The template of a run's output.", select(runs.c.result).where(_RUN), ("result",))
GET_STEP = Statement("get step", "One step with its output.", select(*_of(*RECORD)).where(_STEP), RECORD)
FIND_STEP = Statement(
    "find step",
    "The step with a key in the newest run that has one.",
    select(*_of(*RECORD))
    .where(steps.c.key == _p("key"))
    .order_by(steps.c.created_at.desc(), steps.c.run_id.desc())
    .limit(_sql("1")),
    RECORD,
)
_LIGHT: list[Any] = [_sql("NULL") if name == "output" else steps.c[name] for name in RECORD]
STEPS = Statement(
    "steps",
    "The steps of a run, without outputs.",
    select(*_LIGHT).where(steps.c.run_id == _p("run_id")).order_by(steps.c.n),
    RECORD,
)
STEPS_IN = Statement(
    "steps in status",
    "The steps of a run that have one status.",
    select(*_LIGHT).where(steps.c.run_id == _p("run_id"), steps.c.status == _p("status")).order_by(steps.c.n),
    RECORD,
)
COUNTS = Statement(
    "counts",
    "How far a run is.",
    select(steps.c.status, func.count()).where(steps.c.run_id == _p("run_id")).group_by(steps.c.status),
    ("status", "count"),
)
OUTPUT = Statement("output", "The output of one step.", select(steps.c.n, steps.c.output).where(_STEP), ("n", "output"))
NAMED_OUTPUTS = Statement(
    "named outputs",
    "Names and outputs of all steps up to a number; for inputs made of many predecessors.",
    select(*_of("n", "name", "output")).where(
        steps.c.run_id == _p("run_id"), steps.c.n.between(_p("first"), _p("last"))
    ),
    ("n", "name", "output"),
)
# Two parts, since each of the partial indexes holds one: together they are read instead of the table.
_depth = [
    select(steps.c.queue, func.count()).where(_status(S.QUEUED), half).group_by(steps.c.queue)
    for half in (and_(steps.c.sent_at.is_(None), UNPARKED), steps.c.sent_at.is_not(None))
]
DEPTH = Statement(
    "depth",
    "How many steps are ready, by queue: those that wait, and those that are sent.",
    union_all(*_depth),
    ("queue", "count"),
)
_backlog = [
    select(steps.c.queue, steps.c.priority, func.count(), oldest)
    .where(_status(S.QUEUED), half)
    .group_by(steps.c.queue, steps.c.priority)
    for half, oldest in (
        (and_(steps.c.sent_at.is_(None), UNPARKED), null()),
        (steps.c.sent_at.is_not(None), func.min(steps.c.sent_at)),
    )
]
BACKLOG = Statement(
    "backlog",
    "How many steps are ready, by queue and priority, and since when the first of them is with the broker.",
    union_all(*_backlog),
    ("queue", "priority", "count", "sent_since"),
)
EDGES = Statement(
    "edges",
    "How the steps of a run hang together.",
    select(*_of("n", "waits_for", "feeds")).where(steps.c.run_id == _p("run_id")).order_by(steps.c.n),
    ("n", "waits_for", "feeds"),
)
OPEN_QUEUES = Statement(
    "open queues", "Where work is left.", select(steps.c.queue).where(_status(*OPEN)).distinct(), ("queue",)
)
GET_META = Statement(
    "get meta", "A fact about the store itself.", select(meta.c.value).where(meta.c.name == _p("name")), ("value",)
)
PUT_META = Statement("put meta", "A fact about the store itself.", insert(meta).values(_named(meta)))
