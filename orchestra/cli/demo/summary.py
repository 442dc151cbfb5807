"""The summary after a run: what was done, how fast, what went wrong, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, cast

from orchestra.cli.demo.progress import StepLike, label, step_of

SLOWEST = 5


class EndedStep(StepLike, Protocol):
    """What the summary reads of a step beyond its progress. `orchestra.Task` has it."""

    @property
    def status(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def error(self) -> object: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def completed_at(self) -> datetime | None: ...


class EndedRun(Protocol):
    """What the summary reads of a run. `orchestra.WorkflowRun` has it."""

    @property
    def status(self) -> str: ...
    @property
    def output(self) -> object: ...
    @property
    def error(self) -> object: ...
    @property
    def tasks(self) -> Sequence[EndedStep]: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """The facts of an ended run. `listed` is how many modules there were to measure."""

    status: str
    error: str | None
    failures: Sequence[str]
    wall_s: float
    steps: int
    completed: int
    retried: int
    taken_over: int
    listed: int
    slowest: Sequence[tuple[str, float]]
    headline: Mapping[str, object]

    @property
    def measured(self) -> int:
        """How many different modules the report holds."""
        return cast(int, self.headline.get("modules", 0))

    @property
    def nothing_lost(self) -> bool:
        """Whether every step completed, and every module was measured exactly once."""
        return self.completed == self.steps and self.listed == self.measured == self.headline.get("measures")


def summarise(run: EndedRun, wall_s: float, module_names: Sequence[str]) -> Summary:
    """Gather the facts of an ended run."""
    tasks = run.tasks
    listing = next((each for each in tasks if each.name == "list_modules"), None)
    listed = listing.output if listing else None
    failures = [f"{label(each, module_names)}: {each.error}" for each in tasks if each.status == "FAILED"]
    return Summary(
        status=str(run.status),
        error=str(run.error) if run.error else None,
        failures=failures[:SLOWEST],
        wall_s=wall_s,
        steps=len(tasks),
        completed=sum(each.status == "COMPLETED" for each in tasks),
        retried=sum(each.attempts > 1 for each in tasks),
        # Not claims > 1: a retry and a timer also claim again; a crash is a claim whose worker was gone.
        taken_over=sum(each.crashes > 0 for each in tasks),
        listed=len(cast(list[object], listed)) if isinstance(listed, list) else 0,
        slowest=slowest(tasks, module_names),
        headline=cast(Mapping[str, object], run.output) if isinstance(run.output, Mapping) else {},
    )


def slowest(tasks: Sequence[EndedStep], module_names: Sequence[str]) -> list[tuple[str, float]]:
    """Return the steps that took longest, in seconds; the fan-out itself only waits for its parts."""
    timed = [
        (label(each, module_names), (each.completed_at - each.started_at).total_seconds())
        for each in tasks
        if each.started_at and each.completed_at and not _is_fan_out(each)
    ]
    return sorted(timed, key=lambda item: -item[1])[:SLOWEST]


def _is_fan_out(task: StepLike) -> bool:
    return task.name == "measure_module" == step_of(task) and "[" not in task.id


def lines(summary: Summary) -> list[tuple[str, str]]:
    """Return the summary as labelled lines."""
    head, rate = summary.headline, summary.steps / summary.wall_s if summary.wall_s else 0.0
    said = [("Run", f"{summary.status.lower()} in {summary.wall_s:.1f} s"),
            ("Steps", f"{summary.completed} of {summary.steps} completed, {rate:.0f} per second")]  # fmt: skip
    if head:
        unparsed = f", {head['unparsed']} of them could not be parsed" if head["unparsed"] else ""
        said.append(("Modules", f"{summary.measured} measured{unparsed}"))
        said.append(("Found", f"{head['lines']:,} lines, {head['functions']:,} functions, {head['classes']:,} classes"))
        said.append(("Imports", f"{head['import_edges']:,} between modules, {head['cycles']} cycles"))
    said.append(("Troubles", f"{summary.retried} steps retried, {summary.taken_over} taken over from a lost worker"))
    if summary.slowest:
        named = ", ".join(f"{name} {seconds * 1000:,.0f} ms" for name, seconds in summary.slowest)
        said.append(("Slowest", named))
    if summary.error:
        said.append(("Error", summary.error))
    said.extend(("Failed", failure) for failure in summary.failures)
    if head:
        said.append(("Report", str(head["html"])))
        said.append(("Data", str(head["json"])))
    return said


def proof(summary: Summary) -> list[str]:
    """Say after a crash whether anything was lost, in figures that can be checked in `report.json`."""
    verdict = "Nothing was lost" if summary.nothing_lost else "Something was lost"
    return [
        f"{verdict}: {summary.listed} modules listed, {summary.measured} in the report.",
        f"{summary.completed} of {summary.steps} steps are recorded as completed, each once.",
        f"{summary.taken_over} steps were running on the killed worker and were run again by another.",
    ]
