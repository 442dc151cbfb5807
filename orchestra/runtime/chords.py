"""Chords: joins the parts of a complete one and publishes its callback, and finds those whose publisher died."""

# Celery is untyped where its canvas is used.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownParameterType=false

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from celery import states
from celery.canvas import chord, group, maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, result_from_tuple
from kombu.exceptions import EncodeError, OperationalError
from kombu.serialization import dumps, loads
from kombu.utils.encoding import ensure_bytes

from orchestra.errors import StoreUnavailable
from orchestra.store.task_results import CLAIM_S, ChordClaim, CompleteChord, TaskResults

logger = logging.getLogger(__name__)

LOOK_EVERY_S = CLAIM_S
"""How often a process looks for chords whose callback nobody has published."""
_AT_ONCE = 20


class Chords:
    """The chords of one application.

    Args:
        backend: The application's result backend: it encodes and decodes, and knows how a chord fails.
        results: Gives the store, when it is needed.
    """

    def __init__(self, backend: Any, results: Callable[[], TaskResults]) -> None:
        self._backend, self._app, self._results = backend, backend.app, results
        self._looked_at = time.monotonic()

    def publish(self, claim: ChordClaim, *, again: bool = False) -> None:
        """Publish the callback of a complete chord, or say that it failed; then it is done.

        A broker that does not answer leaves the chord as it is, to be found by whoever looks next. So does the death of
        this process: then nobody knows whether the callback was sent, and ``again`` asks whether it has a result.
        """
        results = self._results()
        with _held(results, claim):
            complete = results.complete_chord(claim)
            if complete is None:
                return
            callback = maybe_signature(self._decoded(complete.callback), app=self._app)
            if again and any(results.results(list(_first_ids(callback)), time.time())):
                logger.info("chord %r: its callback was published before", claim.group_id)
            else:
                try:
                    self._send(callback, complete, claim.group_id)
                except OperationalError as error:
                    logger.warning("chord %r: the broker takes no callback: %r; trying again", claim.group_id, error)
                    return
            results.end_chord(claim, time.time())

    def _send(self, callback: Any, complete: CompleteChord, group_id: str) -> None:
        try:
            values = self._joined(complete)
        except ChordError as error:
            logger.error("chord %r raised: %r", group_id, error)  # where it happened is in the part
            self._backend.chord_error_from_stack(callback, error)
            return
        try:
            self._app.amqp._retry_publish(callback.delay, values)  # noqa: SLF001  # as all backends of Celery do
        except OperationalError:
            raise
        except Exception as error:
            logger.exception("chord %r: its callback cannot be published", group_id)
            self._backend.chord_error_from_stack(callback, ChordError(f"Callback error: {error!r}"))

    def look_for_overdue(self, *, at_once: bool = False) -> None:
        """Publish what others have left, unless this process has looked just before. Raises nothing."""
        now = time.monotonic()
        if not at_once and now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        try:
            for claim in self._results().overdue(time.time(), _AT_ONCE):
                logger.warning("chord %r: taking over its callback", claim.group_id)
                self.publish(claim, again=True)
        except StoreUnavailable as error:
            logger.warning("cannot look for chords: %s", error)
        except Exception:
            logger.exception("cannot publish the callback of a chord")

    # --- joining -------------------------------------------------------------------------------------------------

    def _joined(self, complete: CompleteChord) -> list[Any]:
        """Return what the callback gets.

        Raises:
            ChordError: A part failed, or cannot be read.
        """
        try:
            parts = [self._backend.decode_result(each) for each in complete.parts]
            if complete.header is None:
                return [_value(each) for each in parts]
            values: defaultdict[str, list[Any]] = defaultdict(list)
            for each in parts:
                values[each["task_id"]].append(each)
            return self._shaped(result_from_tuple(self._backend.decode(complete.header)["result"], self._app), values)
        except ChordError:
            raise
        except Exception as error:
            logger.exception("the parts of a chord cannot be joined")
            raise ChordError(f"Join error: {error!r}") from error

    def _shaped(self, node: Any, values: defaultdict[str, list[Any]]) -> Any:
        """Return values in the shape of a header, in which groups may be nested."""
        if isinstance(node, GroupResult):
            return [self._shaped(each, values) for each in cast(Any, node).results]
        of_part = values[node.id]
        if not of_part:
            return _value(self._backend.get_task_meta(node.id))
        return _value(of_part.pop(0) if len(of_part) > 1 else of_part[0])

    # --- callbacks as bytes --------------------------------------------------------------------------------------

    def encoded(self, callback: Any) -> bytes:
        """Return a callback as it is kept until it is published."""
        try:
            kept = dumps(callback, serializer=self._app.conf.task_serializer)
        except EncodeError:
            # It came in a message of another format; the only one that takes anything is this.
            kept = dumps(callback, serializer="pickle")
        content_type, encoding, body = cast("tuple[str, str, str | bytes]", kept)
        return b"\0".join((content_type.encode(), encoding.encode(), ensure_bytes(body)))

    def _decoded(self, kept: bytes) -> Any:
        content_type, encoding, body = kept.split(b"\0", 2)
        return loads(body, content_type.decode(), encoding.decode(), force=True)


def _value(meta: Any) -> Any:
    if meta["status"] not in states.PROPAGATE_STATES:
        return meta["result"]
    error = ChordError(f"Dependency {meta['task_id']} raised {meta['result']!r}")
    raise error from (meta["result"] if isinstance(meta["result"], Exception) else None)


def _first_ids(signature: Any) -> Iterator[str]:
    """Give the ids of the tasks that are sent when a signature is."""
    inner: Sequence[Any] | None = getattr(signature, "tasks", None)
    if inner is not None and not isinstance(signature, (group, chord)):
        inner = inner[:1]  # a chain
    if isinstance(inner, group):
        inner = inner.tasks
    for each in inner if inner is not None else ():
        yield from _first_ids(maybe_signature(each))
    if inner is None and signature.id:
        yield signature.id


@contextmanager
def _held(results: TaskResults, claim: ChordClaim) -> Generator[None]:
    """Hold a claim for as long as it takes; a thread renews it where that is longer than usual."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(CLAIM_S / 3):
            try:
                if not results.renew(claim, time.time()):
                    return
            except StoreUnavailable:
                pass

    renewing = threading.Thread(target=renew, name="orchestra-chord", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
