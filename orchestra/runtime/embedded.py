"""The embedded worker: a Celery worker on threads of this process, started and stopped like an object.

It is Celery's own `WorkController`, with the same strategy, request and tracer for every message as on a cluster.
What is replaced is what assumes that a process holds one worker and that the worker owns the process:

* The loop does not look at `celery.worker.state.should_stop` and `should_terminate`, which are module globals that
  any other worker of the process may set. It ends when its own blueprint does, and is woken for it.
* No hub, no signal handlers, no banner, no logging set-up, no pid file; `worker_init` and `worker_shutdown` signals
  are sent, as by every worker.
* The pool step does not set the "join will block" flag of the process, closing does not set the default socket
  timeout of the process, and closing does not cancel the timers of other workers' requests.
* Tasks that register after the start are found.
* A message that breaks the strategy is logged and dropped; stock Celery takes it for an unrecoverable error.

Shared by all workers of a process and tolerated: the request sets, the revoked ids and the counters of
`celery.worker.state`.
"""

# Celery is untyped where its worker is extended.
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread, current_thread
from types import TracebackType
from typing import Any, ClassVar, Self
from uuid import uuid4

from celery import Celery
from celery.app.trace import build_tracer
from celery.bootsteps import RUN  # pyright: ignore[reportAttributeAccessIssue]
from celery.utils.nodenames import gethostname
from celery.worker import WorkController, components, state
from celery.worker.consumer import Consumer
from celery.worker.consumer.control import Control

from orchestra.runtime.pool import ThreadPool
from orchestra.runtime.transport import Transport

process_state: Any = state
"""Celery's register of the requests of all workers of this process."""

logger = logging.getLogger(__name__)
# Without any handler, Python would print warnings to stderr.
logger.addHandler(logging.NullHandler())

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 0.3


class EmbeddedWorker:
    """Run the tasks of one application on `concurrency` threads, from `queues`.

    The application has to be on a `MemoryBroker` of its own (`app.conf.update(broker.settings)`).
    `events` sends task events and answers remote control, for a Flower in this process.
    A worker is started once; a second one may be made after it on the same application.
    """

    def __init__(
        self,
        app: Celery,
        *,
        concurrency: int,
        queues: Sequence[str],
        hostname: str | None = None,
        events: bool = False,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency!r}")
        self.app = app
        self.hostname = hostname or f"embedded-{uuid4().hex[:8]}@{gethostname()}"
        self._options: dict[str, Any] = {
            "concurrency": concurrency,
            "queues": list(queues),
            "task_events": events,
            "remote_control": events,
        }
        self._ready = Event()
        self._stopping = Event()
        self._error: BaseException | None = None
        self._controller: EmbeddedController | None = None
        self._thread: Thread | None = None

    @property
    def running(self) -> bool:
        """Whether messages are being consumed."""
        thread = self._thread
        return thread is not None and thread.is_alive() and self._ready.is_set() and not self._stopping.is_set()

    def start(self) -> None:
        """Start the threads and return when messages are being consumed.

        Raises what prevented that: TypeError if the application is not on a `MemoryBroker`.
        """
        if self._thread is not None:
            raise RuntimeError("an embedded worker is started once; make a new one")
        if not issubclass(self.app.connection_for_read().get_transport_cls(), Transport):
            raise TypeError(
                f"{self.app!r} is not on an in-process broker; use app.conf.update(MemoryBroker().settings)"
            )
        self._thread = Thread(target=self._run, name=f"orchestra-worker-{self.hostname}", daemon=True)
        self._thread.start()
        started = self._ready.wait(START_TIMEOUT_S)
        if self._error is not None:
            raise self._error
        if not started:
            raise TimeoutError(f"the embedded worker {self.hostname!r} did not start in {START_TIMEOUT_S} s")

    def stop(self) -> None:
        """Stop consuming and return, at the latest after 0.3 s; bodies that run on are left behind.

        Messages that were not acknowledged are back in their queues then. Harmless before `start`, twice, and from
        a body.
        """
        self._stopping.set()
        thread, controller = self._thread, self._controller
        if thread is None:
            return
        if controller is not None:
            controller.leave()
        if thread is not current_thread():
            thread.join(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        # Receivers of Celery's signals may ask for the current application.
        self.app.set_current()
        try:
            controller = self._controller = EmbeddedController(
                app=self.app, hostname=self.hostname, ready_callback=self._on_ready, **self._options
            )
            controller.blueprint.start(controller)
        except BaseException as error:
            logger.critical("The embedded worker %s failed: %r", self.hostname, error, exc_info=True)
            self._error = error
        try:
            if self._controller is not None:
                self._controller.stop()
        except BaseException:
            logger.critical("The embedded worker %s did not stop cleanly", self.hostname, exc_info=True)
        self._ready.set()

    def _on_ready(self, consumer: Any) -> None:
        if self._stopping.is_set():
            consumer.leave()
        self._ready.set()


class Pool(components.Pool):
    """Create the thread pool, and leave the process's "join will block" flag alone, unlike the step it replaces."""

    def create(self, w: Any) -> ThreadPool:
        """Return the pool of this worker."""
        w.process_task = w._process_task  # noqa: SLF001 - the stock step does the same
        w.pool = ThreadPool(w.concurrency, app=w.app, name=f"orchestra-pool-{w.hostname}")
        return w.pool


class RemoteControl(Control):
    """Answer remote control, if this worker was asked to."""

    def __init__(self, c: Any, *, remote_control: bool = False, **kwargs: Any) -> None:
        self.wanted = remote_control
        super().__init__(c, **kwargs)

    def include_if(self, c: Any) -> bool:
        """Say whether the step is part of this worker."""
        return self.wanted and super().include_if(c)


class Strategies(dict[str, Callable[..., Any]]):
    """The message handler of each task, made on demand for tasks that registered after the worker had started."""

    def __init__(self, consumer: "EmbeddedConsumer") -> None:
        super().__init__()
        self.consumer = consumer

    def __missing__(self, name: str) -> Callable[..., Any]:
        app, consumer = self.consumer.app, self.consumer
        task = app.tasks.get(name)
        if task is None:
            raise KeyError(name)
        task.__trace__ = build_tracer(name, task, app.loader, consumer.hostname, app=app)
        strategy = self[name] = task.start_strategy(app, consumer)
        return strategy


class EmbeddedConsumer(Consumer):
    """Consume from an in-process broker, which cannot be lost and never has to be reconnected to."""

    class Blueprint(Consumer.Blueprint):
        """The stock steps, less those that talk to other workers, beat for a monitor, or need a real broker."""

        default_steps: ClassVar[set[Any]] = {
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.tasks:Tasks",
            RemoteControl,
            "celery.worker.consumer.consumer:Evloop",
        }

    # Set by the steps.
    connection: Any
    task_consumer: Any
    qos: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.leaving = False
        super().__init__(*args, **kwargs)
        self.strategies = Strategies(self)

    def start(self) -> None:
        """Start the steps; the last one is the loop. The stock method looks at process-wide stop flags."""
        self.restart_count += 1
        self.blueprint.start(self)

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Open a connection; there is nothing to retry."""
        connection = self.app.connection_for_read()
        connection.connect()
        return connection

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Open a connection; there is nothing to retry."""
        connection = self.app.connection_for_write()
        connection.connect()
        return connection

    def loop(self, *_: Any) -> None:
        """Hand message after message to its strategy, until told to leave."""
        handle = self.create_task_handler()
        self.task_consumer.on_message = self._guarded(handle)
        self.task_consumer.consume()
        transport = self.connection.transport
        drain = transport.drain_events
        self.on_ready()
        while not self.leaving and self.blueprint.state == RUN:
            if self.qos.prev != self.qos.value:
                self.qos.update()
            self.perform_pending_operations()
            try:
                drain(transport)
            except TimeoutError:
                continue  # interrupted: there is something to do or to notice
            except Exception:
                # A remote-control message, since tasks are guarded.
                logger.exception("A message could not be handled")

    def _guarded(self, handle: Callable[[Any], Any]) -> Callable[[Any], None]:
        def on_message(message: Any) -> None:
            try:
                handle(message)
            except Exception:
                logger.exception("Dropped a message that could not be handled: %r", message)
                if not message.acknowledged:
                    message.reject()

        return on_message

    def call_soon(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function on the consumer's thread, now rather than at the next message."""
        result = super().call_soon(p, *args, **kwargs)
        self.wake()
        return result

    def leave(self) -> None:
        """Make the loop end. Any thread."""
        self.leaving = True
        self.wake()

    def wake(self) -> None:
        """Interrupt the wait for a message. Any thread."""
        connection = self.connection
        transport = connection and connection.transport
        if transport:
            transport.interrupt()

    def on_close(self) -> None:
        """Forget the requests that never started. The stock method forgets those of every worker of the process."""
        for request in (each for each in tuple(process_state.reserved_requests) if each.app is self.app):
            if request not in process_state.active_requests:
                process_state.requests.pop(request.id, None)
                process_state.reserved_requests.discard(request)
        for request in (each for each in tuple(process_state.scheduled_requests) if each.app is self.app):
            process_state.requests.pop(request.id, None)
            process_state.scheduled_requests.discard(request)


class EmbeddedController(WorkController):
    """The worker as a unit: timer, pool and consumer."""

    # Looked at by remote-control commands.
    autoscaler = None
    beat = None

    class Blueprint(WorkController.Blueprint):
        """The steps a worker on threads of this process needs."""

        default_steps: ClassVar[set[Any]] = {
            "celery.worker.components:Timer",
            Pool,
            "celery.worker.components:Consumer",
        }

    # Set by `__init__`, before any step is started.
    blueprint: Any

    def __init__(self, **options: Any) -> None:
        super().__init__(
            pool=ThreadPool,
            consumer_cls=EmbeddedConsumer,
            use_eventloop=False,
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=not options["task_events"],
            **options,
        )

    def leave(self) -> None:
        """End the consumer's loop; the thread that ran it then stops the worker. Any thread."""
        consumer = getattr(self, "consumer", None)
        if consumer is not None:
            consumer.leave()

    def stats(self) -> dict[str, Any]:
        """Return what remote control asks for, in a form that can be sent: of our transport it would be the class."""
        told: dict[str, Any] = super().stats()
        told["broker"]["transport"] = "memory"
        return told

    def _shutdown(self, warm: bool = True) -> None:
        # The stock method sets the process's default socket timeout meanwhile.
        self.blueprint.stop(self, terminate=not warm)
