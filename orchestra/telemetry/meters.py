"""Meters: the Prometheus metrics of one worker or beat. Their names are promises, since dashboards are made of them."""

from collections.abc import Callable, Iterable, Sequence
from threading import Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from orchestra.runtime.observing import Measure, Sample
from orchestra.store.contract import Backlog

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_PATIENCE_S = 2.0


class Meters:
    """The metrics, in a registry of their own.

    Args:
        backlog: Asks the store what is ready.
        clock: Seconds since the epoch.
    """

    def __init__(self, backlog: Callable[[], Sequence[Backlog]], clock: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        self._store = Histogram(
            "orchestra_store_seconds", "Time that the store took.", ["operation"], registry=registry,
            buckets=_STORE_SECONDS,
        )  # fmt: skip
        self._started = Counter(
            "orchestra_steps_started", "Steps that were claimed.", ["queue", "task"], registry=registry
        )
        self._ended = Counter(
            "orchestra_steps_ended", "Claims that ended: completed, failed, retried or superseded.",
            ["queue", "task", "outcome"], registry=registry,
        )  # fmt: skip
        self._duration = Histogram(
            "orchestra_step_seconds", "Time from the claim of a step to the record of its outcome.", ["queue", "task"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._lag = Histogram(
            "orchestra_step_lag_seconds", "Time from when a step was ready to its claim.", ["queue"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self._plain = {
            Measure.TAKEN_OVER: Counter(
                "orchestra_takeovers", "Claims of dead workers that were reopened.", registry=registry
            ),
            Measure.LOST: Counter(
                "orchestra_lost_messages", "Messages that were found lost and sent again.", registry=registry
            ),
            Measure.FIRED: Counter("orchestra_jobs_fired", "Runs that were made of jobs.", registry=registry),
        }
        self.ready = Gauge("orchestra_ready", "Whether this process does its work: 1, or 0.", registry=registry)
        registry.register(_Depth(backlog, clock))

        self._known: dict[tuple[Measure, tuple[str, ...]], Callable[[float], object]] = {}
        """How a value of a measure is added; looking for labels would cost more than all the rest."""

    def take(self, samples: Sequence[Sample]) -> None:
        """Add what was measured."""
        for measure, value, labels in samples:
            add = self._known.get((measure, labels))
            if add is None:
                add = self._known[measure, labels] = self._adder(measure, labels)
            add(value)

    def _adder(self, measure: Measure, labels: tuple[str, ...]) -> Callable[[float], object]:
        match measure:
            case Measure.STORE:
                return self._store.labels(*labels).observe
            case Measure.STARTED:
                return self._started.labels(*labels).inc
            case Measure.LAG:
                return self._lag.labels(*labels).observe
            case Measure.ENDED:
                ended, duration = self._ended.labels(*labels), self._duration.labels(*labels[:2])
                return lambda value: (ended.inc(), duration.observe(value))
            case Measure.TAKEN_OVER | Measure.LOST | Measure.FIRED:
                return self._plain[measure].inc


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
