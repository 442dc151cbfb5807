"""The result backend that Celery finds under ``orchestra+…://``, also for those who use nothing else of Orchestra."""

from weakref import WeakSet

from orchestra.errors import SettingsError
from orchestra.runtime.result_backend import StoreResultBackend
from orchestra.store.task_results import TaskResults

_GONE_WITH_THEIR_PROCESS = ("sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:")


def open_task_results(url: str) -> TaskResults:
    """Open the store that keeps results.

    Args:
        url: As ``store=`` of an Orchestrator takes it, without ``orchestra+``.

    Raises:
        SettingsError: It is of no kind that is supported.
        StoreUnavailable: It does not answer.
    """
    kind = url.partition(":")[0]
    if url == "memory://":
        from orchestra.store.memory.task_results import MemoryTaskResults

        return MemoryTaskResults()
    if kind in ("redis", "rediss", "unix"):
        from orchestra.store.redis.task_results import RedisTaskResults

        return RedisTaskResults(url)
    if kind in ("sqlite", "postgresql", "postgresql+psycopg") and url not in _GONE_WITH_THEIR_PROCESS:
        from orchestra.store.sql.task_results import SqlTaskResults  # SQLAlchemy takes long to import

        return SqlTaskResults(url)
    raise SettingsError(
        f"result_backend='orchestra+{kind}:…' is not possible: expected orchestra+sqlite:////path/to/file.db,"
        " orchestra+postgresql://user@host/database, orchestra+redis://host/0 or, inside one process, orchestra+memory://"
    )


class OpenStores:
    """The stores that are open in this process: applications that name the same one share its connections.

    An application that is dropped without being closed, as those of tests are, leaves its store to the next one.
    """

    def __init__(self) -> None:
        self._stores: dict[str, TaskResults] = {}
        self._holders: dict[str, WeakSet[object]] = {}

    def take(self, url: str, holder: object) -> TaskResults:
        """Return the store of a URL."""
        # No lock: a process may fork at any time. Where two open it at once, both have one, and the first is kept.
        store = self._stores.get(url) or self._stores.setdefault(url, open_task_results(url))
        self._holders.setdefault(url, WeakSet()).add(holder)
        return store

    def give_back(self, url: str, holder: object) -> None:
        """Close the store of a URL if nobody else holds it."""
        holders = self._holders.get(url, WeakSet[object]())
        holders.discard(holder)
        if not holders and url in self._stores:
            self._stores.pop(url).close()


class ResultBackend(StoreResultBackend):
    """``Celery(backend="orchestra+postgresql://…")``."""

    stores = OpenStores()

    def _open(self) -> TaskResults:
        return self.stores.take(self.url, self)

    def _give_back(self) -> None:
        self.stores.give_back(self.url, self)
