"""Applications: the Celery application behind an orchestrator, own or adopted, and the broker's priority scale."""

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.app import builtins
from celery.app.registry import TaskRegistry

from orchestra.runtime.adapter import Adapter
from orchestra.runtime.queues import MAX_PRIORITY
from orchestra.runtime.routing import transport_options, tune
from orchestra.runtime.task import add_generic_task, adopt
from orchestra.runtime.transport import MemoryBroker

_COMMON: dict[str, Any] = {
    "result_backend": "disabled://",
    "task_serializer": "json",
    "accept_content": ["json"],
    # Late ack with prefetch 1 is what keeps priority strict; recovery comes from the store's leases, not from acks.
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "task_create_missing_queues": True,
    "task_default_priority": None,
    "worker_hijack_root_logger": False,
    "worker_enable_remote_control": True,
    "broker_connection_retry_on_startup": True,
}


class IsolatedCelery(Celery):  # pyright: ignore[reportUntypedBaseClass]
    """An application that takes no task of another one; ``@app.task`` shares by default with all of the process."""

    def finalize(self, auto: bool = False) -> None:
        """Register Celery's own tasks, and nothing else."""
        if not self.finalized:
            self.finalized = True
            for name, add in vars(builtins).items():
                if name.startswith("add_"):
                    add(self)


def embedded_app(broker: MemoryBroker, queue: str) -> Celery:
    """Return the application of an embedded orchestrator."""
    app = IsolatedCelery("orchestra", set_as_current=False)
    app.conf.update(**_COMMON, **broker.settings, task_default_queue=queue)
    app.finalize()
    return app


def own_app(broker: str, queue: str, *, priorities: bool = True) -> Celery:
    """Return an application of our own for a broker that other processes share, with queues that know priorities."""
    app = IsolatedCelery("orchestra", broker=broker, set_as_current=False)
    app.conf.update(
        **_COMMON,
        task_default_queue=queue,
        task_queue_max_priority=MAX_PRIORITY if priorities else None,
        broker_transport_options=transport_options(broker, {"takes_many": True}),
    )
    app.finalize()
    return app


class AdoptingTasks(TaskRegistry):
    """The tasks of an adopted application: each can carry steps from the moment it is registered."""

    def __init__(self, before: Any, adopt_one: Callable[[Any], None]) -> None:
        super().__init__()
        self._adopt_one = adopt_one
        for name, task in before.items():
            self[name] = task

    def __setitem__(self, name: str, task: Any) -> None:
        self._adopt_one(task)
        super().__setitem__(name, task)


def adopt_app(app: Celery, adapter: Adapter) -> None:
    """Make all tasks of an application carry steps: those there are, and those that will be registered."""
    add_generic_task(app, adapter)
    # Tasks come late: lazily, by autodiscovery, shared from other libraries. Only the registry sees all of them.
    registry: Any = app._tasks  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType, reportAttributeAccessIssue]
    app._tasks = AdoptingTasks(registry, lambda task: adopt(task, app, adapter))  # type: ignore[attr-defined]  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]
    app.__dict__.pop("tasks", None)  # where Celery remembers the registry that it gave out first
    # Asking for the configuration now would be too early: the module that sets it may not have run yet.
    app.on_after_configure.connect(lambda **_: tune(app), weak=False)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    if getattr(app, "configured", False):
        tune(app)
