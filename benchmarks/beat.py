"""What one beat costs with many jobs: its share of a core with 100,000 jobs, of which ten are due each second.

python benchmarks/beat.py [--jobs 100000] [--per-second 10] [--seconds 30] [--store URL]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace

from orchestra.model.job import ScheduledJob
from orchestra.model.record import JobRecord
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.jobs import Jobs
from orchestra.runtime.registry import Registry
from orchestra.runtime.scheduler import Scheduler, SchedulerThread
from orchestra.settings import Settings
from orchestra.store.contract import Dispatch, Store
from orchestra.wiring import open_store


class Nowhere:
    """Publishes nothing, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        self.count += len(dispatches)


def fill(store: Store, jobs: Jobs, count: int, per_second: int) -> None:
    """Store jobs whose times are spread evenly."""
    pattern = jobs.add(ScheduledJob(print, input="{scheduled_for}", interval_seconds=count / per_second))
    begin = time.time() + 5
    for n in range(count - 1):
        at = round(begin + n / per_second, 6)
        schedule = replace(pattern.schedule, starts_at=at)
        made = JobRecord(f"job-{n}", "job", schedule, pattern.payload, begin, next_run_at=at, due_at=at)
        store.put_job(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--per-second", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--store")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.store or f"sqlite:///{folder}/state.db"
        store = open_store(Settings(store=url, window=100_000))
        nowhere = Nowhere()
        cycle = Cycle(store, nowhere, time.time, "beat")
        filling = time.monotonic()
        fill(store, Jobs(cycle, Registry(travels=False), "q"), given.jobs, given.per_second)
        print(f"{given.jobs} jobs stored in {time.monotonic() - filling:.1f} s")
        thread = SchedulerThread(Scheduler(cycle))
        thread.start()
        while (due := store.due_jobs(time.time(), 1))[0]:
            time.sleep(1)  # whatever became due while it was filled comes first
        print(f"next due in {(due[1] or 0) - time.time():.1f} s")
        before, begun, fired = resource.getrusage(resource.RUSAGE_SELF), time.monotonic(), nowhere.count
        time.sleep(given.seconds)
        after, span = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - begun
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        thread.stop()
        print(f"{(nowhere.count - fired) / span:.1f} fired a second, {100 * used / span:.1f} % of a core")
        store.close()


if __name__ == "__main__":
    main()
