"""Wide joins: counted in shards, so that those who record parts of one join do not wait for each other.

The row of a join is locked until the transaction that counted on it is on the disk. The parts of a wide join count on
one of several rows, and only the last part of a shard counts on the row of the join, which has the number of shards
as its number of parts. A join that one way may release is not sharded: every way of it may decide.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import insert, update

from orchestra.engine.join import Arrivals, Way
from orchestra.engine.rows import JoinRow
from orchestra.store.sql.database import Transaction
from orchestra.store.sql.schema import shards
from orchestra.store.sql.statements.joins import COUNT_JOIN, SHARDS, WIDE
from orchestra.store.sql.statements.statement import Statement, bare, named, p

ADD_SHARD = Statement(
    "add shard",
    "Some of the parts of a wide join, none of them done.",
    insert(shards).values(named(shards)),
)
COUNT_SHARD = Statement(
    "count shard",
    "One part of a wide join has ended.",
    update(shards)
    .where(shards.c.run_id == p("run_id"), shards.c.number == p("number"), shards.c.shard == p("shard"))
    .values(
        remaining=shards.c.remaining - bare("1"),
        live=shards.c.live + p("live"),
        broken=shards.c.broken + p("broken"),
        dead=shards.c.dead + p("dead"),
    )
    .returning(shards.c.remaining, shards.c.live, shards.c.broken, shards.c.dead),
    ("remaining", "live", "broken", "dead"),
)


def is_wide(join: JoinRow) -> bool:
    """Whether a join is counted in shards."""
    return len(join.parts) > WIDE and not join.any


def to_count(join: JoinRow) -> int:
    """Return what is counted on the row of a join: its parts, or their shards."""
    return sum(1 for _shard in shard_rows("", join)) if is_wide(join) else len(join.parts)


def shard_rows(run_id: str, join: JoinRow) -> Iterator[dict[str, object]]:
    """Give the rows of the shards of a wide join. Parts that follow each other are in different ones."""
    sizes: dict[int, int] = {}
    for part in join.parts:
        sizes[part % SHARDS] = sizes.get(part % SHARDS, 0) + 1
    for shard, size in sorted(sizes.items()):
        about = {"run_id": run_id, "number": join.number, "shard": shard}
        yield {**about, "remaining": size, "live": 0, "broken": 0, "dead": ""}


def count(tx: Transaction, run_id: str, join: int, way: Way, part: int, parts: int | None) -> Arrivals:
    """Count a part of a join of so many, of which one alone does not decide; of any, where None is given."""
    live, broken, dead = int(way is Way.LIVE), int(way is Way.BROKEN), "" if way is Way.LIVE else f",{part}"
    if parts is not None and parts > WIDE:
        shard = part % SHARDS
        row = tx.one(COUNT_SHARD, run_id=run_id, number=join, shard=shard, live=live, broken=broken, dead=dead)
        assert row is not None, (run_id, join, shard)
        remaining, live, broken, dead = row
        if remaining:
            return Arrivals(remaining, live, broken)
    row = tx.one(COUNT_JOIN, run_id=run_id, number=join, live=live, broken=broken, dead=dead)
    assert row is not None, (run_id, join)
    return Arrivals(row[0], row[1], row[2], bool(row[3]))


def set_back(
    run_id: str, number: int, parts: Sequence[int], any_way: bool, again: Collection[int], dead: Collection[int]
) -> list[dict[str, Any]]:
    """Return the rows of the shards of a join of which some parts run again; none where it is counted in one row."""
    join = JoinRow(number, parts, any_way)
    if not is_wide(join):
        return []
    rows = {int(str(row["shard"])): {**row, "remaining": 0} for row in shard_rows(run_id, join)}
    found: dict[int, dict[str, Any]] = dict(rows)
    for part in parts:
        row = found[part % SHARDS]
        if part in again:
            row["remaining"] += 1
        elif part in dead:
            row["dead"] += f",{part}"
        else:
            row["live"] += 1
    for row in found.values():
        del row["broken"]
    return list(found.values())
