"""The statements of task results: each has a name and a sentence, like those of ``statements``."""

from functools import cache
from typing import Any, cast

from sqlalchemy import Float, Text, and_, bindparam, case, delete, func, literal_column, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert  # the clause that SQLite has taken over from it

from orchestra.store.sql.schema import chord_parts, chords, task_groups, task_results
from orchestra.store.sql.statements.statement import Statement
from orchestra.store.task_results import SUCCESS

_p: Any = bindparam
_NOW: Any = bindparam("now", type_=Float)
_LIMIT: Any = _p("limit")
TOLD = 1000
"""Payloads of fewer bytes travel with the word that they are there; all who wait get them."""


def _sql(value: str | int) -> Any:
    """Return a constant, written as the partial indexes write it."""
    return cast("Any", literal_column(repr(value)))


def _all(table: Any) -> dict[str, Any]:
    return {column.name: bindparam(column.name) for column in table.columns}


# --- results and groups --------------------------------------------------------------------------------------------

_put_result = insert(task_results).values(_all(task_results))
_put_unless_succeeded = _put_result.on_conflict_do_update(
    index_elements=[task_results.c.task_id],
    set_={name: _put_result.excluded[name] for name in ("state", "payload", "expires_at")},
    where=or_(task_results.c.state != _sql(SUCCESS), task_results.c.expires_at <= _NOW),
)
PUT_RESULT = Statement(
    "put task result", "A task has a new state, unless it has succeeded before.", _put_unless_succeeded
)
_was_put: Any = _put_unless_succeeded.returning(task_results.c.task_id, task_results.c.payload).cte("was_put")
_is_short = and_(func.length(_was_put.c.task_id) < _sql(1000), func.length(_was_put.c.payload) < _sql(TOLD))
_base64 = func.encode(_was_put.c.payload, _sql("base64"))
PUT_AND_TELL = Statement(
    "put and tell task result",
    "The same on a server, which tells who waits; a short payload goes along, so that nobody has to read it.",
    select(
        func.pg_notify(
            _p("channel", type_=Text),
            func.concat(_was_put.c.task_id, _sql(" "), case((_is_short, _base64), else_=_sql(""))),
        )
    ),
)


@cache
def results_among(number: int) -> Statement:
    """Return the statement that reads as many results; it asks for ``id_0``, ``id_1`` and so on."""
    ids = [_p(f"id_{at}") for at in range(number)]
    return Statement(
        f"results among {number}",
        "Results that somebody waits for or asks for.",
        select(task_results.c.task_id, task_results.c.payload).where(
            task_results.c.task_id.in_(ids) if number > 1 else task_results.c.task_id == ids[0],
            or_(task_results.c.expires_at.is_(None), task_results.c.expires_at > _NOW),
        ),
        ("task_id", "payload"),
    )


FORGET_RESULT = Statement(
    "forget result", "Its user has it.", delete(task_results).where(task_results.c.task_id == _p("task_id"))
)
_put_group = insert(task_groups).values(_all(task_groups))
PUT_GROUP = Statement(
    "put group",
    "A user saves what a group consists of.",
    _put_group.on_conflict_do_update(
        index_elements=[task_groups.c.group_id],
        set_={name: _put_group.excluded[name] for name in ("payload", "expires_at")},
    ),
)
GET_GROUP = Statement(
    "get group",
    "A user restores one.",
    select(task_groups.c.payload).where(
        task_groups.c.group_id == _p("group_id"),
        or_(task_groups.c.expires_at.is_(None), task_groups.c.expires_at > _NOW),
    ),
)
FORGET_GROUP = Statement(
    "forget group", "Its user needs it no more.", delete(task_groups).where(task_groups.c.group_id == _p("group_id"))
)

# --- chords --------------------------------------------------------------------------------------------------------

_CHORD = chords.c.group_id == _p("group_id")
_OPEN = chords.c.status == _sql("OPEN")
_COMPLETE = chords.c.status == _sql("COMPLETE")
_DONE = chords.c.status == _sql("DONE")
_CLAIMED = and_(_CHORD, _COMPLETE, chords.c.claims == _p("claim"))
_FRESH: dict[str, Any] = {
    "status": _sql("OPEN"), "size": null(), "grown": _sql(0), "counted": _sql(0),
    "due_at": null(), "callback": null(),
}  # fmt: skip

PUT_CHORD = Statement("put chord", "The first word about a chord.", insert(chords).values(_all(chords)))
RENEW_CHORD = Statement(
    "begin chord anew",
    "A chord is sent again; who holds a claim on the one before must not end this one.",
    update(chords)
    .where(_CHORD)
    .values(**_FRESH, header=_p("new_header"), claims=chords.c.claims + _sql(1), expires_at=_p("new_expiry"))
    .returning(chords.c.claims),
)
SIZE_CHORD = Statement(
    "size chord",
    "How many parts a chord has; one that is done begins anew.",
    update(chords)
    .where(_CHORD)
    .values(
        size=_p("new_size"),
        expires_at=_p("new_expiry"),
        status=case((_DONE, _sql("OPEN")), else_=chords.c.status),
        grown=case((_DONE, _sql(0)), else_=chords.c.grown),
        counted=case((_DONE, _sql(0)), else_=chords.c.counted),
    )
    .returning(chords.c.claims),
)
GROW_CHORD = Statement(
    "grow chord",
    "A part adds another one.",
    update(chords)
    .where(_CHORD)
    .values(grown=chords.c.grown + _sql(1), expires_at=_p("new_expiry"))
    .returning(chords.c.claims),
)
PUT_PART = Statement(
    "put part",
    "A part has ended; one that has ended before keeps its first payload.",
    insert(chord_parts).values(_all(chord_parts)).on_conflict_do_nothing().returning(chord_parts.c.place),
)
COUNT_PART = Statement(
    "count part",
    "One part more of a chord that is open.",
    update(chords)
    .where(_CHORD, _OPEN)
    .values(counted=chords.c.counted + _sql(1), expires_at=_p("new_expiry"))
    .returning(chords.c.counted, chords.c.size, chords.c.grown),
)
HAS_CHORD = Statement("has chord", "Whether anything is known of it.", select(chords.c.status).where(_CHORD))
TAKE_PART_BACK = Statement(
    "take part back",
    "Its chord is over, nobody will read it.",
    delete(chord_parts).where(
        chord_parts.c.group_id == _p("group_id"),
        chord_parts.c.place == _p("place"),
        chord_parts.c.task_id == _p("task_id"),
    ),
)
COMPLETE_CHORD = Statement(
    "complete chord",
    "The last part was counted; who counted it publishes the callback, or whoever finds it overdue.",
    update(chords)
    .where(_CHORD)
    .values(
        status=_sql("COMPLETE"),
        callback=_p("new_callback"),
        claims=chords.c.claims + _sql(1),
        due_at=_p("new_due"),
    )
    .returning(chords.c.claims),
)
CALLBACK = Statement(
    "callback", "What is to be published for a claim.", select(chords.c.callback, chords.c.header).where(_CLAIMED)
)
PARTS = Statement(
    "parts",
    "What the parts of a chord came to, in order.",
    select(chord_parts.c.payload)
    .where(chord_parts.c.group_id == _p("group_id"))
    .order_by(chord_parts.c.place, chord_parts.c.task_id),
)
HOLD_CHORD = Statement(
    "hold chord",
    "Whoever publishes needs longer.",
    update(chords).where(_CLAIMED).values(due_at=_p("new_due")).returning(chords.c.claims),
)
END_CHORD = Statement(
    "end chord",
    "The callback is published. The row stays, so that late copies of parts find it.",
    update(chords)
    .where(_CLAIMED)
    .values(status=_sql("DONE"), callback=null(), due_at=null())
    .returning(chords.c.claims),
)
DROP_PARTS = Statement(
    "drop parts", "They were joined.", delete(chord_parts).where(chord_parts.c.group_id == _p("group_id"))
)
OVERDUE = Statement(
    "overdue chords",
    "Chords whose publisher may be dead.",
    select(chords.c.group_id).where(_COMPLETE, chords.c.due_at <= _NOW).order_by(chords.c.due_at).limit(_LIMIT),
)
TAKE_OVER = Statement(
    "take chord over",
    "Unless another one was faster.",
    update(chords)
    .where(_CHORD, _COMPLETE, chords.c.due_at <= _NOW)
    .values(claims=chords.c.claims + _sql(1), due_at=_p("new_due"))
    .returning(chords.c.claims),
)

# --- expiry --------------------------------------------------------------------------------------------------------


def _expired(table: Any) -> Any:
    key = next(iter(table.primary_key))
    return delete(table).where(key.in_(select(key).where(table.c.expires_at <= _NOW).limit(_LIMIT))).returning(key)


EXPIRE_RESULTS = Statement("expire results", "Nobody asked for them in time.", _expired(task_results))
EXPIRE_GROUPS = Statement("expire groups", "Nobody asked for them in time.", _expired(task_groups))
EXPIRE_CHORDS = Statement("expire chords", "They are over, or will never be.", _expired(chords))
