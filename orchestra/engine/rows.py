"""Rows: a plan as a store keeps it, and the rows that a step adds to its run while it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestra.engine.plan import Join, Plan, PlannedStep, StepInput, Target
from orchestra.model import template
from orchestra.model.status import TaskStatus


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step as it begins. What is mutable about it (counts, times, results) starts empty."""

    n: int
    key: str
    name: str
    task: str
    """The Celery task that the message names."""
    target: str
    """What the worker calls."""
    status: TaskStatus
    priority: int
    queue: str
    rank: int
    input: Mapping[str, object]
    retry: Mapping[str, object] | None = None
    timeout_s: float | None = None
    metadata: Mapping[str, object] | None = None
    is_map: bool = False
    max_parallel: int | None = None
    waits_for: int | None = None
    feeds: Sequence[Sequence[int]] | None = None
    """Joins that it is a part of: [number, parts, bodies, whether any way releases them] each."""
    chain: Sequence[Sequence[object]] | None = None
    """Links that follow in its segment: [n, task, name, queue, priority] each."""
    whens: Mapping[str, str] | None = None
    """Conditions on its output, by the number of the join that they guard."""
    parent: int | None = None
    """The step that it is a part of: a map, or one that turned into a sub-workflow."""
    fallback: Sequence[str] | None = None
    """[task, target, name] of what is called instead when it has failed for good."""
    round: int = 0
    """How many steps that turned into sub-workflows it is inside of."""
    max_rounds: int | None = None


@dataclass(frozen=True, slots=True)
class JoinRow:
    """A join as it begins."""

    number: int
    parts: Sequence[int]
    any: bool = False


@dataclass(frozen=True, slots=True)
class Expansion:
    """Steps that a running step adds to its run: it waits for those of them that are last."""

    steps: Sequence[StepRow]
    joins: Sequence[JoinRow] = ()
    collects: int | None = None
    """The step whose output becomes that of the parent; None: the list of all outputs, in order."""

    @property
    def parts(self) -> int:
        """How many steps the parent waits for."""
        return sum(is_last(step.feeds) for step in self.steps)


def is_last(feeds: Sequence[Sequence[int]] | None) -> bool:
    """Whether a step with such feeds is waited for by its run, or by what it is a part of.

    It is when nothing else is sure to wait for it: what runs on the first way taken may end before it.
    """
    return all(each[3] for each in feeds or ())


def fallback_name(name: str) -> str:
    """Return the name and key of what runs in the place of a step."""
    return f"{name} (fallback)"


def rows(
    plan: Plan, *, first_n: int = 0, first_join: int = 0, parent: int | None = None, round: int = 0
) -> tuple[list[StepRow], list[JoinRow]]:
    """Return the rows of a plan, with its numbers moved up where it becomes part of a run that has begun."""
    moved = {step.n: step.n + first_n for step in plan.steps}
    steps = [_row(step, plan, first_n, first_join) for step in plan.steps]
    if first_n:
        steps = [replace(each, input=_moved(each.input, moved)) for each in steps]
    if parent is not None:
        steps = [replace(each, parent=parent, round=round) for each in steps]
    joins = [
        JoinRow(join.number + first_join, [part + first_n for part in join.parts], join.any) for join in plan.joins
    ]
    return steps, joins


def of_elements(like: StepRow, inputs: Sequence[StepInput], first_n: int) -> Expansion:
    """Return the parts of a map: one step like it for each element."""
    at_once = len(inputs) if like.max_parallel is None else like.max_parallel
    return Expansion(
        [
            replace(
                like,
                n=first_n + at,
                key=f"{like.key}[{at}]",
                name=f"{like.name}[{at}]",
                status=TaskStatus.QUEUED if at < at_once else TaskStatus.PENDING,
                input=given.to_json(),
                parent=like.n,
                is_map=False,
                max_parallel=None,
                waits_for=None,
                feeds=None,
                chain=None,
                whens=None,
            )
            for at, given in enumerate(inputs)
        ]
    )


def of_plan(plan: Plan, parent: StepRow, first_n: int, first_join: int) -> Expansion:
    """Return the steps of a sub-workflow, whose result must be the output of one of its steps.

    Conditions on the output of the parent are looked at by the step that makes it, which has to be the only last one.
    """
    steps, joins = rows(plan, first_n=first_n, first_join=first_join, parent=parent.n, round=parent.round + 1)
    (result,) = template.references(plan.result)
    if parent.whens:
        steps[result] = replace(steps[result], whens=parent.whens)
    return Expansion(steps, joins, result + first_n)


def _moved(given: Mapping[str, object], moved: Mapping[int, int]) -> dict[str, object]:
    own = {key: given[key] for key in ("args", "kwargs", "items") if key in given}
    return {**given, **{key: template.remap(value, moved) for key, value in own.items()}}


def _row(step: PlannedStep, plan: Plan, first_n: int, first_join: int) -> StepRow:
    joins: Sequence[Join] = plan.joins
    feeds = [[j + first_join, len(joins[j].parts), len(joins[j].bodies), int(joins[j].any)] for j in step.feeds]
    chain = [
        [n + first_n, plan.steps[n].target.task, plan.steps[n].name, plan.steps[n].queue, plan.steps[n].priority]
        for n in step.chain
    ]
    fallback: Target | None = step.fallback
    return StepRow(
        n=step.n + first_n,
        key=step.key,
        name=step.name,
        task=step.target.task,
        target=step.target.path,
        status=TaskStatus.QUEUED if step.waits_for is None else TaskStatus.PENDING,
        priority=step.priority,
        queue=step.queue,
        rank=step.rank,
        input=step.input.to_json(),
        retry=step.retry.to_json() if step.retry else None,
        timeout_s=step.timeout_s,
        metadata=dict(step.metadata) or None,
        is_map=step.is_map,
        max_parallel=step.max_parallel,
        waits_for=None if step.waits_for is None else step.waits_for + first_join,
        feeds=feeds or None,
        chain=chain or None,
        whens={str(j + first_join): when for j, when in step.whens.items()} or None,
        fallback=None if fallback is None else [fallback.task, fallback.path, fallback_name(step.name)],
        max_rounds=step.max_rounds,
    )
