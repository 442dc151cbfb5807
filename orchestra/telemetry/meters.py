"""Meters: the Prometheus metrics of one worker or beat. Their names are promises, since dashboards are made of them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from threading import Thread

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from orchestra.runtime.observing import Measure
from orchestra.store.contract import Backlog
from orchestra.telemetry.tally import BOUNDS, Cell, Tally

_PATIENCE_S = 2.0


class Meters:
    """The metrics, in a registry of their own.

    Args:
        tally: What was measured.
        backlog: Asks the store what is ready.
        clock: Seconds since the epoch.
    """

    def __init__(self, tally: Tally, backlog: Callable[[], Sequence[Backlog]], clock: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(_Measured(tally))
        self.ready = Gauge("orchestra_ready", "Whether this process does its work: 1, or 0.", registry=registry)
        registry.register(_Depth(backlog, clock))


class _Measured:
    """What was measured, as Prometheus has it when somebody asks.

    The library's own counters would lock and look for a bucket at each step; here that is done once, for all of them.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        of = self._tally.of
        store = HistogramMetricFamily("orchestra_store_seconds", "Time that the store took.", labels=["operation"])
        for labels, cell in of(Measure.STORE):
            _show(store, labels, BOUNDS[Measure.STORE], cell)
        lag = HistogramMetricFamily(
            "orchestra_step_lag_seconds", "Time from when a step was ready to its claim.", labels=["queue"]
        )
        for labels, cell in of(Measure.LAG):
            _show(lag, labels, BOUNDS[Measure.LAG], cell)
        received = CounterMetricFamily(
            "orchestra_messages_received", "Messages that arrived, of steps and of plain calls.", labels=["queue"]
        )
        for labels, cell in of(Measure.RECEIVED):
            received.add_metric(labels, cell[0])
        started = CounterMetricFamily("orchestra_steps_started", "Steps that were claimed.", labels=["queue", "task"])
        for labels, cell in of(Measure.STARTED):
            started.add_metric(labels, cell[0])
        return [store, received, started, *self._ended(), lag, *map(self._plain, _PLAIN)]

    def _ended(self) -> tuple[Metric, Metric]:
        """Return how claims ended, and how long they took whatever the end."""
        ended = CounterMetricFamily(
            "orchestra_steps_ended", "Claims that ended: completed, failed, retried or superseded.",
            labels=["queue", "task", "outcome"],
        )  # fmt: skip
        duration = HistogramMetricFamily(
            "orchestra_step_seconds", "Time from the claim of a step to the record of its outcome.",
            labels=["queue", "task"],
        )  # fmt: skip
        together = Tally()
        for labels, cell in self._tally.of(Measure.ENDED):
            ended.add_metric(labels, sum(cell[1:]))
            together.add(Measure.ENDED, labels[:2], cell)
        for labels, cell in together.of(Measure.ENDED):
            _show(duration, labels, BOUNDS[Measure.ENDED], cell)
        return ended, duration

    def _plain(self, measure: Measure) -> Metric:
        return CounterMetricFamily(*_PLAIN[measure], value=sum(cell[0] for _labels, cell in self._tally.of(measure)))


_PLAIN = {
    Measure.TAKEN_OVER: ("orchestra_takeovers", "Claims of dead workers that were reopened."),
    Measure.LOST: ("orchestra_lost_messages", "Messages that were found lost and sent again."),
    Measure.FIRED: ("orchestra_jobs_fired", "Runs that were made of jobs."),
}


def _show(histogram: HistogramMetricFamily, labels: Sequence[str], bounds: Sequence[float], cell: Cell) -> None:
    ends = [*(str(float(each)) for each in bounds), "+Inf"]
    histogram.add_metric(labels, list(zip(ends, accumulate(cell[1:]), strict=True)), sum_value=cell[0])


class _Depth:
    """What is ready, asked of the store when somebody asks for metrics: the same in every process of the store."""

    def __init__(self, backlog: Callable[[], Sequence[Backlog]], clock: Callable[[], float]) -> None:
        self._backlog, self._clock = backlog, clock
        self._asking: Thread | None = None
        self._answer: Sequence[Backlog] | None = None

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, so that registering asks nobody."""
        return self._metrics()

    def collect(self) -> Iterable[Metric]:
        """Return what is ready; without it when the store does not answer in time, which hides nothing else."""
        ready, oldest = found = self._metrics()
        backlog = self._ask()
        if backlog is None:
            return []
        now = self._clock()
        for queue in {each.queue for each in backlog}:
            its = [each for each in backlog if each.queue == queue]
            sent = sum(each.sent for each in its)
            ready.add_metric([queue, "broker"], sent)
            ready.add_metric([queue, "store"], sum(each.ready for each in its) - sent)
            since = min((each.ready_since for each in its if each.ready_since is not None), default=now)
            oldest.add_metric([queue], max(0.0, now - since))
        return found

    @staticmethod
    def _metrics() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "orchestra_ready_steps", "Ready steps: with the broker, or waiting in the store.",
                labels=["queue", "where"],
            ),
            GaugeMetricFamily(
                "orchestra_oldest_ready_seconds", "For how long the oldest ready step is ready.", labels=["queue"]
            ),
        )  # fmt: skip

    def _ask(self) -> Sequence[Backlog] | None:
        """Ask on a thread, since a store that is away is waited for; never more than one at a time."""
        if self._asking is None or not self._asking.is_alive():
            self._answer = None
            self._asking = Thread(target=self._hear, name="orchestra-depth", daemon=True)
            self._asking.start()
        self._asking.join(_PATIENCE_S)
        return None if self._asking.is_alive() else self._answer

    def _hear(self) -> None:
        self._answer = self._backlog()
