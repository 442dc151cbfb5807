"""The composition root: settings → store, application, publisher. The only place that picks concrete backends."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestra.bus.live import Live
from orchestra.bus.streams import BrokerStreams, LocalStreams, Streams
from orchestra.errors import MissingExtra, SettingsError
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.app import adopt_app, embedded_app, own_app
from orchestra.runtime.bootsteps import Equipment
from orchestra.runtime.bootsteps import equip as equip_workers
from orchestra.runtime.cycle import Cycle, Publisher
from orchestra.runtime.durations import MOST_IN_HAND
from orchestra.runtime.grouping import GroupingStore
from orchestra.runtime.local import LocalWorker
from orchestra.runtime.logs import let_workers_write, write_json
from orchestra.runtime.observing import Tracing
from orchestra.runtime.publisher import BrokerPublisher, MemoryPublisher
from orchestra.runtime.queues import StepQueues
from orchestra.runtime.redis_transport import use_step_transport
from orchestra.runtime.registry import Registry
from orchestra.runtime.routing import to_broker
from orchestra.runtime.task import add_generic_task
from orchestra.runtime.transport import MemoryBroker
from orchestra.settings import FORGOTTEN, IN_MEMORY_STORE, MEMORY, Settings
from orchestra.store.contract import Store
from orchestra.store.learning import Learning
from orchestra.telemetry.watch import ProcessWatch

_BROKERS = ("redis://", "rediss://", "unix://", "sentinel://", "amqp://", "amqps://", "pyamqp://")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an orchestrator is made of."""

    given: Settings
    store: Store
    app: Any
    adapter: Adapter
    registry: Registry
    local: LocalWorker | None
    """The worker inside this process, when the orchestrator is embedded."""
    streams: Streams
    """What carries the texts that steps write to those who follow."""
    live: Live | None = None
    """What tells other processes of commits, and hears of theirs."""
    watch: ProcessWatch | None = None
    """What shows metrics of a worker or a beat of this orchestrator; None when it is embedded."""
    is_adopted: bool = False
    """Whether the application is one that the user had before."""

    @property
    def cycle(self) -> Cycle:
        """The cycle, for publishing after a commit."""
        return self.adapter.cycle

    @property
    def settings(self) -> Settings:
        """The settings in effect. An adopted application brings its broker and, where none was named, its queue.

        It is not asked before that is needed: it may be configured after it was adopted.
        """
        if not self.is_adopted:
            return self.given
        conf = self.app.conf
        own = {} if "queue" in self.given.model_fields_set else {"queue": str(conf.task_default_queue)}
        return self.given.model_copy(update={"broker": str(conf.broker_url or "amqp://"), **own})

    @property
    def served(self) -> list[str]:
        """The queues of a worker that is told none: also the plain calls of an adopted application are for it."""
        own: list[str] = list(self.app.amqp.queues.consume_from) if self.is_adopted else []
        return list(dict.fromkeys([self.settings.queue, *own]))


def build(settings: Settings, app: Any = None, clock: Callable[[], float] = time.time) -> Parts:
    """Build the parts. Nothing is started, and no broker is asked.

    Raises:
        SettingsError: A URL is of a kind that is not known, or there is a broker without a store.
        StoreUnavailable: The store cannot be opened.
    """
    if app is not None:
        return _adopted(settings, app, clock)
    if settings.embedded:
        return _embedded(settings, clock)
    if not settings.broker.startswith(_BROKERS):
        raise SettingsError(
            f"broker={settings.broker!r} is not possible: expected redis://… or amqp://… (memory:// is embedded)"
        )
    _require_store(settings, f"broker={settings.broker!r}")
    own = own_app(settings.broker, settings.queue, priorities=not settings.quorum_queues)
    return _shared(settings, own, clock, lambda adapter: add_generic_task(own, adapter), is_adopted=False)


def open_store(settings: Settings) -> Store:
    """Open the store that the settings name."""
    url = settings.store or IN_MEMORY_STORE
    if url == MEMORY:
        from orchestra.store.memory.store import MemoryStore

        return MemoryStore(window=settings.window)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from orchestra.store.redis.store import RedisStore

        return RedisStore(url, window=settings.window)
    if not url.startswith(("sqlite:", "postgresql:", "postgresql+psycopg:")):
        kind = url.partition(":")[0]  # no more of it, since it may hold a password
        raise SettingsError(
            f"store={kind}:… is not possible: expected sqlite:///path/to/file.db, postgresql://user@host/database or"
            " redis://host/0"
        )
    from orchestra.store.sql.store import SqlStore  # SQLAlchemy takes long to import, and only this needs it

    return SqlStore(url, window=settings.window, result_limit=settings.result_limit)


def _require_store(settings: Settings, what: str) -> None:
    if not settings.store or settings.store in FORGOTTEN:
        raise SettingsError(
            f"{what} needs a store that producers and workers share: give store='sqlite:////path/state.db'"
            " or set ORCHESTRA_STORE"
        )


def _embedded(settings: Settings, clock: Callable[[], float]) -> Parts:
    store = open_store(settings)
    broker = MemoryBroker()
    app = embedded_app(broker, settings.queue)
    registry = Registry(modules=settings.modules, travels=False)
    adapter = _adapter(settings, store, MemoryPublisher(broker, settings.queue), registry, clock)
    add_generic_task(app, adapter)
    if settings.log_format == "json":
        write_json()
    local = LocalWorker(app, broker, adapter, settings.concurrency, settings.lease_s, settings.keep_for_s)
    streams = LocalStreams()
    adapter.say = streams.say
    return Parts(settings, store, app, adapter, registry, local, streams)


def _adopted(settings: Settings, app: Any, clock: Callable[[], float]) -> Parts:
    if not hasattr(app, "register_task"):
        raise SettingsError(f"app={app!r} is no Celery application")
    _require_store(settings, "app=…")
    return _shared(settings, app, clock, lambda adapter: adopt_app(app, adapter), is_adopted=True)


def _shared(
    settings: Settings, app: Any, clock: Callable[[], float], equip: Callable[[Adapter], None], *, is_adopted: bool
) -> Parts:
    def broker_priority(priority: int) -> int:
        return to_broker(str(app.conf.broker_url or ""))(priority)

    store = open_store(settings)
    if "redis-transport" not in settings.without:
        use_step_transport(app)
    registry = Registry(modules=settings.modules, travels=True, celery_task=lambda name: name in app.tasks)
    queues = StepQueues(
        app,
        own=settings.queue if is_adopted and "queue" in settings.model_fields_set else None,
        quorum=settings.quorum_queues,
        shared=is_adopted,
    )
    publisher = BrokerPublisher(app, queues, broker_priority, waits="answers-later" in settings.without)
    adapter = _adapter(settings, store, publisher, registry, clock)
    equip(adapter)
    let_workers_write(json=settings.log_format == "json")
    watch = ProcessWatch(store.backlog, clock, settings.metrics_host, settings.metrics_port)
    most_in_hand = 0 if "continuation" in settings.without else 1 if "bundling" in settings.without else MOST_IN_HAND
    equip_workers(
        app,
        Equipment(
            adapter,
            queues,
            watch,
            settings.lease_s,
            settings.keep_for_s,
            settings.grace_s,
            most_in_hand,
            succeeds="succession" not in settings.without,
        ),
    )
    live = Live(app)
    store.watch(live.tell)
    streams = BrokerStreams(app)
    adapter.say = streams.say
    return Parts(settings, store, app, adapter, registry, None, streams, live, watch, is_adopted)


def _adapter(
    settings: Settings, store: Store, publisher: Publisher, registry: Registry, clock: Callable[[], float]
) -> Adapter:
    # In memory a transaction costs nothing that could be shared.
    grouped = "grouping" not in settings.without and settings.store not in (None, *FORGOTTEN)
    cycle = Cycle(GroupingStore.of(store) if grouped else store, publisher, clock, worker="")
    cycle.learns = "learning" not in settings.without
    if cycle.learns:
        cycle.learned = Learning(store.durations, time.monotonic)
    adapter = Adapter(cycle, registry)
    adapter.tracing = _tracing() if settings.tracing else None
    return adapter


def _tracing() -> Tracing:
    try:
        from orchestra.telemetry.tracing import Tracing
    except ImportError as error:
        raise MissingExtra("otel", "tracing=True") from error
    return Tracing()
