"""The result backend that Celery finds under ``orchestra+…://``, also for those who use nothing else of Orchestra."""

from orchestra.errors import SettingsError
from orchestra.runtime.result_backend import StoreResultBackend
from orchestra.store.task_results import TaskResults


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
    if kind in ("sqlite", "postgresql", "postgresql+psycopg"):
        from orchestra.store.sql.task_results import SqlTaskResults  # SQLAlchemy takes long to import

        return SqlTaskResults(url)
    raise SettingsError(
        f"result_backend=orchestra+{kind}:… is not possible: expected orchestra+sqlite:////path/to/file.db,"
        " orchestra+postgresql://user@host/database or orchestra+redis://host/0"
    )


class ResultBackend(StoreResultBackend):
    """``Celery(backend="orchestra+postgresql://…")``."""

    open = staticmethod(open_task_results)
