"""Weather: everything that goes wrong in one simulation, chosen by its seed."""

import random
from dataclasses import dataclass, field

Span = tuple[float, float]
"""Seconds from the beginning: from, to."""


@dataclass
class Weather:
    """What goes wrong. Probabilities are per message, per call or per point; numbers are what is left of a budget."""

    until_s: float = 0.0
    """When faults stop."""
    latency_s: float = 0.02
    overtaken: float = 0.1
    """How often another goes first at a point."""
    store_s: float = 0.0
    """How long a claim or a record takes; those that come meanwhile may be made together."""
    lose: float = 0.0
    double: float = 0.0
    late: float = 0.0
    late_s: float = 0.0
    keeps_priority: bool = True
    redelivers: bool = True
    """Whether the broker gives messages again that a dead worker had not acknowledged."""
    prefetch: int = 0
    flushes: list[float] = field(default_factory=list[float])
    broker_away: list[Span] = field(default_factory=list[Span])
    store_away: list[Span] = field(default_factory=list[Span])
    lost_reply: float = 0.0
    """How often a call of the store commits and its answer does not arrive."""
    partition: float = 0.0
    """How often, per call, a process can no longer reach the store for a while."""
    partitions: int = 0
    crash: float = 0.0
    crashes: int = 0
    freeze: float = 0.0
    freezes: int = 0
    freeze_s: float = 0.0
    reboots: list[float] = field(default_factory=list[float])
    departures: list[float] = field(default_factory=list[float])
    """When a worker is told to go; another one is started in its place."""
    grace_s: float = 0.0
    """How long bodies may go on when their worker is told to go."""
    child_death: float = 0.0
    child_deaths: int = 0
    skew_s: float = 0.0
    kinds: list[str] = field(default_factory=list[str])
    """Names of what was chosen, for people."""

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong at all. Workers that go as they are told to are nothing that goes wrong."""
        return set(self.kinds) <= {"restart"}


_CHOICES = (
    "lose", "double", "late", "priority", "flush", "broker", "store", "reply", "partition", "crash", "freeze",
    "reboot", "restart", "child", "skew", "prefetch",
)  # fmt: skip
_CALM = 0.1


def forecast(rng: random.Random) -> Weather:
    """Choose what goes wrong: nothing at all for one seed in ten, else any of the kinds, few or many of them."""
    weather = Weather(latency_s=rng.choice((0.001, 0.02, 0.2)), overtaken=rng.choice((0.0, 0.1, 0.5)))
    weather.store_s = rng.choice((0.0, 0.01, 0.1))
    if rng.random() < _CALM:
        return weather
    weather.until_s = rng.choice((6.0, 12.0, 25.0))
    share = rng.choice((0.1, 0.25, 0.5))
    weather.kinds = [kind for kind in _CHOICES if rng.random() < share] or [rng.choice(_CHOICES)]
    for kind in weather.kinds:
        _choose(weather, kind, rng)
    return weather


def _choose(weather: Weather, kind: str, rng: random.Random) -> None:
    until = weather.until_s
    match kind:
        case "lose":
            weather.lose = rng.choice((0.05, 0.3, 0.8))
        case "double":
            weather.double = rng.choice((0.1, 0.5, 0.9))
        case "late":
            weather.late, weather.late_s = rng.choice((0.1, 0.4)), rng.choice((1.0, 5.0, 20.0))
        case "priority":
            weather.keeps_priority = False
        case "flush":
            weather.flushes = [rng.uniform(0, until) for _ in range(rng.randint(1, 4))]
        case "broker":
            weather.broker_away = _spans(rng, until, (1.0, 5.0))
        case "store":
            weather.store_away = _spans(rng, until, (0.2, 3.0, 12.0, 45.0))
        case "prefetch":
            weather.prefetch = rng.randint(1, 3)
        case _:
            _choose_deaths(weather, kind, rng)


def _choose_deaths(weather: Weather, kind: str, rng: random.Random) -> None:
    match kind:
        case "reply":
            weather.lost_reply = rng.choice((0.01, 0.05, 0.2))
        case "partition":
            weather.partition, weather.partitions = 0.01, rng.randint(1, 3)
        case "crash":
            weather.crash, weather.crashes = rng.choice((0.005, 0.03)), rng.randint(1, 4)
            weather.redelivers = rng.random() < 0.5
        case "freeze":
            weather.freeze, weather.freezes = rng.choice((0.005, 0.03)), rng.randint(1, 3)
            weather.freeze_s = rng.choice((2.0, 8.0, 20.0))
        case "reboot":
            weather.reboots = [rng.uniform(0, weather.until_s)]
        case "restart":
            weather.departures = [rng.uniform(0, weather.until_s) for _ in range(rng.randint(1, 8))]
            weather.grace_s = rng.choice((0.0, 0.3, 2.0, 30.0))
        case "child":
            weather.child_death, weather.child_deaths = 0.2, rng.randint(1, 4)
        case "skew":
            weather.skew_s = rng.choice((0.1, 0.5, 1.0))
        case _:
            raise ValueError(kind)


def _spans(rng: random.Random, until: float, lengths: tuple[float, ...]) -> list[Span]:
    spans: list[Span] = []
    for _ in range(rng.randint(1, 2)):
        begin = rng.uniform(0, until)
        spans.append((begin, begin + rng.uniform(0.05, 1) * rng.choice(lengths)))
    return spans
