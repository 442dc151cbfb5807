"""The census: how much a SQL store holds. It looks at everything, for people who ask."""

from sqlalchemy import func, select

from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import Census
from orchestra.store.sql.database import Transaction
from orchestra.store.sql.schema import events, runs, steps
from orchestra.store.sql.statements.statement import Statement

COUNT_RUNS = Statement(
    "count runs",
    "How many runs have each status.",
    select(runs.c.status, func.count()).group_by(runs.c.status),
    ("status", "count"),
)
COUNT_STEPS = Statement("count steps", "How many steps there are.", select(func.count()).select_from(steps), ("count",))
COUNT_EVENTS = Statement(
    "count events", "How many rows the log has.", select(func.count()).select_from(events), ("count",)
)


def take(tx: Transaction) -> Census:
    """Count everything."""
    counted = {WorkflowStatus(status): count for status, count in tx.all(COUNT_RUNS)}
    return Census(counted, tx.value(COUNT_STEPS), tx.value(COUNT_EVENTS), tx.size())
