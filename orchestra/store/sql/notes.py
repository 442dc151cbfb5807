"""Notes: what running steps write down: checkpoints, progress and log lines."""

from collections.abc import Mapping, Sequence

from sqlalchemy import and_, bindparam, delete, insert, literal_column, select

from orchestra.model.ids import StepRef
from orchestra.model.record import LogLine, Progress
from orchestra.store.notes import MOST_LINES, line_of, line_text, progress_of, progress_text
from orchestra.store.sql.database import Database, Transaction
from orchestra.store.sql.schema import checkpoints, logs, progress, steps
from orchestra.store.sql.statements.statement import HOLDS_CLAIM, Statement
from orchestra.store.values import ClaimRef

_p = bindparam
HOLDS = Statement(
    "holds",
    "Whether a claim is still the newest, and nobody takes the step from it before it has written.",
    select(steps.c.n).where(HOLDS_CLAIM).with_for_update(),
    ("n",),
)


_SAVED = and_(checkpoints.c.run_id == _p("run_id"), checkpoints.c.n == _p("n"))
_TOLD = and_(progress.c.run_id == _p("run_id"), progress.c.n == _p("n"))
_LOGGED = logs.c.run_id == _p("run_id")
DROP_CHECKPOINT = Statement(
    "drop checkpoint",
    "What was saved under a key is about to be replaced.",
    delete(checkpoints).where(_SAVED, checkpoints.c.key == _p("key")),
)
ADD_CHECKPOINT = Statement(
    "add checkpoint",
    "What a body saves.",
    insert(checkpoints).values({column: _p(column.name) for column in checkpoints.columns}),
)
CHECKPOINTS = Statement(
    "checkpoints",
    "What a step has saved.",
    select(checkpoints.c.key, checkpoints.c.value).where(_SAVED),
    ("key", "value"),
)
RUN_CHECKPOINTS = Statement(
    "run checkpoints",
    "What all steps of a run have saved.",
    select(checkpoints.c.n, checkpoints.c.key, checkpoints.c.value)
    .where(checkpoints.c.run_id == _p("run_id"))
    .order_by(checkpoints.c.n),
    ("n", "key", "value"),
)
RUN_CHECKPOINTS_OF_KEY = Statement(
    "run checkpoints of key",
    "What all steps of a run have saved under one key, which may be little beside the rest.",
    select(checkpoints.c.n, checkpoints.c.key, checkpoints.c.value)
    .where(checkpoints.c.run_id == _p("run_id"), checkpoints.c.key == _p("key"))
    .order_by(checkpoints.c.n),
    ("n", "key", "value"),
)
DROP_PROGRESS = Statement(
    "drop progress", "What a body told before is about to be replaced.", delete(progress).where(_TOLD)
)
ADD_PROGRESS = Statement(
    "add progress",
    "How far a body says that it is.",
    insert(progress).values({column: _p(column.name) for column in progress.columns}),
)
PROGRESS = Statement(
    "progress",
    "How far the steps of a run say that they are.",
    select(progress.c.n, progress.c.told).where(progress.c.run_id == _p("run_id")),
    ("n", "told"),
)
ADD_LINE = Statement(
    "add line",
    "A line that a body logged.",
    insert(logs).values({column: _p(column.name) for column in logs.columns if column.name != "seq"}),
)
OLDEST_KEPT = Statement(
    "oldest kept",
    "Where the lines begin that are too many of a run.",
    select(logs.c.seq).where(_LOGGED).order_by(logs.c.seq.desc()).limit(literal_column("1")).offset(_p("most")),
    ("seq",),
)
DROP_LINES = Statement("drop lines", "The oldest lines of a run.", delete(logs).where(_LOGGED, logs.c.seq <= _p("seq")))
LINES = Statement(
    "lines",
    "The newest lines of a run.",
    select(logs.c.n, logs.c.line).where(_LOGGED).order_by(logs.c.seq.desc()).limit(_p("limit")),
    ("n", "line"),
)


def save_checkpoint(database: Database, claim: ClaimRef, key: str, value: str) -> bool:
    """See the contract."""

    def block(tx: Transaction) -> bool:
        if not _holds(tx, claim):
            return False
        step = {"run_id": claim.ref.step.run_id, "n": claim.ref.step.n, "key": key}
        tx.run(DROP_CHECKPOINT, **step)
        tx.run(ADD_CHECKPOINT, **step, value=value)
        return True

    return database.write(block)


def read_checkpoints(database: Database, ref: StepRef) -> dict[str, str]:
    """See the contract."""
    rows = database.read(lambda tx: tx.all(CHECKPOINTS, run_id=ref.run_id, n=ref.n))
    return {str(key): str(value) for key, value in rows}


def read_run_checkpoints(database: Database, run_id: str, key: str | None) -> dict[int, dict[str, str]]:
    """See the contract."""
    found: dict[int, dict[str, str]] = {}
    statement, named = (RUN_CHECKPOINTS, {}) if key is None else (RUN_CHECKPOINTS_OF_KEY, {"key": key})
    for n, name, value in database.read(lambda tx: tx.all(statement, run_id=run_id, **named)):
        found.setdefault(n, {})[str(name)] = str(value)
    return found


def tell(database: Database, claim: ClaimRef, told: Progress | None, lines: Sequence[LogLine]) -> bool:
    """See the contract."""

    def block(tx: Transaction) -> bool:
        if not _holds(tx, claim):
            return False
        run_id, n = claim.ref.step
        if told is not None:
            tx.run(DROP_PROGRESS, run_id=run_id, n=n)
            tx.run(ADD_PROGRESS, run_id=run_id, n=n, told=progress_text(told))
        if lines:
            tx.many(ADD_LINE, [{"run_id": run_id, "n": line.n, "line": line_text(line)} for line in lines])
            too_many = tx.value(OLDEST_KEPT, run_id=run_id, most=MOST_LINES)
            if too_many is not None:
                tx.run(DROP_LINES, run_id=run_id, seq=too_many)
        return True

    return database.write(block)


def read_progress(database: Database, run_id: str) -> Mapping[int, Progress]:
    """See the contract."""
    rows = database.read(lambda tx: tx.all(PROGRESS, run_id=run_id))
    return {n: progress_of(told) for n, told in rows}


def read_logs(database: Database, run_id: str, n: int | None, limit: int) -> list[LogLine]:
    """See the contract."""
    rows = database.read(lambda tx: tx.all(LINES, run_id=run_id, limit=limit if n is None else MOST_LINES))
    found = [line_of(text) for its, text in reversed(rows) if n in (None, its)]
    return found[max(0, len(found) - limit) :]


def _holds(tx: Transaction, claim: ClaimRef) -> bool:
    (step, generation), number = claim
    found = tx.one(HOLDS, run_id=step.run_id, n=step.n, generation=generation, claim=number)
    return found is not None
