"""Every store keeps the contract."""

from collections.abc import Iterator
from contextlib import suppress

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
        store = open_url(store_url(self.kind, request))
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


class TestRedisStore(OfKind):
    kind = "redis"
