"""Handles: the tasks and runs that people hold, made from the store and served by it."""

from collections.abc import Callable, Iterator, Mapping

from orchestra.agents.journal import calls_of
from orchestra.bus.streams import Stream, Streams
from orchestra.errors import UnknownId
from orchestra.lifetime import Lifetime
from orchestra.model import template
from orchestra.model.event import Event
from orchestra.model.ids import StepRef
from orchestra.model.piece import Piece
from orchestra.model.record import Progress, RunRecord, StepRecord
from orchestra.model.task import Task, WorkflowRun
from orchestra.model.usage import Call
from orchestra.runtime import codec
from orchestra.waiting import Waiting


class Handles:
    """Makes handles, and is the ``orchestra.model.task.Owner`` that they ask."""

    def __init__(self, lifetime: Lifetime, waiting: Waiting, streams: Streams) -> None:
        self._lifetime, self._waiting, self._streams = lifetime, waiting, streams

    def task(self, record: StepRecord) -> Task:
        """Return the handle of a step."""
        return Task.of_record(record, self, single=record.key == record.ref.run_id)

    def subject(self, event: Event) -> object:
        """Return what an event is about: a task, a run, or else the event itself."""
        if event.type.startswith("task.") and event.task_id is not None and event.run_id is not None:
            n = 0 if event.task_id == event.run_id else int(event.task_id.rpartition(".")[2])
            return self.task(self.read_step(StepRef(event.run_id, n)))
        if event.type.startswith("workflow.") and event.run_id is not None:
            return WorkflowRun(event.run_id, self)
        return event

    def find_step(self, id: str, run_id: str | None = None) -> StepRecord:
        """Return the step that an id means: ``run.n``, the task's own or, in a given run, also the step's name."""
        record = self._find(id) if run_id is None else self._find_in_run(run_id, id)
        if record is None:
            raise UnknownId("task or run" if run_id is None else "task", id)
        return record

    def read_step(self, ref: StepRef) -> StepRecord:
        """Return the record of a step."""
        record = self._lifetime.store.step(ref)
        if record is None:
            raise UnknownId("task", str(ref))
        return record

    def read_run(self, run_id: str) -> RunRecord:
        """Return the record of a run."""
        record = self._lifetime.store.run(run_id)
        if record is None:
            raise UnknownId("run", run_id)
        return record

    def read_steps(self, run_id: str) -> list[StepRecord]:
        """Return the records of all steps of a run."""
        return self._lifetime.store.steps(run_id)

    def read_output(self, run: RunRecord) -> object:
        """Return the output of a run that has completed."""
        store = self._lifetime.store
        shape = store.result_template(run.id)
        needs = template.references(shape)
        texts = store.outputs(run.id, needs)
        # What was not taken has no output.
        return template.fill(shape, {n: self.decode(texts[n]) if n in texts else None for n in needs})

    def read_progress(self, run_id: str) -> Mapping[int, Progress]:
        """Return how far the steps of a run say that they are."""
        return self._lifetime.store.progress(run_id)

    def read_calls(self, run_id: str) -> list[Call]:
        """Return the calls that the agents of a run made, step by step."""
        saved = self._lifetime.store.run_checkpoints(run_id)
        return [
            call
            for n in sorted(saved)
            for call in calls_of(f"{run_id}.{n}", {key: codec.decode(text) for key, text in saved[n].items()})
        ]

    def decode(self, text: str) -> object:
        """Return the value of stored JSON."""
        return codec.decode(text)

    def wait_step(self, ref: StepRef, timeout_s: float | None) -> StepRecord:
        """Wait until a step has ended."""
        return self._waiting.until_ended(lambda: self.read_step(ref), str(ref), timeout_s)

    def wait_run(self, run_id: str, timeout_s: float | None) -> RunRecord:
        """Wait until a run has ended."""
        return self._waiting.until_ended(lambda: self.read_run(run_id), run_id, timeout_s)

    def follow(self, run_id: str, ended: Callable[[], bool], step_id: str | None = None) -> Iterator[Piece]:
        """Return what the steps of a run, or one of them, write from now on, until it is said to have ended."""
        return Stream(self._streams.follow(run_id), ended, step_id)

    def _find(self, id: str) -> StepRecord | None:
        store = self._lifetime.store
        run_id, dot, n = id.rpartition(".")
        record = store.step(StepRef(run_id, int(n))) if dot and n.isdigit() else None
        return record or store.step(StepRef(id, 0)) or store.find_step(id)

    def _find_in_run(self, run_id: str, id: str) -> StepRecord | None:
        return next((each for each in self.read_steps(run_id) if id in (each.key, each.name, str(each.ref))), None)
