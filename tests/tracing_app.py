"""The orchestrator of worker processes that write their spans into a file, as an application would set that up."""

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from orchestra import Orchestrator
from tests.cluster import SPANS


def line(span: ReadableSpan) -> str:
    """Return a span as one line."""
    return span.to_json(indent=None) + "\n"


file = Path(os.environ[SPANS]).open("a")  # noqa: SIM115 - for as long as the process lives
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=file, formatter=line)))
trace.set_tracer_provider(provider)
orch = Orchestrator(modules=["tests"])
