"""Steps as Celery tasks: the generic task, and the mixin that makes an adopted one carry steps."""

import logging
import sys
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, cast

from celery import Celery, Task
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.time import maybe_make_aware

from orchestra.engine.plan import StepInput
from orchestra.errors import EndedWithoutOutcome, LeftEarly, StoreUnavailable, TaskNotFound
from orchestra.model.function import StepOptions
from orchestra.model.graph import current_builder
from orchestra.model.status import TaskStatus
from orchestra.runtime.adapter import CLAIM, RETRY_AFTER, Adapter, is_step
from orchestra.runtime.backend import Escaped, StepBackend
from orchestra.runtime.body import arguments, call, elements, fill, inside
from orchestra.runtime.outcomes import Elements
from orchestra.runtime.registry import GENERIC, body_of
from orchestra.runtime.routing import HEADER
from orchestra.store.contract import Claimed, Refused

logger = logging.getLogger(__name__)

_ENDS: Mapping[TaskStatus | None, str] = {
    TaskStatus.COMPLETED: "task-succeeded",
    TaskStatus.FAILED: "task-failed",
    TaskStatus.CANCELLED: "task-revoked",
    TaskStatus.SKIPPED: "task-revoked",
}
"""What monitors are told of a message whose step has ended without them hearing of it, or they would wait for ever."""


class StepMixin:
    """Claims before the body. A message that is no step passes through to the class behind."""

    orchestra: ClassVar[Adapter]
    request: Any
    send_event: Callable[..., object]

    def before_start(self, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Claim the step and fill in its arguments, or drop the message: acknowledged, and nothing happens."""
        claimed = self._claimed() if is_step(self.request) else None
        if claimed is None:
            self._before(task_id, args, kwargs)
        elif not claimed.row.is_map:
            with inside(claimed):
                _with_outcome(claimed, lambda: self._take(claimed, task_id, args, kwargs))

    def _find(self, path: str) -> Callable[..., Any]:
        return body_of(self.orchestra.registry.resolve(path))

    def _claimed(self) -> Claimed:
        try:
            answer = self.orchestra.begin(self.request)
        except StoreUnavailable as error:
            # Not a failure of the step: it stays ready, and its message is sent again when the store is back.
            raise Ignore(str(error)) from error
        if isinstance(answer, Refused):
            if answer.status in _ENDS:
                self._show(_ENDS[answer.status])
            raise Ignore(answer.reason)
        if answer.claim.claim > 1:
            # Flower still shows how the claim before ended, which only a retry takes back.
            self._show("task-retried", "task-started")
        return answer

    def _show(self, *events: str) -> None:
        """Send events to monitors that Celery itself would not send. A broker that is away is no trouble."""
        if not self.orchestra.monitored:
            return
        try:
            for event in events:
                self.send_event(event, retry=False)
        except Exception as error:
            logger.debug("Monitors were not told of %s: %s", self.request.id, error)

    def _take(self, claimed: Claimed, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Put the arguments of the step in place of those of the message."""
        filled, named = arguments(claimed, self._find)
        args[:] = filled
        kwargs.update(named)
        self._before(task_id, args, kwargs)

    def _before(self, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        super().before_start(task_id, args, kwargs)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


class GenericStep(StepMixin, Task):  # pyright: ignore[reportUntypedBaseClass, reportMissingTypeArgument, reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    """Runs every step whose body is no Celery task. Its name in Flower is that of the step."""

    name = GENERIC
    acks_late = True
    max_retries = None
    may_await = True
    """Whether it turns out only when it runs; for the asyncio pool."""

    def _take(self, claimed: Claimed, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Arguments go to the function that the step names, not to this task."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call what the step names."""
        claimed: Claimed | None = getattr(self.request, CLAIM, None)
        if claimed is None:
            return self._run_on_stock_celery(args, kwargs)
        if claimed.row.is_map:
            return Elements(elements(claimed, self._find))
        function = body_of(self.orchestra.registry.resolve(claimed.row.target))
        filled, named = arguments(claimed, self._find)
        with self.orchestra.running(claimed):
            return _with_outcome(claimed, lambda: call(function, filled, named, claimed.row.timeout_s))

    def _run_on_stock_celery(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a signature of ``orch.compile``: it says itself what to call, and Celery gives the results before it."""
        if HEADER not in kwargs:
            raise TaskNotFound(self.name, "the message names no step; submit steps through an Orchestrator")
        what = kwargs[HEADER]
        names = {int(n): name for n, name in what["before"].items()}
        results = list(args[0]) if len(names) > 1 else list(args[:1])
        given = StepInput.from_json(what["input"])
        filled, named = fill(given, dict(zip(names, results, strict=True)), names)
        adopted = self.app.tasks.get(what["target"])
        return call(adopted or body_of(self.orchestra.registry.resolve(what["target"])), filled, named, None)


class AdoptedMixin(StepMixin):
    """Put before the class of a task of the user's application."""

    run: Any
    max_retries: int | None
    default_retry_delay: float
    MaxRetriesExceededError: type[Exception]
    app: Any
    name: str
    _own_call: ClassVar[bool]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        builder = current_builder()
        if builder is not None:
            return builder.call(self.name, self, args, kwargs, StepOptions())
        claimed: Claimed | None = getattr(self.request, CLAIM, None)
        if claimed is None:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
        if claimed.row.is_map:
            return Elements(elements(claimed, self._find))
        # Celery's own __call__ would push another request, and hide the one that the body may ask for.
        body = super().__call__ if self._own_call else self.run  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
        with self.orchestra.running(claimed):
            return _with_outcome(claimed, lambda: body(*args, **kwargs))  # pyright: ignore[reportUnknownLambdaType]

    def on_success(self, retval: object, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A map that becomes known is no success of the user's task yet."""
        if not isinstance(retval, Elements):
            super().on_success(retval, task_id, args, kwargs)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def after_return(self, status: str, retval: object, *about: Any) -> None:
        """See ``on_success``."""
        if not isinstance(retval, Elements):
            super().after_return(status, retval, *about)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def map(self, items: object, *extra: Any, max_parallel: int | None = None, **kwargs: Any) -> Any:
        """Inside ``@workflow``: one step per element. Elsewhere Celery's own ``map``."""
        builder = current_builder()
        if builder is None:
            return super().map(items, *extra, **kwargs)  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
        return builder.call(self.name, self, list(extra), kwargs, StepOptions(), (items, max_parallel))

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Be tried again: the store keeps the time, no ETA message is sent. Same limits as Celery's ``retry``."""
        request = self.request
        if getattr(request, CLAIM, None) is None:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
        if (args is not None and list(args) != request.args) or (kwargs is not None and kwargs != request.kwargs):
            raise NotImplementedError("a step is tried again with the arguments that it has; return a workflow instead")
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries >= limit:
            raise exc or self.MaxRetriesExceededError(f"can't retry {self.name}: it was retried {limit} times")
        delay = self.default_retry_delay if countdown is None else countdown
        if eta is not None:
            delay = max(0.0, maybe_make_aware(eta, self.app.timezone).timestamp() - time.time())
        setattr(request, RETRY_AFTER, float(delay))
        asked = Retry(exc=sys.exc_info()[1] if exc is None else exc, when=eta or delay)  # pyright: ignore[reportArgumentType]
        if throw:
            raise asked
        return asked

    def replace(self, sig: Any) -> Any:
        """Put a signature in the place of a plain call, as Celery does; a step says that it cannot."""
        if getattr(self.request, CLAIM, None) is not None:
            raise NotImplementedError("a step cannot be replaced by a Celery signature; return a workflow instead")
        return super().replace(sig)  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]


def _with_outcome(claimed: Claimed, body: Callable[[], Any]) -> Any:
    try:
        return body()
    except (Ignore, Reject, CancelledError, GeneratorExit) as error:
        raise EndedWithoutOutcome(claimed.name, repr(error)) from error
    except LeftEarly as error:
        raise Retry(exc=error, when=0) from None  # pyright: ignore[reportArgumentType]
    except MemoryError as error:
        raise Escaped(error) from error


def add_generic_task(app: Celery, adapter: Adapter) -> None:
    """Register the generic task with an application."""
    kind: Any = type("GenericStep", (GenericStep,), {"orchestra": adapter})
    app.tasks.pop(GENERIC, None)  # that of an earlier orchestrator of the same application
    task = app.register_task(kind())
    task.backend = StepBackend(adapter, app)


def adopt(task: Any, app: Celery, adapter: Adapter) -> None:
    """Make a task of the user's carry steps; what it does without them stays as it was.

    A second time makes it carry those of another orchestrator.
    """
    stock = cast(Any, type(task))
    if issubclass(stock, AdoptedMixin):
        stock.orchestra, task.backend = adapter, StepBackend(adapter, app, task.backend.own)
    if issubclass(stock, StepMixin) or task.name.startswith("celery."):
        return
    own_call = any(
        "__call__" in vars(each) for each in stock.__mro__ if each.__module__ != Task.__module__ and each is not object
    )
    declared = getattr(stock, "backend", None)  # ``@app.task(backend=…)`` hides the property of that name
    own_backend = task.__dict__.get("_backend") if isinstance(declared, property) else declared
    task.__class__ = type(
        stock.__name__,
        (AdoptedMixin, stock),
        {"orchestra": adapter, "_own_call": own_call, "__module__": stock.__module__},
    )
    task.backend = StepBackend(adapter, app, own_backend)
    task.__trace__ = None
