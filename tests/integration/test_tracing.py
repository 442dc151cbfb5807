"""OpenTelemetry spans: those of a run are one trace, whatever becomes of its messages, attempts and workers."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestra import Orchestrator, RetryPolicy, Task, Workflow, WorkflowStatus
from orchestra.telemetry.tracing import Tracing, trace_of
from tests import bodies
from tests.cluster import SPANS, Cluster
from tests.processes import wait_until
from tests.servers import PrivateRedis


class Traced:
    """A tracer provider, and what was made with it."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = self.provider.get_tracer("mine")

    def watch(self, orch: Orchestrator) -> None:
        """Have an orchestrator make its spans here."""
        orch.parts.adapter.tracing = Tracing(self.provider)

    def ended(self) -> list[ReadableSpan]:
        """Return the spans that have ended."""
        return list(self._memory.get_finished_spans())

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return those of a name."""
        return [each for each in self.ended() if each.name == name]

    def attempts(self, step: str) -> list[ReadableSpan]:
        """Return those of the attempts of a step."""
        return [each for each in self.ended() if each.name.startswith("run ") and facts(each, "step") == (step,)]


@pytest.fixture
def traced() -> Traced:
    return Traced()


def facts(span: ReadableSpan, *names: str) -> tuple[object, ...]:
    assert span.attributes is not None
    return tuple(span.attributes[f"orchestra.{name}"] for name in names)


def test_each_attempt_is_a_span_below_that_of_the_submit_and_around_those_of_its_body(traced: Traced) -> None:
    tries: list[int] = []

    def body() -> str:
        with traced.tracer.start_as_current_span("inside"):
            tries.append(1)
            if len(tries) < 2:
                raise ConnectionError("not yet")
        return "done"

    with Orchestrator() as orch:
        traced.watch(orch)
        with traced.tracer.start_as_current_span("request") as request:
            done = orch.submit(Task("A", body, retry=RetryPolicy(max_attempts=2, delay=0))).wait(30)
        wait_until(lambda: len(traced.attempts("A")) == 2, 30, "both spans, which end after the records")
    assert done.output == "done"
    (submitted,) = traced.spans("submit A")
    assert submitted.parent == request.get_span_context()
    attempts = sorted(traced.attempts("A"), key=lambda each: facts(each, "claim"))
    assert [facts(each, "run_id", "step", "attempt", "claim") for each in attempts] == [
        (done.id, "A", 1, 1),
        (done.id, "A", 2, 2),
    ]
    assert [each.status.is_ok or each.status.is_unset for each in attempts] == [False, True]
    for attempt, inside in zip(attempts, traced.spans("inside"), strict=True):
        assert attempt.parent is not None
        assert attempt.parent.span_id == submitted.context.span_id
        assert inside.parent == attempt.context
        assert attempt.context.trace_id == inside.context.trace_id == request.get_span_context().trace_id


async def asks() -> str:
    with trace.get_tracer("mine").start_as_current_span("unseen"):
        return format(trace.get_current_span().get_span_context().trace_id, "032x")


def test_what_a_step_turns_into_is_in_its_trace(traced: Traced) -> None:
    def plans() -> Workflow:
        return Workflow(name="inner", tasks=[Task("B", lambda: "b")])

    with Orchestrator() as orch:
        traced.watch(orch)
        run = orch.submit_workflow(Workflow(name="outer", tasks=[Task("A", plans)])).wait(30)
        asked = orch.submit(asks).wait(30)
        wait_until(lambda: traced.attempts("A") and traced.attempts("B"), 30, "the spans, which end after the records")
    assert run.status is WorkflowStatus.COMPLETED
    (outer,) = traced.spans("submit outer")
    inner = [each for each in traced.ended() if each.name.startswith("run ")]
    above = {facts(each, "step"): each.parent and each.parent.span_id for each in inner if each.name != "run asks"}
    assert {above["A",], above["B",]} == {outer.context.span_id}
    (submitted,) = traced.spans("submit asks")
    # A coroutine runs on the loop of the process, inside the span of its attempt all the same.
    assert asked.output == format(submitted.context.trace_id, "032x")


def test_a_run_that_nobody_traced_is_one_trace_named_after_it(traced: Traced) -> None:
    gate = threading.Event()
    steps = [Task("A", lambda: gate.wait(30)), Task("B", lambda: 2)]
    with Orchestrator() as orch:
        run = orch.submit_workflow(Workflow(name="w", tasks=steps, dependencies={"B": ["A"]}))
        traced.watch(orch)
        gate.set()
        run.wait(30)
        wait_until(lambda: traced.attempts("B"), 30, "the span, which ends after the record")
    (span,) = traced.attempts("B")
    assert span.context.trace_id == trace_of(run.id)
    assert format(trace_of(run.id), "032x") == run.id.replace("-", "")


def test_spans_of_worker_processes_survive_retries_lost_messages_and_a_killed_worker(
    private_redis: Callable[..., PrivateRedis], tmp_path: Path, traced: Traced
) -> None:
    spans = tmp_path / "spans"
    settings = {"ORCHESTRA_TRACING": "1", SPANS: str(spans)}
    broker = private_redis()
    with Cluster(tmp_path, broker.url, app="tests.tracing_app:orch", settings=settings) as cluster:
        orch = cluster.orchestrator()
        traced.watch(orch)
        steps = [
            Task("A", bodies.third_time, "x", retry=RetryPolicy(max_attempts=3, delay=0)),
            Task("B", bodies.hold, "b"),
        ]
        run = orch.submit_workflow(Workflow(name="w", tasks=steps, dependencies={"B": ["A"]}))
        broker.flush()
        first = cluster.worker("--concurrency", "1")
        cluster.wait_for_note("b begins", timeout=60)
        first.kill9()
        cluster.release("b")
        second = cluster.worker("--concurrency", "1")
        assert run.wait(60).status is WorkflowStatus.COMPLETED
        assert second.stop(60) == 0
    (submitted,) = traced.spans("submit w")
    found: list[dict[str, Any]] = [json.loads(line) for line in spans.read_text().splitlines()]
    assert {span["context"]["trace_id"] for span in found} == {f"0x{submitted.context.trace_id:032x}"}
    assert {span["parent_id"] for span in found} == {f"0x{submitted.context.span_id:016x}"}
    # What the first worker had not handed on when it was killed is lost: at least the span of B that never ended.
    seen = {(span["attributes"]["orchestra.step"], span["attributes"]["orchestra.claim"]) for span in found}
    assert ("B", 2) in seen
    assert ("B", 1) not in seen
