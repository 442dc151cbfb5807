"""Statements, and the pieces that they are built from."""

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Dialect, and_, bindparam, literal_column

from orchestra.model.status import TaskStatus
from orchestra.store.sql.schema import runs, steps

p: Any = bindparam
FEW = "{0}.run_id || '' = {0}.run_id"
"""Always true. The planner thinks that there are few such rows, and looks each of them up: it would guess a hundred."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One named statement. Results come as tuples in the order of ``columns``."""

    name: str
    why: str
    clause: Any
    columns: tuple[str, ...] = ()
    table: str | None = None
    """Where it inserts rows of nothing but its parameters: the table, into which many may be copied."""

    def compile(self, dialect: Dialect) -> tuple[str, dict[str, object]]:
        """Return its text in a dialect, and the values that SQLAlchemy itself put in (such as OFFSET 0).

        All other parameters are named and have to be given.
        """
        compiled = self.clause.compile(dialect=dialect)
        own = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required and bind.value is not None
        }
        return str(compiled), own


def bare(expression: str) -> Any:
    """Return a piece of SQL that needs no parameter."""
    return cast("Any", literal_column(expression))


def quoted(value: str) -> Any:
    """Return a text that is part of the statement."""
    return bare(f"'{value}'")


def in_status(*statuses: TaskStatus) -> Any:
    """Return the condition that a step has one of these statuses."""
    if len(statuses) == 1:
        # Written as the partial indexes write it, or the planner does not see that they apply.
        return steps.c.status == quoted(statuses[0])
    return steps.c.status.in_([quoted(each) for each in sorted(statuses)])


def named(table: Any) -> dict[Any, Any]:
    """Return a parameter of the same name for every column of a table."""
    return {column: bindparam(column.name) for column in table.columns}


def of(*names: str) -> list[Any]:
    """Return columns of the steps."""
    return [steps.c[name] for name in names]


THIS_RUN = runs.c.id == p("run_id")
THIS_STEP = and_(steps.c.run_id == p("run_id"), steps.c.n == p("n"))
HOLDS_CLAIM = and_(
    THIS_STEP,
    steps.c.claims == p("claim"),
    steps.c.generation == p("generation"),
    in_status(TaskStatus.RUNNING),
)
UNPARKED = steps.c.parked == bare("0")
