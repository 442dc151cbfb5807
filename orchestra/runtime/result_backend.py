"""A Celery result backend over a store.

A result and the counting of the chord's part that it is are one transaction; whoever completes a chord publishes its
callback, and when that one dies in between somebody else does. A store that is away is waited for: what a task returned
is never turned into a failure by it.
"""

# Celery is untyped where its backends are extended.
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportIncompatibleMethodOverride=false, reportUnknownParameterType=false

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from celery import signals, states
from celery.app.task import Context
from celery.backends import asynchronous, base
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult, result_from_tuple
from celery.utils import functional
from kombu.utils.url import maybe_sanitize_url

from orchestra.errors import StoreUnavailable
from orchestra.runtime.chords import LOOK_EVERY_S, Chords
from orchestra.runtime.result_waiting import ResultConsumer
from orchestra.store.task_results import LAST, ChordClaim, ChordPart, TaskResult, TaskResults

logger = logging.getLogger(__name__)

SCHEME = "orchestra+"
_EXPIRE_AT_ONCE = 1000
_LONGEST_PAUSE_S = 10.0
T = TypeVar("T")
# The stubs know little of them.
_Backend: Any = base.Backend
_Waiting: Any = asynchronous.AsyncBackendMixin
_Unknown: Any = functional._regen  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]
"""The members of a header that was given as a generator; they must not be asked for."""


class StoreResultBackend(_Waiting, _Backend):
    """Keeps results, groups and chords in a store. A subclass opens it, and closes it when nobody needs it any more.

    One instance serves all threads of a process and its forked children.
    """

    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True

    def __init__(self, app: Any, url: str = "", **given: Any) -> None:
        super().__init__(app=app, url=url.removeprefix(SCHEME), **given)
        self.thread_safe = True  # one for all threads, whatever the setting of that name says
        self.result_consumer = ResultConsumer(self, app, self.accept, self._pending_results, self._pending_messages)
        self.chords = Chords(self, lambda: self.task_results)
        self._opening = threading.RLock()
        self._opened: TaskResults | None = None
        try:
            self.supports_autoexpire = self.task_results.expires_by_itself
        except StoreUnavailable as error:
            logger.warning("result backend: %s; opening it when it is needed", error)
        signals.worker_ready.connect(self._look_after)

    @property
    def task_results(self) -> TaskResults:
        """The store."""
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    self._opened = self._open()
        return self._opened

    def _open(self) -> TaskResults:
        raise NotImplementedError

    def _give_back(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened; for programs that go on without it."""
        self.result_consumer.stop()
        if self._opened is not None:
            self._give_back()
            self._opened = None

    def as_uri(self, include_password: bool = False) -> str:
        if include_password:
            return SCHEME + self.url
        return SCHEME + (maybe_sanitize_url(self.url) if self._opened is None else self._opened.url)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "url": self.url, "expires": self.expires})

    # --- a task's states -----------------------------------------------------------------------------------------

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_options: Any
    ) -> Any:
        """Keep a state of a task; it ends with one of the ``mark_as`` methods."""
        encoded = self.encode_result(result, state)
        self._record(self._result(task_id, encoded, state, traceback, request), None)
        return encoded

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """The body returned."""
        keep = store_result and not (request is not None and request.ignore_result)
        self._end(task_id, result, state, None, request, keep=keep)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """The body raised, ran too long or lost its process."""
        self._end(task_id, exc, state, traceback, request, keep=store_result)
        if request:
            chain = getattr(request, "chain", None)
            self._fail_chain(chain, exc, traceback, store_result=store_result, state=state)
            if call_errbacks and request.errbacks:
                self._call_task_errbacks(request, exc, traceback)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """It will not run."""
        self._end(task_id, TaskRevokedError(reason), state, None, request, keep=store_result)

    def _fail_chain(
        self,
        chain: Any,
        exc: BaseException | None,
        traceback: Any = None,
        store_result: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """What would have followed fails, too; and what would have followed a chord in there: its body."""
        elements = deque(chain if isinstance(chain, Iterable) else ())
        while elements:
            element = Context(elements.popleft())
            element.update(element.options)
            element.id, element.group = element.options.get("task_id"), element.options.get("group_id")
            fails = store_result and state in states.PROPAGATE_STATES and element.id is not None
            # Not to be asked whether its part was counted before, as Celery does: that would not be counted again.
            self._end(element.id, exc, state, traceback, element, keep=fails)
            if getattr(element, "subtask_type", None) == "chord" and (element.kwargs or {}).get("body") is not None:
                elements.append(element.kwargs["body"])

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_options: Any) -> None:
        """Count a part whose result is kept elsewhere, or not at all."""
        self._end(request.id, result, state, None, request, keep=False)

    def _end(self, task_id: str | None, result: Any, state: str, traceback: Any, request: Any, *, keep: bool) -> None:
        in_chord = bool(request and getattr(request, "chord", None) and request.group and task_id)
        if task_id is None or not (keep or in_chord):
            return
        outcome = self._result(task_id, self.encode_result(result, state), state, traceback, request)
        claim = self._record(outcome if keep else None, self._part(outcome, request) if in_chord else None)
        if claim is not None:
            self.chords.publish(claim)

    def _record(self, result: TaskResult | None, part: ChordPart | None) -> ChordClaim | None:
        return self._insist(lambda: self.task_results.record(result, part, time.time()))

    def _result(self, task_id: str, encoded: Any, state: str, traceback: Any, request: Any) -> TaskResult:
        meta = self._get_result_meta(result=encoded, state=state, traceback=traceback, request=request)
        kept_s = self.expires
        if state == states.FAILURE and self.app.conf.result_failure_expires is not None:
            kept_s = self.prepare_expires(self.app.conf.result_failure_expires)
        return TaskResult(str(task_id), state, self._bytes({**meta, "task_id": str(task_id)}), _moment(kept_s))

    def _part(self, outcome: TaskResult, request: Any) -> ChordPart:
        place = LAST if request.group_index is None else int(request.group_index)
        callback = self.chords.encoded(request.chord)
        return ChordPart(request.group, outcome.task_id, place, outcome.payload, callback, self._chord_expires_at())

    def _insist(self, operation: Callable[[], T]) -> T:
        """Return what an operation returns, however long the store is away (but see ``result_backend_max_retries``)."""
        tries = 0
        while True:
            try:
                return operation()
            except StoreUnavailable as error:
                tries += 1
                if tries > self.max_retries:
                    raise
                pause = min(_LONGEST_PAUSE_S, 0.1 * 2**tries) * random.uniform(0.5, 1)
                logger.warning("result backend: %s; trying again in %.1f s", error, pause)
                time.sleep(pause)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        return isinstance(exc, StoreUnavailable)

    # --- reading and waiting -------------------------------------------------------------------------------------

    def payloads(self, task_ids: Sequence[str]) -> dict[str, bytes]:
        """Return what is kept of tasks, encoded."""
        return self.task_results.results(task_ids, time.time()) if task_ids else {}

    def _get_task_meta_for(self, task_id: str) -> Any:
        payload = self.payloads([str(task_id)]).get(str(task_id))
        return {"status": states.PENDING, "result": None} if payload is None else self.decode_result(payload)

    def task_result_exists(self, task_id: str) -> bool:
        return bool(self.payloads([str(task_id)]))

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        on_message: Callable[[Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        max_iterations: int | None = None,
        READY_STATES: Any = states.READY_STATES,  # noqa: N803  # as Celery's own
        **_options: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Give (id, meta) of tasks as they end. Looks again after ``interval``; ``join_native`` is told instead."""
        left, until = set(task_ids), None if timeout is None else time.monotonic() + timeout
        rounds = 0
        while left:
            for task_id, meta in self._ready(left, READY_STATES).items():
                left.discard(task_id)
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            rounds += 1
            if not left or rounds == max_iterations:
                return
            if until is not None and time.monotonic() >= until:
                raise ResultTimeout(f"Operation timed out ({timeout})")
            if on_interval is not None:
                on_interval()
            pause = 0.5 if interval is None else interval
            time.sleep(pause if until is None else max(0.0, min(pause, until - time.monotonic())))

    def _ready(self, task_ids: set[str], ready: Any) -> dict[str, Any]:
        cached = {id_: self._cache[id_] for id_ in task_ids if id_ in self._cache}
        read = self.payloads([id_ for id_ in task_ids if id_ not in cached])
        found = cached | {id_: self.decode_result(payload) for id_, payload in read.items()}
        done = {id_: meta for id_, meta in found.items() if meta["status"] in ready}
        self._cache.update(done)
        return done

    def forget(self, task_id: str) -> None:
        super().forget(task_id)
        self.result_consumer.cancel_for(task_id)

    def _forget(self, task_id: str) -> None:
        self.task_results.forget(task_id)

    def cleanup(self) -> None:
        """Delete what has expired; ``celery.backend_cleanup`` calls it daily where a beat runs."""
        while self.task_results.expire(time.time(), _EXPIRE_AT_ONCE):
            pass

    # --- groups and chords ---------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        self.task_results.save_group(group_id, self._bytes({"result": result.as_tuple()}), _moment(self.expires))
        return result

    def _restore_group(self, group_id: str) -> Any:
        payload = self.task_results.group(group_id, time.time())
        return None if payload is None else {"result": result_from_tuple(self.decode(payload)["result"], self.app)}

    def _delete_group(self, group_id: str) -> None:
        self.task_results.forget_group(group_id)

    def apply_chord(self, header_result_args: Any, body: Any, **_options: Any) -> None:
        """A chord is about to be sent: its parts are counted from nothing, whatever was counted of its id before."""
        self.ensure_chords_allowed()
        group_id, members, *_ = header_result_args
        header: bytes | None = None
        if not isinstance(members, _Unknown) and any(isinstance(each, GroupResult) for each in members):
            header = self._bytes({"result": self.app.GroupResult(*header_result_args).as_tuple()})
        self._insist(lambda: self.task_results.begin_chord(group_id, header, self._chord_expires_at()))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """All parts but the last one are sent."""
        self._insist(lambda: self.task_results.size_chord(group_id, chord_size, self._chord_expires_at()))

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """A part sends one more."""
        self._insist(lambda: self.task_results.grow_chord(chord_id, self._chord_expires_at()))

    def _chord_expires_at(self) -> float | None:
        own = self.app.conf.get("result_chord_expires")
        return _moment(self.expires if own is None else self.prepare_expires(own))

    # --- looking after what others left --------------------------------------------------------------------------

    def look_for_overdue(self) -> None:
        """Publish callbacks that were left behind, every few seconds at most."""
        self.chords.look_for_overdue()

    def process_cleanup(self) -> None:
        """Called after every task."""
        self.chords.look_for_overdue()

    def _look_after(self, sender: Any = None, **_given: Any) -> None:
        """Look while this worker is idle, too."""
        if getattr(sender, "app", self.app) is not self.app:
            return
        over = threading.Event()

        def end(**_given: Any) -> None:
            over.set()

        def look() -> None:
            while not over.wait(LOOK_EVERY_S):
                self.chords.look_for_overdue()

        signals.worker_shutdown.connect(end, weak=False)
        threading.Thread(target=look, name="orchestra-chords", daemon=True).start()

    def _bytes(self, data: Mapping[str, Any]) -> bytes:
        encoded = self.encode(data)
        return encoded.encode("utf-8") if isinstance(encoded, str) else encoded


def _moment(after_s: float | None) -> float | None:
    """Return the time that is so many seconds away; never, for none and for 0."""
    return time.time() + after_s if after_s else None
