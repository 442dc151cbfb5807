"""Random graphs with every shape, and a sequential interpreter that says how each must end."""

import json
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestra.model import template
from orchestra.model.condition import holds
from orchestra.model.function import BoundWorkflow
from orchestra.model.graph import Graph, GraphStep, Mapped, StepOptions
from orchestra.model.retry import RetryPolicy
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.runtime.body import running_step

S = TaskStatus
TWICE = RetryPolicy(max_attempts=2, delay=0.01, jitter=0.0)
ADDED = ("(gathered)", "(begun)", "(result)", "(fallback)")
"""Steps that the plan or the store adds; the interpreter knows nothing of them."""


# --- bodies: pure functions of their arguments, found by name in every worker ----------------------------------------


def digest(*values: object) -> int:
    """Return a digit that depends on all values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode()) % 10


def flaky(*values: object) -> int:
    """Fail the first time."""
    step = running_step()
    if step is not None and step.attempts == 0:
        raise ValueError("the first attempt fails")
    return digest(*values)


def broken(*_values: object) -> int:
    """Fail every time."""
    raise RuntimeError("this one always fails")


def several(*values: object) -> list[int]:
    """Return nought to five digits."""
    return [digest(n, *values) for n in range(digest(*values) % 6)]


def often_broken(*values: object) -> int:
    """Fail for some values."""
    if digest(*values) < 3:
        raise RuntimeError("this one fails for that")
    return digest(*values)


def nested(*values: object) -> BoundWorkflow:
    """Turn into a small workflow that depends on the values."""
    return BoundWorkflow(
        random_graph(digest(*values) * 1000 + digest(1, *values), size=4, may_nest=False, may_fail=False)
    )


def nested_failing(*values: object) -> BoundWorkflow:
    """Turn into a small workflow of which steps may fail."""
    return BoundWorkflow(random_graph(digest(*values) * 1000 + digest(2, *values), size=4, may_nest=False))


def loop(rounds: int) -> object:
    """Turn into a workflow that turns into a workflow, and so on."""
    if rounds == 0:
        return "done"
    return BoundWorkflow(Graph("loop", "loop", [GraphStep("loop", "loop", loop, [rounds - 1], {}, frozenset())]))


# --- random graphs ----------------------------------------------------------------------------------------------------


def random_graph(
    seed: int, *, size: int = 60, may_nest: bool = True, may_fail: bool | None = None, on_failure: str | None = None
) -> Graph:
    """Return a graph of up to ``size`` steps. Those that fail for good are only in graphs that go on, unless told."""
    chance = random.Random(seed)
    may_fail = chance.random() < 0.5 if may_fail is None else may_fail
    steps: list[GraphStep] = []
    for position in range(chance.randint(1, size)):
        steps.append(_random_step(chance, position, steps, may_nest, may_fail))
    last = len(steps) - 1
    result = chance.choice([None, None, template.reference_to(last), {"last": template.reference_to(last), "first": 1}])
    return Graph("g", f"graph {seed}", steps, result, on_failure or ("continue" if may_fail else "fail"))


def _random_step(
    chance: random.Random, position: int, steps: Sequence[GraphStep], may_nest: bool, may_fail: bool
) -> GraphStep:
    name = f"s{position}"
    before = frozenset(chance.sample(range(position), min(position, chance.choice([0, 1, 1, 1, 2, 2, 3]))))
    lists = [each for each in range(position) if steps[each].agent is several]
    if chance.random() < 0.12:
        return _random_map(chance, name, lists, may_nest, may_fail)
    any_way = len(before) > 1 and chance.random() < 0.3
    # What any way leads into starts when that is there, so what it sees of the other ways depends on who is faster.
    style = "none" if any_way else chance.choice(["inherits", "references", "none"])
    # A map is written in @workflow only, where inputs are arguments.
    guarded = [each for each in sorted(before) if style != "inherits" or steps[each].mapped is None]
    agents = (
        [digest] * 12
        + [several] * 3
        + [flaky]
        + [nested] * may_nest
        + [broken, *[nested_failing] * may_nest] * may_fail
    )
    agent = chance.choice(agents)
    fallback = (
        chance.choice([digest, nested if may_nest else broken])
        if chance.random() < (0.6 if agent in (broken, nested_failing) else 0.05)
        else None
    )
    return GraphStep(
        name, name, agent,
        [template.reference_to(each) for each in sorted(before)] if style == "references" else [position] * any_way,
        {}, before,
        StepOptions(chance.choice([None, 1, 9]), None, TWICE if agent is flaky else None, None, fallback),
        from_predecessors=style == "inherits",
        whens={each: chance.choice(_CONDITIONS) for each in guarded if chance.random() < 0.25},
        any=any_way,
    )  # fmt: skip


_CONDITIONS = ["output", "output != 3", "len(output) > 2", "output > 4 or output[0] < 5", "not output"]


def _random_map(chance: random.Random, name: str, lists: Sequence[int], may_nest: bool, may_fail: bool) -> GraphStep:
    over = chance.choice(lists) if lists and chance.random() < 0.7 else None
    items = [chance.randint(0, 9) for _ in range(chance.randint(0, 5))] if over is None else template.reference_to(over)
    agent = chance.choice([digest, digest, flaky, several, *[nested] * may_nest, *[often_broken] * may_fail])
    fallback = digest if agent is often_broken and chance.random() < 0.5 else None
    return GraphStep(
        name, name, agent, [], {}, frozenset([] if over is None else [over]),
        StepOptions(None, None, TWICE if agent is flaky else None, None, fallback),
        mapped=Mapped(items, chance.choice([None, 1, 2])),
        whens={over: chance.choice(_CONDITIONS)} if over is not None and chance.random() < 0.2 else {},
    )  # fmt: skip


# --- the interpreter --------------------------------------------------------------------------------------------------

LIVE, DEAD, BROKEN = "live", "dead", "broken"


@dataclass
class Told:
    """How a graph ends, in the words of the interpreter: what happened to each step, by key."""

    ends: Counter[tuple[str, TaskStatus, str | None]] = field(default_factory=Counter)
    failed: bool = False
    """Whether something failed that nothing made up for."""

    def end(self, key: str, status: TaskStatus, output: object = None) -> None:
        self.ends[key, status, json.dumps(output) if status is S.COMPLETED else None] += 1


def expected_status(told: Told) -> WorkflowStatus:
    """Return the status of a run of which this is told."""
    return WorkflowStatus.FAILED if told.failed else WorkflowStatus.COMPLETED


def interpret(graph: Graph, told: Told, caught: bool = False) -> tuple[str, Any]:
    """Run a graph one step after the other; return how it ended, and its output."""
    ways: dict[int, str] = {}
    outputs: dict[int, Any] = {}
    for n, step in enumerate(graph.steps):
        into = {
            p: DEAD if ways[p] == LIVE and not holds(step.whens.get(p, "True"), outputs[p]) else ways[p]
            for p in step.after
        }
        live = sorted(p for p in into if into[p] == LIVE)
        if BROKEN in into.values() and not (step.any and live):
            ways[n] = BROKEN
        elif into and not live:
            ways[n] = DEAD
        else:
            ways[n], outputs[n] = _run(step, graph, live, outputs, told, caught)
        if ways[n] == LIVE:
            told.end(step.key, S.COMPLETED, outputs[n])
        elif n not in outputs:
            told.end(step.key, S.SKIPPED)
        else:
            told.end(step.key, S.FAILED)
            outputs.pop(n)
            told.failed = told.failed or not caught
    waited_for = {p for step in graph.steps if not step.any for p in step.after}
    if any(ways[n] == BROKEN for n in ways if n not in waited_for):
        return BROKEN, None
    return LIVE, _result(graph, ways, outputs)


def _result(graph: Graph, ways: dict[int, str], outputs: dict[int, Any]) -> Any:
    followed = {p for step in graph.steps for p in step.after}
    last = [n for n in ways if n not in followed]
    shape = graph.result
    if shape is None:
        refs = {graph.steps[n].name: template.reference_to(n) for n in last}
        shape = refs if len(last) > 1 else template.reference_to(last[0])
    needs = template.references(shape)
    return template.fill(shape, {n: outputs.get(n) for n in needs})


def _run(
    step: GraphStep, graph: Graph, live: list[int], outputs: dict[int, Any], told: Told, caught: bool
) -> tuple[str, Any]:
    known = {p: outputs.get(p) for p in range(len(graph.steps))}
    args = [template.fill(each, known) for each in step.args]
    if step.from_predecessors and step.after:
        by_name = {graph.steps[p].name: outputs[p] for p in live}
        args = [by_name if len(step.after) > 1 else outputs[live[0]]]
    if step.mapped is None:
        return _call(step.agent, step.options.fallback, args, told, caught)
    parts: list[tuple[str, Any]] = []
    for at, item in enumerate(template.fill(step.mapped.items, known)):  # type: ignore[arg-type]
        way, output = _call(step.agent, step.options.fallback, [item, *args], told, caught)
        told.end(f"{step.key}[{at}]", S.COMPLETED if way == LIVE else S.FAILED, output)
        told.failed = told.failed or (way == BROKEN and not caught)
        parts.append((way, output))
    broken_part = any(way == BROKEN for way, _output in parts)
    return (BROKEN, None) if broken_part else (LIVE, [output for _way, output in parts])


def _call(agent: Any, fallback: Any, args: list[Any], told: Told, caught: bool) -> tuple[str, Any]:
    try:
        output = agent(*args)
        way = LIVE
    except (RuntimeError, ValueError):
        way, output = BROKEN, None
    if isinstance(output, BoundWorkflow):
        way, output = interpret(output.graph, told, caught or fallback is not None)
    if way == BROKEN and fallback is not None:
        return _call(fallback, None, args, told, caught)
    return way, output
