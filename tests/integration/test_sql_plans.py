"""No statement reads what is finished: the plans of all statements of the SQL store on a PostgreSQL full of it.

The planner is left as a server has it; the store's own sessions are steered further away from sequential scans.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Float, Integer, Table

from orchestra.engine.outcome import Rescheduled
from orchestra.model.record import ErrorInfo
from orchestra.store.contract import Claimed
from orchestra.store.sql import census, control, log, notes, results, retention, schema, statements, wide
from orchestra.store.sql.statements.statement import Statement
from orchestra.store.sql.store import SqlStore
from tests.graphs import create, layered

MODULES = (
    *(vars(statements)[name] for name in statements.__all__),
    control,
    log,
    notes,
    results,
    retention,
    wide,
    census,
)
ALL = [each for module in MODULES for each in vars(module).values() if isinstance(each, Statement)]
ALL += retention.DROP_OF_RUN
READS_ALL = {
    "open queues": "asked once by who waits for everything to end, not per step",
    "count runs": "for people: orchestra store info",
    "count steps": "for people: orchestra store info",
    "count events": "for people: orchestra store info",
    "first hole": "asked when a writer has stopped in the middle; reads the log behind a cursor in order",
}
PER_RUN = 4


@pytest.fixture(scope="module", params=[20_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def full(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[tuple[SqlStore, str]]:
    """A store with so many finished steps, and a run on its way in which there is something of everything."""
    import psycopg

    name = f"plans_{request.param}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        store = SqlStore(f"{postgres_url}?schema={name}")
        try:
            admin.execute(f"SET search_path = {name}")
            fill(
                admin, schema.runs, request.param // PER_RUN, id="'r' || i", status="'COMPLETED'", key="'rk' || i",
                created_at="i", completed_at="i + 1",
            )  # fmt: skip
            fill(
                admin, schema.steps, request.param, run_id=f"'r' || i / {PER_RUN}", n=f"i % {PER_RUN}", key="'k' || i",
                status="'COMPLETED'", queue="'q'", worker="'w' || i % 50", sent_at="NULL", due_at="NULL",
                waits_for=f"i % {PER_RUN}", parent="NULL", created_at="i",
            )  # fmt: skip
            fill(admin, schema.joins, request.param // 2, run_id="'r' || i / 2", number="i % 2", parts="'[1]'")
            fill(admin, schema.events, request.param * 2, seq="i + 1", run_id=f"'r' || i / {2 * PER_RUN}")
            admin.execute(f"SELECT setval(pg_get_serial_sequence('{name}.events', 'seq'), {request.param * 2} + 1)")
            run_id, messages = create(store, layered(3, 80))
            for message in messages[:10]:
                claimed = store.claim(message, "w1", 2.0)
                assert isinstance(claimed, Claimed)
                if message.step.n % 2:
                    store.record(claimed.claim, Rescheduled(ErrorInfo("E", "again"), 60.0), 3.0)
            admin.execute("ANALYZE")
            yield store, run_id
        finally:
            store.close()
            admin.execute(f"DROP SCHEMA {name} CASCADE")


def fill(admin: Any, table: Table, count: int, **values: str) -> None:
    """Insert rows made from a series ``i``; columns that are not given get something that they may hold."""
    for column in table.columns:
        if column.name not in values:
            plain = "0" if isinstance(column.type, Integer | Float) else "'x'"
            values[column.name] = "NULL" if column.nullable else plain
    names, sources = ", ".join(f'"{name}"' for name in values), ", ".join(values.values())
    admin.execute(f"INSERT INTO {table.name} ({names}) SELECT {sources} FROM generate_series(0, {count - 1}) i")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return a node of a plan and all below it."""
    yield plan
    for each in plan.get("Plans", []):
        yield from nodes(each)


def plan_of(store: SqlStore, statement: Statement, **known: object) -> list[dict[str, Any]]:
    """Return the nodes of a statement's plan with the values that it may have in the life of a store."""
    text, own = store._database.text(statement)
    binds = statement.clause.compile(dialect=store._database.dialect).binds
    values = {
        name: known.get(name, own.get(name, 1 if isinstance(bind.type, Integer | Float) else "x"))
        for name, bind in binds.items()
    }

    def explain(tx: Any) -> Any:
        tx.execute("SET LOCAL enable_seqscan = on")
        tx.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        return tx.execute("EXPLAIN (FORMAT JSON) " + text, {**values, **own}).fetchone()[0]

    found = store._database.write(explain)
    return list(nodes((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))


@pytest.mark.parametrize("statement", ALL, ids=lambda each: each.name)
def test_no_statement_reads_all_steps_runs_joins_or_events(full: tuple[SqlStore, str], statement: Statement) -> None:
    store, run_id = full
    found = plan_of(
        store, statement, run_id=run_id, queue="q", priority=5, window=64, room=8, now=4.0, before=4.0, limit=100,
        after=store.last_event() - 20, worker="w1", first=0, last=80, bite=1000, most=100,
        rows="[]", events="[]", lock=1, join=0, n=1, claim=1, generation=0,
    )  # fmt: skip
    scanned = {each["Relation Name"] for each in found if each["Node Type"] == "Seq Scan"}
    if statement.name not in READS_ALL:
        assert not scanned & {"steps", "runs", "joins", "events"}, json.dumps(found[0], indent=1)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("pick", "steps_waiting"),
        ("pick", "steps_sent"),
        ("pick and add events", "steps_waiting"),
        ("resend", "steps_sent"),
        ("due", "steps_due"),
        ("next due", "steps_due"),
        ("held", "steps_running"),
        ("orphans", "steps_running"),
    ],
)
def test_what_is_asked_all_the_time_reads_only_the_index_of_what_is_on_its_way(
    full: tuple[SqlStore, str], name: str, index: str
) -> None:
    store, run_id = full
    (statement,) = [each for each in ALL if each.name == name]
    found = plan_of(store, statement, run_id=run_id, queue="q", priority=5, window=64, room=8, worker="w1", now=4.0)
    assert index in {each.get("Index Name") for each in found}


def test_a_link_of_a_chain_reads_no_other_steps_of_its_run(full: tuple[SqlStore, str]) -> None:
    store, run_id = full
    (statement,) = [each for each in ALL if each.name == "link"]
    found = plan_of(
        store, statement, run_id=run_id, queue="q", priority=5, now=4.0, worker="w1", lock=1, join=0, n=1, claim=1,
        generation=0,
    )  # fmt: skip
    by_key = [each["Index Cond"] for each in found if each.get("Index Name") == "steps_pkey"]
    assert len(by_key) == 2
    assert all("(n = " in each for each in by_key), by_key
