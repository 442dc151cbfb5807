"""Canvas: a plan lowered to Celery's ``chain``, ``group`` and ``chord``.

This is the plan as Celery says it, for people and tools that know Celery. A series-parallel graph becomes signatures
that run on stock Celery. Any other graph cannot be said in canvas, since a Celery message belongs to at most one chord;
it becomes the segments that travel: chains of id-only signatures, whose joins the store counts.
"""

from collections.abc import Sequence
from typing import Any

from celery import Celery, chain, chord, group

from orchestra.engine.plan import Plan, PlannedStep
from orchestra.runtime.registry import GENERIC
from orchestra.runtime.routing import HEADER


class NotSeriesParallel(Exception):
    """The graph has joins that overlap. Never leaves this module."""


def lower(plan: Plan, app: Celery) -> Any:
    """Return the signatures of a plan."""
    try:
        return _Lowering(plan, app).whole()
    except NotSeriesParallel:
        return group([_segment(plan, app, n) for n in _heads(plan)], app=app)


class _Lowering:
    """Lowers one plan to what stock Celery runs."""

    def __init__(self, plan: Plan, app: Celery) -> None:
        self._plan, self._app = plan, app
        self._order: dict[int, list[int]] = {}
        """For each join, its parts in the order in which Celery gives their results: that of the branches."""

    def whole(self) -> Any:
        if self._plan.on_failure != "fail" or any(join.any for join in self._plan.joins):
            raise NotSeriesParallel
        links, stopped_at, _tail = self._parallel([step.n for step in self._plan.steps if step.waits_for is None])
        if stopped_at is not None:
            raise NotSeriesParallel
        return _chained(self._app, links)

    def _parallel(self, heads: Sequence[int]) -> tuple[list[Any], int | None, list[int]]:
        """Lower branches that start together. Returns links, the join that stopped them, and the steps before it."""
        if len(heads) == 1:
            return self._branch(heads[0])
        branches = [self._branch(head) for head in heads]
        stops = {stop for _links, stop, _tail in branches}
        if len(stops) != 1:
            raise NotSeriesParallel
        members = group([_chained(self._app, links) for links, _stop, _tail in branches], app=self._app)
        tails = [n for _links, _stop, tail in branches for n in tail]
        stop = stops.pop()
        if stop is None:
            return [members], None, tails
        if list(self._plan.joins[stop].parts) != sorted(tails) or len(tails) != len(branches):
            raise NotSeriesParallel  # others lead into the join as well; or Celery would nest the results
        self._order[stop] = tails
        body, next_stop, tail = self._parallel(self._plan.joins[stop].bodies)
        return [chord(members, body=_chained(self._app, body), app=self._app)], next_stop, tail

    def _branch(self, head: int) -> tuple[list[Any], int | None, list[int]]:
        """Lower what follows one step, up to a join that waits for others as well."""
        step = self._plan.steps[head]
        links: list[Any] = [self._signature(step)]
        match step.feeds:
            case ():
                return links, None, [head]
            case (number,):
                join = self._plan.joins[number]
            case _:
                raise NotSeriesParallel
        if join.parts != (head,):
            return links, join.number, [head]
        more, stop, tail = self._parallel(join.bodies)
        return links + more, stop, tail

    def _signature(self, step: PlannedStep) -> Any:
        """Return a step as a signature of its own: on stock Celery it gets the results before it as first argument."""
        join = step.waits_for
        before = [] if join is None else self._order.get(join, list(self._plan.joins[join].parts))
        if step.is_map or step.whens or step.fallback or not set(step.input.needs()) <= set(before):
            raise NotSeriesParallel
        plain = not before or step.input.from_predecessors == 1
        options: dict[str, Any] = {"queue": step.queue}
        if step.name != step.target.task:
            options["shadow"] = step.name
        if step.timeout_s is not None:
            options["time_limit"] = step.timeout_s
        if plain and step.target.task != GENERIC:
            return self._app.signature(
                step.target.task, args=tuple(step.input.args), kwargs=dict(step.input.kwargs), options=options,
                immutable=not before,
            )  # fmt: skip
        what = {
            "target": step.target.path,
            "input": step.input.to_json(),
            "before": {str(n): self._plan.steps[n].name for n in before},
        }
        return self._app.signature(GENERIC, args=(), kwargs={HEADER: what}, options=options, immutable=not before)


def _chained(app: Celery, links: Sequence[Any]) -> Any:
    return links[0] if len(links) == 1 else chain(*links, app=app)


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
