"""Tracing: OpenTelemetry spans of submits and attempts. All of a run are one trace, in whatever processes they are.

What ties them together is written into the steps when the run is created: the W3C context of the span that submitted
it. So a message that is lost and sent again, a retry, and a run that goes on after a crash find their place in the
trace, and messages do not grow. Attempts of a run that nobody traced when it was submitted share one named after it.
"""

import hashlib
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestra.runtime.observing import carried_by
from orchestra.store.contract import Claimed

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans with the tracer provider of the process, which is the application's business to set up.

    Args:
        provider: Another provider.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = trace.get_tracer("orchestra", tracer_provider=provider)

    @contextmanager
    def submitting(self, name: str, run_id: str) -> Generator[Mapping[str, str]]:
        """See ``runtime.observing.Tracing``."""
        attributes = {"orchestra.run_id": run_id, "orchestra.name": name}
        with self._tracer.start_as_current_span(f"submit {name}", kind=SpanKind.PRODUCER, attributes=attributes):
            carried: dict[str, str] = {}
            _W3C.inject(carried)
            yield carried

    @contextmanager
    def attempt(self, claimed: Claimed) -> Generator[None]:
        """See ``runtime.observing.Tracing``."""
        begun = None if claimed.started_at is None else int(claimed.started_at * 1e9)
        with self._tracer.start_as_current_span(
            f"run {claimed.row.target}", _parent(claimed), SpanKind.CONSUMER, _about(claimed), start_time=begun
        ):
            yield

    def flush(self) -> None:
        """See ``runtime.observing.Tracing``."""
        flush = getattr(self._provider or trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush()


def _parent(claimed: Claimed) -> Context:
    carried = carried_by(claimed)
    if carried:
        return _W3C.extract(carried)
    number = trace_of(claimed.claim.ref.step.run_id)
    named_after = SpanContext(number, number & 0xFFFF_FFFF_FFFF_FFFF or 1, True, TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(named_after))


def trace_of(run_id: str) -> int:
    """Return the trace of a run that nobody traced when it was submitted: its id, where that is a UUID."""
    try:
        return uuid.UUID(run_id).int
    except ValueError:
        return int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=16).digest())


def _about(claimed: Claimed) -> dict[str, Any]:
    row, step = claimed.row, claimed.claim.ref.step
    return {
        "orchestra.run_id": step.run_id,
        "orchestra.step_id": str(step),
        "orchestra.step": row.name,
        "orchestra.task": row.target,
        "orchestra.attempt": claimed.attempts + 1,
        "orchestra.claim": claimed.claim.claim,
        "messaging.destination.name": row.queue,
    }
