"""Who takes part: Orchestra, and its peers in the configuration that we believe to be their best."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contestant:
    """One configuration of one system.

    Attributes:
        name: What tables call it: the system, then what is special.
        peer: The module of ``benchmarks.peers``, and its environment.
        servers: What it needs: redis, rabbitmq, postgresql, and store, a Redis of its own with an append-only file.
        records: What is left of a finished task after a power cut: every step, results for a while, nothing.
        setup: How it is configured, in a few words.
        only: The one case that it is for; all where empty.
        without: A case that another configuration of the system is for.
    """

    name: str
    peer: str
    servers: frozenset[str]
    records: str
    setup: str
    only: str = ""
    without: str = ""

    def takes(self, case: str) -> bool:
        """Say whether it takes part in a case."""
        return case != self.without and self.only in ("", case)

    @property
    def variant(self) -> str:
        """What the peer's script is told."""
        return self.name.removeprefix(self.peer).removeprefix("-")


def _contestant(name: str, servers: str, records: str, setup: str, *, only: str = "", without: str = "") -> Contestant:
    return Contestant(name, name.split("-")[0], frozenset(servers.split()), records, setup, only, without)


STEPS, RESULTS, NOTHING = "every step", "results, for a while", "nothing"
WAITS = "waits"

CONTESTANTS = (
    _contestant("orchestra-redis", "redis store", STEPS, "prefork 2, Redis broker, Redis store with everysec"),
    _contestant("orchestra-postgresql", "redis postgresql", STEPS, "prefork 2, Redis broker, PostgreSQL store"),
    _contestant("orchestra-embedded", "", STEPS, "one process, 8 threads, SQLite file"),
    _contestant("celery", "redis", RESULTS, "prefork 2, late acks, prefetch 32, Redis", without=WAITS),
    _contestant("celery-forget", "redis", NOTHING, "the same, results ignored", without=WAITS),
    _contestant(
        "celery-rabbitmq", "redis rabbitmq", RESULTS, "prefork 2, RabbitMQ broker, Redis results", without=WAITS
    ),
    _contestant("celery-rabbitmq-forget", "rabbitmq", NOTHING, "the same, results ignored", without=WAITS),
    _contestant("celery-gevent", "redis", NOTHING, "gevent 1,000, Redis broker, results ignored", only=WAITS),
    _contestant("celery-threads", "redis", NOTHING, "threads 1,000, Redis broker, results ignored", only=WAITS),
    _contestant("huey", "redis", RESULTS, "2 worker processes, Redis"),
    _contestant("taskiq", "redis", NOTHING, "2 worker processes, Redis streams"),
    _contestant("taskiq-results", "redis", RESULTS, "the same with Redis results and pipelines"),
    _contestant("dramatiq", "redis", NOTHING, "2 processes × 8 threads, Redis"),
    _contestant("rq", "redis", RESULTS, "2 workers that fork for each job, Redis"),
    _contestant("rq-simple", "redis", RESULTS, "2 workers that do not fork, Redis"),
    _contestant("procrastinate", "postgresql", "every task", "2 processes × 10 async tasks, PostgreSQL"),
    _contestant("dbos", "postgresql", STEPS, "2 processes × 32 workflows, PostgreSQL, queue polled every 50 ms"),
    _contestant("dbos-inline", "postgresql", STEPS, "no queue: the calling process, PostgreSQL"),
    _contestant("restate", "", STEPS, "its server with default settings, 2 processes of handlers, 16 connections"),
    _contestant("prefect", "", STEPS, "a server on SQLite, flows in one process, 8 threads"),
    _contestant("langgraph-sqlite", "", STEPS, "one process, checkpoints before each step to SQLite"),
    _contestant("langgraph-postgresql", "postgresql", STEPS, "one process, checkpoints before each step to PostgreSQL"),
)


def chosen(
    names: Sequence[str], among: Sequence[Contestant] = CONTESTANTS, *, without: Sequence[str] = ()
) -> tuple[Contestant, ...]:
    """Return those of some systems, or of some configurations, and Orchestra's; all of them without names.

    Args:
        without: Configurations to leave out.

    Raises:
        ValueError: A name means nobody.
    """
    for name in (*names, *without):
        if not any(name in (each.name, each.peer) for each in among):
            known = ", ".join(dict.fromkeys([*(each.peer for each in among), *(each.name for each in among)]))
            raise ValueError(f"nobody is called {name!r}; there are {known}")
    ours = [] if any(name.startswith("orchestra") for name in names) else ["orchestra"]
    wanted = {*names, *ours} if names else {each.name for each in among}
    return tuple(each for each in among if {each.name, each.peer} & wanted and each.name not in without)
