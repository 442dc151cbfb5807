"""Every store keeps the contract of task results."""

from collections.abc import Iterator

import pytest

from orchestra.result_backend import open_task_results
from orchestra.store.task_results import TaskResults
from orchestra.testing.contract import TaskResultsContract
from tests.stores import store_url


class OfKind(TaskResultsContract):
    """The suite over a store of one kind."""

    kind: str

    @pytest.fixture
    def results(self, request: pytest.FixtureRequest) -> Iterator[TaskResults]:
        results = open_task_results(store_url(self.kind, request))
        yield results
        results.close()


class TestMemoryResults(OfKind):
    kind = "memory"


class TestSqliteResults(OfKind):
    kind = "sqlite"


class TestPostgresResults(OfKind):
    kind = "postgresql"


class TestRedisResults(OfKind):
    kind = "redis"
