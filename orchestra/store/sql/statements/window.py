"""The window: which steps go to the broker, now, later and again."""

from typing import Any, cast

from sqlalchemy import and_, case, exists, func, null, select, text, union_all, update

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import steps
from orchestra.store.sql.statements.columns import DISPATCH, PICKED
from orchestra.store.sql.statements.joins import IS_BEHIND
from orchestra.store.sql.statements.log import ADDING_ALL, add_events
from orchestra.store.sql.statements.statement import UNPARKED, Statement, bare, in_status, of, p, quoted

_WAITING = and_(steps.c.queue == p("queue"), in_status(TaskStatus.QUEUED), steps.c.sent_at.is_(None), UNPARKED)
_SENT = and_(steps.c.queue == p("queue"), in_status(TaskStatus.QUEUED), steps.c.sent_at.is_not(None))


def picking(*conditions: Any, most: int | None = None) -> Any:
    """Return the update that sends the best waiting steps, all of one priority, as far as there is room, or at most so
    many of them (on PostgreSQL); it may depend on conditions."""
    # Not min(): PostgreSQL then reads all that waits unless its statistics are good.
    waiting = select(steps.c.priority).where(_WAITING, *conditions)
    first: Any = waiting.order_by(steps.c.priority).limit(bare("1")).cte("first")
    sent: Any = select(bare("1")).where(_SENT, steps.c.priority <= first.c.priority).limit(p("window")).subquery("sent")
    room: Any = select((p("window") - func.count()).label("room")).select_from(sent).cte("room")
    taken = room.c.room if most is None else func.least(room.c.room, bare(str(most)))
    best: Any = (
        select(steps.c.run_id, steps.c.n)
        .where(_WAITING, steps.c.priority == select(first.c.priority).scalar_subquery())
        .order_by(steps.c.rank.desc(), steps.c.created_at, steps.c.run_id, steps.c.n)
        .limit(select(taken).scalar_subquery())
        # PostgreSQL: what another transaction is picking is passed over. A CTE, since an IN may be run more than once.
        .with_for_update(of=steps, skip_locked=True)
        .cte("best")
    )
    is_best = and_(steps.c.run_id == best.c.run_id, steps.c.n == best.c.n)
    others: Any = select(bare("1")).where(_WAITING, steps.c.priority > first.c.priority).exists()
    picked = [
        *of(*DISPATCH, "rank", "created_at"),
        select(others).scalar_subquery().label("more"),
        select(room.c.room).scalar_subquery().label("room"),
    ]
    return cast("Any", update(steps).where(is_best).values(sent_at=p("now"))).returning(*picked)


def has_room_for(queue: Any, priority: Any) -> Any:
    """Return the condition that a step of this queue and priority may be sent: nothing goes before it, and there is
    room."""
    ahead: Any = steps.alias("ahead")
    in_queue = and_(ahead.c.queue == queue, ahead.c.priority <= priority, ahead.c.status == quoted(TaskStatus.QUEUED))
    waiting = select(bare("1")).where(in_queue, ahead.c.sent_at.is_(None), ahead.c.parked == bare("0"))
    sent: Any = select(bare("1")).where(in_queue, ahead.c.sent_at.is_not(None)).limit(p("window")).subquery("sent")
    return and_(~waiting.exists(), select(func.count()).select_from(sent).scalar_subquery() < p("window"))


_pick = picking()
PICK = Statement(
    "pick",
    "The best waiting steps, all of one priority, go to the broker as far as the window has room for that priority;"
    " never counts further than the window.",
    _pick,
    PICKED,
)
_other = steps.alias("other")
_others_waiting: Any = (
    select(bare("1"))
    .where(
        _other.c.queue == steps.c.queue,
        _other.c.status == quoted(TaskStatus.QUEUED),
        _other.c.sent_at.is_(None),
        _other.c.parked == bare("0"),
    )
    .correlate(steps)
)
_others_sent: Any = (
    select(func.count())
    .select_from(_other)
    .where(
        _other.c.queue == steps.c.queue,
        _other.c.status == quoted(TaskStatus.QUEUED),
        _other.c.sent_at.is_not(None),
        _other.c.priority <= steps.c.priority,
    )
    .correlate(steps)
    .scalar_subquery()
)
_has_room: Any = and_(UNPARKED, ~exists(_others_waiting), _others_sent < p("window"))
RELEASE_ONE = Statement(
    "release one",
    "A join with one body is complete: it goes to the broker at once, if nothing waits and the window has room.",
    update(steps)
    .where(IS_BEHIND)
    .values(
        status=quoted(TaskStatus.QUEUED),
        sent_at=case((_has_room, p("now")), else_=null()),
    )
    .returning(*of(*DISPATCH, "sent_at")),
    (*DISPATCH, "sent_at"),
)
_unheard = (
    select(steps.c.run_id, steps.c.n)
    .where(_SENT, steps.c.sent_at < p("before"))
    .order_by(steps.c.priority, steps.c.sent_at)
    .limit(p("room"))
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
        sent_at=p("now") + bare("(1 << steps.resends)"),
        resends=case((steps.c.resends < bare("5"), steps.c.resends + bare("1")), else_=steps.c.resends),
    )
    .returning(*of(*DISPATCH)),
    DISPATCH,
)
_due = (
    select(steps.c.run_id, steps.c.n)
    .where(in_status(TaskStatus.RETRYING), steps.c.due_at <= p("now"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
DUE = Statement(
    "due",
    "Retries whose time has come.",
    update(steps)
    .where(steps.c.run_id == _due.c.run_id, steps.c.n == _due.c.n)
    .values(status=quoted(TaskStatus.QUEUED), due_at=null())
    .returning(*of("run_id", "n", "queue", "key")),
    ("run_id", "n", "queue", "key"),
)
NEXT_DUE = Statement(
    "next due",
    "When the next retry is due.",
    select(func.min(steps.c.due_at)).where(in_status(TaskStatus.RETRYING)),
    ("due_at",),
)
PICK_AND_ADD_EVENTS = Statement(
    "pick and add events",
    "What most transactions end with.",
    _pick.add_cte(add_events.cte("logged")),
    PICKED,
)
PICK_AND_ADD_ALL = Statement(
    "pick and add all events",
    "What most transactions of several claims and records end with.",
    _pick.add_cte(text(ADDING_ALL).columns().cte("logged")),
    PICKED,
)
# Two parts, since each of the partial indexes holds one: together they are read instead of the table.
_depth = [
    select(steps.c.queue, func.count()).where(in_status(TaskStatus.QUEUED), half).group_by(steps.c.queue)
    for half in (and_(steps.c.sent_at.is_(None), UNPARKED), steps.c.sent_at.is_not(None))
]
DEPTH = Statement(
    "depth",
    "How many steps are ready, by queue: those that wait, and those that are sent.",
    union_all(*_depth),
    ("queue", "count"),
)
_nothing_before: Any = steps.c.generation + steps.c.attempts + steps.c.crashes == bare("0")
_ready_at_once: Any = and_(steps.c.waits_for.is_(None), steps.c.parent.is_(None), _nothing_before)
_ready_at: Any = case((_ready_at_once, steps.c.created_at), else_=steps.c.sent_at)
_backlog = [
    select(steps.c.queue, steps.c.priority, func.count(), sent_since, func.min(_ready_at))
    .where(in_status(TaskStatus.QUEUED), half)
    .group_by(steps.c.queue, steps.c.priority)
    for half, sent_since in (
        (and_(steps.c.sent_at.is_(None), UNPARKED), null()),
        (steps.c.sent_at.is_not(None), func.min(steps.c.sent_at)),
    )
]
BACKLOG = Statement(
    "backlog",
    "How many steps are ready, by queue and priority: those that wait here, and those with the broker.",
    union_all(*_backlog),
    ("queue", "priority", "count", "sent_since", "ready_since"),
)
