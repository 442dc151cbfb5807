"""Listings whose conditions vary: built by SQLAlchemy for each call."""

from typing import Any

from sqlalchemy import select

from orchestra.store.contract import RunFilter
from orchestra.store.sql.database import Row, Transaction
from orchestra.store.sql.rows import error_of, loads
from orchestra.store.sql.schema import runs
from orchestra.store.sql.statements.columns import RUN
from orchestra.store.sql.statements.statement import Statement

_PAGE = 500
_METADATA, _ERROR = RUN.index("metadata"), RUN.index("error")


def runs_where(tx: Transaction, where: RunFilter) -> list[Row]:
    """Return the newest runs that meet all conditions, in the columns RUN.

    Metadata is compared here and not in SQL: it is text to the database, and the other conditions come first.
    """
    found: list[Row] = []
    offset = 0
    while len(found) < where.limit:
        rows = _page(tx, where, offset)
        found += [
            row for row in rows if _has(loads(row[_METADATA]) or {}, where) and where.has_error(error_of(row[_ERROR]))
        ]
        if len(rows) < _PAGE:
            break
        offset += _PAGE
    return found[: where.limit]


def _has(data: dict[str, Any], where: RunFilter) -> bool:
    return all(key in data and data[key] == value for key, value in where.metadata.items())


def _page(tx: Transaction, where: RunFilter, offset: int) -> list[Row]:
    query = select(*[runs.c[name] for name in RUN]).order_by(runs.c.created_at.desc(), runs.c.id.desc())
    if where.status is not None:
        query = query.where(runs.c.status == where.status.value)
    if where.name is not None:
        query = query.where(runs.c.name == where.name)
    if where.job_id is not None:
        query = query.where(runs.c.job_id == where.job_id)
    if where.since is not None:
        query = query.where(runs.c.created_at >= where.since)
    return tx.listing(
        Statement("runs where", "The newest runs that meet some conditions.", query.limit(_PAGE).offset(offset), RUN)
    )
