"""Checkup: what about a Celery application and its broker loses work or breaks priorities, and what to change."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from orchestra.runtime.queues import MAX_PRIORITY, bands_of
from orchestra.runtime.routing import PRIORITY_STEPS, is_redis, tune

_PATIENCE: dict[str, Any] = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "timeout": 5}
_SHORT_VISIBILITY_S = 3600


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do about it."""

    level: Level
    about: str
    text: str
    advice: str = ""


def of_settings(conf: Mapping[str, Any], *, redis: bool, adopted: bool) -> Iterator[Finding]:
    """Look at Celery's settings. What only ``celery worker`` obeys is said so: ``orchestra worker`` sets it itself."""
    if conf.get("task_always_eager"):
        yield _error(
            "task_always_eager", "calls run in the caller and never reach a worker", "task_always_eager = False"
        )
    accepted = {str(each) for each in conf.get("accept_content") or ()}
    if not accepted & {"json", "application/json"}:
        text = "workers refuse JSON, which is what steps travel as"
        yield _error("accept_content", text, "add 'json' to accept_content")
    if adopted and not conf.get("task_acks_late"):
        text = "messages are acknowledged before their body runs: a plain call (delay) whose worker is killed is lost"
        yield _warning("task_acks_late", text + "; steps are not", "task_acks_late = True, where tasks may run twice")
    prefetch = conf.get("worker_prefetch_multiplier")
    if prefetch != 1 and not (redis and conf.get("worker_disable_prefetch")):
        text = f"it is {prefetch}: under 'celery worker' messages that were fetched ahead run before more urgent ones"
        yield _warning("worker_prefetch_multiplier", text, "worker_prefetch_multiplier = 1, or use orchestra worker")
    if conf.get("task_reject_on_worker_lost"):
        text = "a task that kills its worker is delivered again and again; steps have their own limit"
        yield _warning("task_reject_on_worker_lost", text, "task_reject_on_worker_lost = False")
    if redis:
        yield from _of_redis_options(conf.get("broker_transport_options") or {})


def _of_redis_options(options: Mapping[str, Any]) -> Iterator[Finding]:
    timeout = float(options.get("visibility_timeout") or _SHORT_VISIBILITY_S)
    if timeout < _SHORT_VISIBILITY_S:
        text = f"it is {timeout:g} s: what runs longer is delivered twice while it runs; steps refuse the double"
        yield _warning("visibility_timeout", text, "leave it out of broker_transport_options, or set hours")
    steps = options.get("priority_steps")
    if steps is None or list(steps) != PRIORITY_STEPS:
        text = f"it is {steps}: Redis merges priorities that fall into one step, and workers must agree on the steps"
        yield _warning("priority_steps", text, "priority_steps = list(range(10)) on every producer and worker")


def of_broker(app: Celery, queues: Sequence[str], *, quorum: bool = False) -> Iterator[Finding]:
    """Ask the broker: whether it answers, and whether it keeps messages and their priorities.

    Args:
        queues: Those of steps.
        quorum: Whether steps go to quorum queues, where RabbitMQ is the broker.
    """
    tune(app)
    try:
        with app.connection_for_write() as connection:
            begun = time.perf_counter()
            connection.ensure_connection(**_PATIENCE)
            took = (time.perf_counter() - begun) * 1000
            yield Finding(Level.OK, "broker", f"{connection.as_uri()} answers ({took:.0f} ms)")
            if is_redis(str(app.conf.broker_url or "")):
                yield from _of_redis(connection)
            elif str(app.conf.broker_url or "").startswith(("amqp", "pyamqp")):
                for queue in queues:
                    yield from _of_bands(app, queue) if quorum else _of_amqp_queue(app, queue)
    except (OperationalError, OSError) as error:
        uri = app.connection_for_write().as_uri()
        yield _error("broker", f"{uri} does not answer: {error}", "start it, or correct ORCHESTRA_BROKER")


def _of_redis(connection: Any) -> Iterator[Finding]:
    client = connection.default_channel.client
    try:
        memory: Mapping[str, Any] = client.info("memory")
    except Exception as error:  # some hosts forbid INFO
        yield Finding(Level.NOTE, "broker memory", f"Redis does not say how it treats a full memory: {error}")
        return
    policy = memory.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        text = f"maxmemory-policy is {policy!r}: a full Redis drops messages in silence"
        yield _error("broker memory", text, "redis-cli CONFIG SET maxmemory-policy noeviction (and in redis.conf)")


def _of_amqp_queue(app: Celery, name: str) -> Iterator[Finding]:
    known: Any = app.amqp.queues.get(name)
    if not _declared(app, Queue(name), passive=True):
        yield Finding(Level.OK, f"queue {name}", "does not exist yet; it will be declared with priorities")
        return
    wanted = Queue(name, durable=True, queue_arguments={"x-max-priority": MAX_PRIORITY})
    if _declared(app, wanted, passive=False):
        yield Finding(Level.OK, f"queue {name}", f"has x-max-priority {MAX_PRIORITY}")
        return
    arguments = None if known is None else known.queue_arguments
    yield _warning(
        f"queue {name}",
        f"exists without x-max-priority {MAX_PRIORITY}, so that its messages have no or other priorities"
        + (f" (this application declares it with {arguments})" if arguments else ""),
        "give the orchestrator a queue of its own (queue=…), or delete the queue once it is empty: it is declared anew",
    )


def _of_bands(app: Celery, name: str) -> Iterator[Finding]:
    for band in bands_of(name):
        about, wanted = f"queue {band.name}", Queue(band.name, queue_arguments=band.queue_arguments)
        if not _declared(app, wanted, passive=True):
            yield Finding(Level.OK, about, "does not exist yet; it will be declared as a quorum queue")
        elif _declared(app, wanted, passive=False):
            yield Finding(Level.OK, about, "is a quorum queue")
        else:
            text = "is no quorum queue: its messages are on one node, although ORCHESTRA_QUORUM_QUEUES is set"
            yield _warning(about, text, "delete it once it is empty: it is declared anew")


def _declared(app: Celery, queue: Any, *, passive: bool) -> bool:
    """Whether a declaration is accepted. A refusal closes the channel, so each has a connection of its own."""
    with app.connection_for_write() as connection:
        channel: Any = connection.channel()
        try:
            queue(channel).queue_declare(passive=passive)
        except connection.channel_errors:
            return False
        return True


def of_workers(app: Celery, leases: Mapping[str, bool], timeout_s: float = 1.0) -> Iterator[Finding]:
    """Compare the workers that answer over the broker with those that have a lease (name → whether it still holds)."""
    answers: list[dict[str, Any]] = app.control.ping(timeout=timeout_s) or []
    answering = {name for answer in answers for name in answer}
    for name, holds in sorted(leases.items()):
        if name in answering and not holds:
            text = "answers over the broker, but its lease ran out: it does not reach the store, or its clock is behind"
            yield _error(f"worker {name}", text, "compare its clock and its ORCHESTRA_STORE with this machine's")
        elif holds and name not in answering:
            text = f"has a lease, but does not answer over the broker within {timeout_s:g} s"
            yield _warning(f"worker {name}", text, "look at its log; does it use the same broker?")
        elif holds:
            yield Finding(Level.OK, f"worker {name}", "consumes, and its lease holds")
        else:
            yield Finding(Level.NOTE, f"worker {name}", "is gone; whoever looks next takes over what it held")


def _error(about: str, text: str, advice: str) -> Finding:
    return Finding(Level.ERROR, about, text, advice)


def _warning(about: str, text: str, advice: str) -> Finding:
    return Finding(Level.WARNING, about, text, advice)
