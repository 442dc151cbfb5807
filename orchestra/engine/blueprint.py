"""Blueprints: a plan as JSON, for the run that a job creates when its time has come, and what is filled in then."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from orchestra.engine.plan import Join, Plan, PlannedStep, StepInput, Target
from orchestra.engine.ranks import ranks, weights
from orchestra.model import template
from orchestra.model.retry import RetryPolicy

CONTEXT = "$context:"
"""What the marker of a value begins with that the worker finds out by calling a function."""


def to_json(plan: Plan) -> dict[str, object]:
    """Return what ``from_json`` takes back."""
    return {
        "steps": [_step_to_json(step) for step in plan.steps],
        "joins": [asdict(join) for join in plan.joins],
        "result": plan.result,
        "on_failure": plan.on_failure,
    }


def from_json(data: Mapping[str, Any], durations: Mapping[str, float] | None = None) -> Plan:
    """Return the plan that ``to_json`` wrote, ranked by what its steps have taken since, as in ``engine.plan``."""
    joins = [
        Join(each["number"], tuple(each["parts"]), tuple(each["bodies"]), bool(each["any"])) for each in data["joins"]
    ]
    names, targets = [each["name"] for each in data["steps"]], [each["target"]["path"] for each in data["steps"]]
    rank = ranks(joins, [each["feeds"] for each in data["steps"]], weights(names, targets, durations))
    steps = [_step_from_json({**each, "rank": rank[n]}) for n, each in enumerate(data["steps"])]
    return Plan(steps, joins, data["result"], data["on_failure"])


def filled(plan: Plan, known: Mapping[str, object], calls: Mapping[str, str]) -> Plan:
    """Return the plan of one run: ``{name}`` in the texts of its inputs is replaced.

    Args:
        known: Values by name.
        calls: Paths of functions by name: the worker calls them, and puts in what they return.
    """
    markers = {name: {f"{CONTEXT}{name}": path} for name, path in calls.items()}

    def put_in(step: PlannedStep) -> PlannedStep:
        given = step.input
        args = [template.substitute(each, known, markers) for each in given.args]
        kwargs = {key: template.substitute(each, known, markers) for key, each in given.kwargs.items()}
        items = template.substitute(given.items, known, markers)
        return replace(step, input=StepInput(args, kwargs, given.from_predecessors, items))

    return replace(plan, steps=[put_in(step) for step in plan.steps]) if known or calls else plan


def _step_to_json(step: PlannedStep) -> dict[str, object]:
    plain = {name: getattr(step, name) for name in PlannedStep.__slots__}
    return {
        **plain,
        "target": asdict(step.target),
        "input": step.input.to_json(),
        "retry": None if step.retry is None else step.retry.to_json(),
        "metadata": dict(step.metadata),
        "feeds": list(step.feeds),
        "chain": list(step.chain),
        "whens": {str(join): when for join, when in step.whens.items()},
        "fallback": None if step.fallback is None else asdict(step.fallback),
    }


def _step_from_json(data: Mapping[str, Any]) -> PlannedStep:
    made: dict[str, Any] = {
        "target": Target(**data["target"]),
        "input": StepInput.from_json(data["input"]),
        "retry": None if data["retry"] is None else RetryPolicy.from_json(data["retry"]),
        "feeds": tuple(data["feeds"]),
        "chain": tuple(data["chain"]),
        "whens": {int(join): when for join, when in data["whens"].items()},
        "fallback": None if data["fallback"] is None else Target(**data["fallback"]),
    }
    return PlannedStep(**{**data, **made})
