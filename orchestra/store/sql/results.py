"""Results: outputs that are too large for the rows of their steps, compressed in rows of their own.

The hot row then holds a marker that no JSON text can be. Who reads outputs reads the rows of the steps first, and the
bodies only where there is a marker, so that small outputs cost nothing.
"""

import zlib
from collections.abc import Mapping

from sqlalchemy import bindparam, insert, select

from orchestra.store.sql.database import Transaction
from orchestra.store.sql.schema import results
from orchestra.store.sql.statements.statement import Statement

LIMIT = 32_768
"""Default of the length of JSON text, in characters, up to which an output stays in the row of its step."""
MARKER = "@"
"""Stands in the row of a step for an output that is kept here."""
_LEVEL = 1  # JSON comes out a twentieth larger than at level 6, in half the time

_RUN = results.c.run_id == bindparam("run_id")
PUT_RESULT = Statement(
    "put result",
    "An output that is too large for the row of its step.",
    insert(results).values({column: bindparam(column.name) for column in results.columns}),
)
GET_RESULT_BODY = Statement(
    "get result body",
    "The output of one step.",
    select(results.c.body).where(_RUN, results.c.n == bindparam("n")),
    ("body",),
)
RESULT_BODIES = Statement(
    "result bodies",
    "The large outputs among those of all steps up to a number.",
    select(results.c.n, results.c.body).where(_RUN, results.c.n.between(bindparam("first"), bindparam("last"))),
    ("n", "body"),
)


class Packing:
    """Compresses the large outputs of one transaction, each once, however often the transaction is tried."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._packed: dict[str, bytes] = {}

    def body(self, output: str | None) -> bytes | None:
        """Return an output as it is kept here; None when it stays in the row of its step."""
        if output is None or len(output) <= self._limit:
            return None
        if output not in self._packed:
            # As Python has it: texts of users may hold half of a surrogate pair.
            self._packed[output] = zlib.compress(output.encode("utf-8", "surrogatepass"), _LEVEL)
        return self._packed[output]


def whole(tx: Transaction, run_id: str, n: int, output: str | None) -> str | None:
    """Return the output of a step, given what its row says; None also when the run was deleted in between."""
    if output != MARKER:
        return output
    body: bytes | None = tx.value(GET_RESULT_BODY, run_id=run_id, n=n)
    return None if body is None else _text(body)


def all_whole(tx: Transaction, run_id: str, outputs: Mapping[int, str | None]) -> dict[int, str]:
    """Return the outputs of steps whose numbers are close together, given what their rows say."""
    found = {n: output for n, output in outputs.items() if output is not None}
    large = {n for n, output in found.items() if output == MARKER}
    if not large:
        return found
    rows = tx.all(RESULT_BODIES, run_id=run_id, first=min(large), last=max(large))
    bodies = {n: _text(body) for n, body in rows if n in large}
    return {n: bodies[n] if n in large else output for n, output in found.items() if n not in large or n in bodies}


def _text(body: bytes) -> str:
    return zlib.decompress(body).decode("utf-8", "surrogatepass")
