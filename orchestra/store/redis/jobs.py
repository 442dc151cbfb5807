"""Jobs in Redis: not kept yet. There are none, and who wants to store one is told where to."""

from collections.abc import Sequence

from orchestra.errors import SettingsError
from orchestra.model.record import JobRecord
from orchestra.store.contract import Fired, Firing


class NoJobs:
    """The part of the contract that is about jobs, of a store that keeps none."""

    url: str

    def put_job(self, job: JobRecord) -> JobRecord | None:
        raise SettingsError(
            f"store {self.url} keeps no scheduled jobs yet, such as {job.name!r};"
            " give one that is sqlite:///path or postgresql://…"
        )

    def job(self, job_id: str) -> JobRecord | None:
        return None

    def jobs(self) -> list[JobRecord]:
        return []

    def delete_job(self, job_id: str) -> bool:
        return False

    def due_jobs(self, now: float, limit: int) -> tuple[list[JobRecord], float | None]:
        return [], None

    def fire(self, firings: Sequence[Firing], now: float) -> list[Fired | None]:
        return [None] * len(firings)
