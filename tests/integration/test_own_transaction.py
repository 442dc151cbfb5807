"""Submitting in the caller's own SQL transaction: the run exists if and only if that commits."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from orchestra import Orchestrator, Task, Workflow
from orchestra.errors import InvalidOption, UnknownId
from tests.stores import store_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return store_url(request.param, request)


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with Orchestrator(store=url) as orch:
        yield orch


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    plain = url.partition("?")[0].replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(plain)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS own_orders (n integer)"))
        connection.execute(text("DELETE FROM own_orders"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE own_orders"))
    engine.dispose()


def add_order(connection: Connection, n: int) -> None:
    connection.execute(text("INSERT INTO own_orders VALUES (:n)"), {"n": n})


def test_a_run_is_there_when_the_caller_commits_and_runs_then(orch: Orchestrator, engine: Engine) -> None:
    with engine.begin() as connection:
        add_order(connection, 1)
        sent = orch.submit(len, "abc", connection=connection)
        run = orch.submit_workflow(Workflow("W", [Task("A", len, "ab")]), connection=connection)
        add_order(connection, 2)
        for each in (sent.id, run.id):
            with pytest.raises(UnknownId):
                orch.get_run(each)
    assert sent.wait(30).output == 3
    assert run.wait(30).output == 2
    assert sent.attempts == 1


def test_a_run_is_not_there_when_the_caller_rolls_back(orch: Orchestrator, engine: Engine) -> None:
    with engine.connect() as connection:
        sent = orch.submit(len, "abc", connection=connection)  # begins the transaction
        add_order(connection, 1)
        connection.rollback()
        with pytest.raises(UnknownId):
            orch.get_run(sent.id)
        again = orch.submit(len, "abcd", connection=connection)
        connection.commit()
    assert again.wait(30).output == 4
    assert [run.id for run in orch.runs()] == [again.id]


def test_the_callers_transaction_is_left_as_it_was(orch: Orchestrator, engine: Engine) -> None:
    with engine.begin() as connection:
        first = orch.submit(len, "abc", key="k", connection=connection)
        second = orch.submit(len, "abc", key="k", connection=connection)
        assert second.id == first.id
        add_order(connection, 1)
        assert connection.execute(text("SELECT count(*) FROM own_orders")).scalar() == 1
    assert first.wait(30).output == 3


def test_other_connections_and_stores_are_refused(orch: Orchestrator, engine: Engine) -> None:
    with pytest.raises(InvalidOption, match="Connection of SQLAlchemy"):
        orch.submit(len, "abc", connection=engine)
    with create_engine("sqlite://").connect() as elsewhere, pytest.raises(InvalidOption, match="database of the store"):
        orch.submit(len, "abc", connection=elsewhere)
    with (
        Orchestrator(store="memory://") as other,
        engine.connect() as connection,
        pytest.raises(InvalidOption, match="a store in a SQL database"),
    ):
        other.submit(len, "abc", connection=connection)
    assert orch.runs() == []
