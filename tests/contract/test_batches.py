"""Batches of claims and records on PostgreSQL against the same made one after the other on SQLite."""

from typing import Any, cast

import pytest

from orchestra.store.contract import Recorded
from orchestra.store.sql.store import SqlStore
from tests.contract.test_redis_store import Pair, comparable
from tests.contract.test_stores import empty

SEEDS = 48


class Batches(Pair):
    """As one after the other, but for which of two steps of one name and time is found by that, what of a record is
    handed on first, and which of several records that end a run at once says so."""

    mosts = (64,)

    def both(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        return None if operation == "find_step" else super().both(operation, *args, **kwargs)

    def alike(self, value: Any) -> Any:
        answers = cast("list[Any]", value) if isinstance(value, list) else []
        if not any(isinstance(each, Recorded) for each in answers):
            return super().alike(value)
        ended = sorted(each.ended_run for each in answers if isinstance(each, Recorded) and each.ended_run)
        return ended, [
            (sorted(map(comparable, each.dispatches)), sorted(repr(its.claim) for _dispatch, its in each.onward))
            if isinstance(each, Recorded)
            else comparable(each)
            for each in answers
        ]


@pytest.mark.parametrize("block", range(6))
def test_the_same_batches_have_the_same_effects_as_one_after_the_other(postgres_url: str, block: int) -> None:
    for seed in range(block * SEEDS // 6, (block + 1) * SEEDS // 6):
        check_seed(postgres_url, seed)


def check_seed(url: str, seed: int, operations: int = 60) -> None:
    # Room for all: what waits is sent with the last record of a batch, and not with the first.
    tables = f"{url}?schema=batches"
    empty(tables)
    one_by_one, in_batches = SqlStore("sqlite://"), SqlStore(tables)
    pair = Batches(10_000 + seed, one_by_one, in_batches)
    actions = [pair.create, pair.claim, pair.claim, pair.record, pair.vanish, pair.cancel, pair.due]
    pair.create()
    for each in range(operations):
        pair.random.choice(actions + [pair.together] * 9)()
        pair.now += pair.random.choice([0.0, 0.0, 0.5, 2.0])
        if each % 10 == 9:
            pair.look()
    pair.look_at_events()
    one_by_one.close()
    in_batches.close()
