"""Cursors: how far named subscribers have read the log."""

from sqlalchemy import and_, bindparam, delete, insert, or_, select, update

from orchestra.store.cursors import Cursor
from orchestra.store.sql.database import Database, Transaction
from orchestra.store.sql.schema import cursors
from orchestra.store.sql.statements.statement import Statement

_p = bindparam
_NAMED = cursors.c.name == _p("name")
GET_CURSOR = Statement(
    "get cursor",
    "How far a subscriber has read, and who reads for it.",
    select(cursors.c.seq, cursors.c.holder).where(_NAMED),
    ("seq", "holder"),
)
ADD_CURSOR = Statement(
    "add cursor", "A subscriber that is new.", insert(cursors).values({each: _p(each.name) for each in cursors.columns})
)
HOLD_CURSOR = Statement(
    "hold cursor",
    "Somebody reads for a subscriber, unless another one does.",
    update(cursors)
    .where(
        _NAMED,
        or_(
            cursors.c.holder.in_([_p("me"), _p("instead_of")]),
            cursors.c.held_until <= _p("now"),
        ),
    )
    .values(holder=_p("me"), held_until=_p("until")),
)
MOVE_CURSOR = Statement(
    "move cursor",
    "A subscriber has read on.",
    update(cursors)
    .where(and_(_NAMED, cursors.c.holder == _p("me")))
    .values(seq=_p("seq"), held_until=_p("until"))
    .returning(cursors.c.name),
    ("name",),
)
DROP_CURSOR = Statement(
    "drop cursor", "A subscriber is forgotten.", delete(cursors).where(_NAMED).returning(cursors.c.name), ("name",)
)
_LOCK = "orchestra cursors"


def take(database: Database, name: str, holder: str, start: int, now: float, until: float, instead_of: str) -> Cursor:
    """See the contract."""

    def block(tx: Transaction) -> Cursor:
        tx.lock(_LOCK, alone=True)  # two that are new at the same time
        if tx.one(GET_CURSOR, name=name) is None:
            tx.run(ADD_CURSOR, name=name, seq=start, holder=holder, held_until=until)
        else:
            tx.run(HOLD_CURSOR, name=name, me=holder, instead_of=instead_of or holder, now=now, until=until)
        row = tx.one(GET_CURSOR, name=name)
        assert row is not None, name
        return Cursor(*row)

    return database.write(block)


def move(database: Database, name: str, holder: str, seq: int, until: float) -> bool:
    """See the contract."""
    return database.write(lambda tx: tx.one(MOVE_CURSOR, name=name, me=holder, seq=seq, until=until) is not None)


def drop(database: Database, name: str) -> bool:
    """See the contract."""
    return database.write(lambda tx: tx.one(DROP_CURSOR, name=name) is not None)
