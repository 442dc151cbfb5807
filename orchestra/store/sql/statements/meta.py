"""Facts about the store itself."""

from sqlalchemy import insert, select

from orchestra.store.sql.schema import meta
from orchestra.store.sql.statements.statement import Statement, named, p

GET_META = Statement(
    "get meta", "A fact about the store itself.", select(meta.c.value).where(meta.c.name == p("name")), ("value",)
)
PUT_META = Statement("put meta", "A fact about the store itself.", insert(meta).values(named(meta)))
