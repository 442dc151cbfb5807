"""Every store keeps the contract."""

from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from orchestra.errors import StoreUnavailable
from orchestra.store.contract import Store
from orchestra.testing.contract import StoreContract
from orchestra.testing.watched import check_log
from tests.stores import open_url, store_url


class OfKind(StoreContract):
    """The suite over a store of one kind."""

    kind: str

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest) -> Iterator[Store]:
        yield from self.opened(store_url(self.kind, request))

    def opened(self, url: str) -> Iterator[Store]:
        store = open_url(url)
        yield store
        with suppress(StoreUnavailable):  # closed by the test
            check_log(store)
        store.close()


class TestMemoryStore(OfKind):
    kind = "memory"


class TestSqliteStore(OfKind):
    kind = "sqlite"


class TestPostgresStore(OfKind):
    kind = "postgresql"

    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[Store]:
        tables = f"{postgres_url}?schema=contract"  # shared, and emptied: to make them takes longer than a test
        empty(tables)
        yield from self.opened(tables)


class TestRedisStore(OfKind):
    kind = "redis"


def empty(url: str) -> None:
    """Delete what a store on PostgreSQL holds, if there is one, but for what says which tables it has."""
    database, _, schema = url.partition("?schema=")
    kept = {"meta", "alembic_version"}
    with psycopg.connect(database, autocommit=True) as admin:
        found = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]).fetchall()
        admin.execute("".join(f'DELETE FROM "{schema}"."{name}";' for (name,) in found if name not in kept))
