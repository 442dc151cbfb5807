"""Canvas: a plan lowered to Celery's ``chain``, ``group`` and ``chord``.

This is the plan as Celery says it, for people and tools that know Celery. A series-parallel graph becomes signatures
that run on stock Celery. Any other graph cannot be said in canvas, since a Celery message belongs to at most one chord;
it becomes the segments that travel: chains of id-only signatures, whose joins the store counts.
"""

from collections.abc import Sequence
from typing import Any

from celery import Celery, chain, chord, group

from orchestra.engine.plan import Plan, PlannedStep
from orchestra.runtime.publisher import HEADER
from orchestra.runtime.registry import GENERIC


class NotSeriesParallel(Exception):
    """The graph has joins that overlap. Never leaves this module."""


def lower(plan: Plan, app: Celery) -> Any:
    """Return the signatures of a plan."""
    roots = [step.n for step in plan.steps if step.waits_for is None]
    try:
        return _lowered(plan, app, roots)
    except NotSeriesParallel:
        return group([_segment(plan, app, n) for n in _heads(plan)], app=app)


def _lowered(plan: Plan, app: Celery, roots: Sequence[int]) -> Any:
    """Return what the steps of these numbers and everything behind them become."""
    links, stopped_at, _tail = _parallel(plan, app, roots)
    if stopped_at is not None:
        raise NotSeriesParallel
    return _chained(app, links)


def _parallel(plan: Plan, app: Celery, heads: Sequence[int]) -> tuple[list[Any], int | None, list[int]]:
    """Lower branches that start together. Returns links, the join that stopped them, and the steps before it."""
    if len(heads) == 1:
        return _branch(plan, app, heads[0])
    branches = [_branch(plan, app, head) for head in heads]
    stops = {stop for _links, stop, _tail in branches}
    if len(stops) != 1:
        raise NotSeriesParallel
    members = group([_chained(app, links) for links, _stop, _tail in branches], app=app)
    tails = sorted(n for _links, _stop, tail in branches for n in tail)
    stop = stops.pop()
    if stop is None or list(plan.joins[stop].parts) != tails:
        return [members], stop, tails
    body, next_stop, tail = _parallel(plan, app, plan.joins[stop].bodies)
    joined = chord(members, body=_chained(app, body), app=app)
    return [joined], next_stop, tail


def _branch(plan: Plan, app: Celery, head: int) -> tuple[list[Any], int | None, list[int]]:
    """Lower what follows one step, up to a join that waits for others as well."""
    step = plan.steps[head]
    links: list[Any] = [_signature(plan, step, app)]
    match step.feeds:
        case ():
            return links, None, [head]
        case (number,):
            join = plan.joins[number]
        case _:
            raise NotSeriesParallel
    if join.parts != (head,):
        return links, join.number, [head]
    more, stop, tail = _parallel(plan, app, join.bodies)
    return links + more, stop, tail


def _chained(app: Celery, links: Sequence[Any]) -> Any:
    return links[0] if len(links) == 1 else chain(*links, app=app)


def _signature(plan: Plan, step: PlannedStep, app: Celery) -> Any:
    """Return a step as a signature of its own: on stock Celery it gets the results before it as first argument."""
    before = [] if step.waits_for is None else list(plan.joins[step.waits_for].parts)
    if step.is_map or step.whens or not set(step.input.needs()) <= set(before):
        raise NotSeriesParallel
    plain = not before or step.input.from_predecessors == 1
    options = {"queue": step.queue, **({} if step.name == step.target.task else {"shadow": step.name})}
    if plain and step.target.task != GENERIC:
        return app.signature(
            step.target.task, args=tuple(step.input.args), kwargs=dict(step.input.kwargs), options=options,
            immutable=not before,
        )  # fmt: skip
    what = {
        "target": step.target.path,
        "input": step.input.to_json(),
        "before": {str(n): plan.steps[n].name for n in before},
    }
    return app.signature(GENERIC, args=(), kwargs={HEADER: what}, options=options, immutable=not before)


def _heads(plan: Plan) -> list[int]:
    inside = {n for step in plan.steps for n in step.chain}
    return [step.n for step in plan.steps if step.n not in inside]


def _segment(plan: Plan, app: Celery, head: int) -> Any:
    links = [head, *plan.steps[head].chain]
    stubs = [
        app.signature(
            plan.steps[n].target.task,
            immutable=True,
            options={"queue": plan.steps[n].queue, "shadow": plan.steps[n].name},
        )
        for n in links
    ]
    return _chained(app, stubs)
