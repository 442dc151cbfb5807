"""The delegating result backend: what is a step goes to the store, everything else to the application's own backend.

Where Celery stores a result, we record the outcome: one transaction, then the messages. Celery's own order is the
other way round (next link first, then the result) and would turn an error of the store into a failure of a task that
succeeded.
"""

from typing import Any

from celery import Celery
from celery.states import FAILURE, SUCCESS
from kombu.exceptions import EncodeError

from orchestra.errors import UnserialisableOutput
from orchestra.runtime.adapter import CLAIM, Adapter, is_step


class StepBackend:
    """Stands before the backend of an application, for the tasks that may be steps."""

    thread_safe = True

    def __init__(self, adapter: Adapter, app: Celery, own: Any = None) -> None:
        self._adapter, self._app, self.own = adapter, app, own

    def mark_as_done(
        self, task_id: str, result: object, request: Any = None, store_result: bool = True, state: str = SUCCESS
    ) -> Any:
        """The body returned; called by Celery's tracer in the process that ran it."""
        if getattr(request, CLAIM, None) is None:
            return self._delegate.mark_as_done(task_id, result, request, store_result, state)
        try:
            return self._adapter.done(request, result)
        except UnserialisableOutput as error:
            # The one kind of error that the tracer turns into a failure of the task, which this is.
            raise UnencodableResult(error) from error

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = FAILURE,
    ) -> Any:
        """The body raised, ran too long or lost its process; called in the child or in the parent."""
        if not is_step(request):
            return self._delegate.mark_as_failure(task_id, exc, traceback, request, store_result, call_errbacks, state)
        return self._adapter.failed(request, exc.error if isinstance(exc, (UnencodableResult, Escaped)) else exc)

    def mark_as_retry(
        self, task_id: str, exc: BaseException, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """The body asked for a retry."""
        if not is_step(request):
            return self._delegate.mark_as_retry(task_id, exc, traceback, request=request, **options)
        return self._adapter.retried(request, exc)

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, **options: Any) -> Any:
        """Celery will not run it."""
        if not is_step(request):
            return self._delegate.mark_as_revoked(task_id, reason, request=request, **options)
        return self._adapter.revoked(request)

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """Celery began; for a step the claim has said so."""
        request = meta.get("request")
        return None if is_step(request) else self._delegate.mark_as_started(task_id, **meta)

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """Intermediate states (STARTED, ``update_state``) of a step are not kept."""
        if is_step(request):
            return result
        return self._delegate.store_result(task_id, result, state, traceback, request=request, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delegate, name)

    @property
    def _delegate(self) -> Any:
        # Asked for each time: Celery keeps one backend per thread, unless it says that it is thread-safe.
        return self.own or self._app.backend


class Escaped(Exception):
    """Carries an error through Celery's tracer that would leave it, and take the pool's process or thread along."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(repr(error))

    def __reduce__(self) -> Any:
        return Escaped, (self.error,)


class UnencodableResult(EncodeError):
    """Carries an UnserialisableOutput through Celery's tracer."""

    def __init__(self, error: UnserialisableOutput) -> None:
        self.error = error
        super().__init__(str(error))

    def __reduce__(self) -> Any:
        return UnencodableResult, (self.error,)
