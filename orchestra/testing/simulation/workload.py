"""Workloads: random runs with everything that a graph can hold."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from orchestra.engine.plan import Plan, Target, plan
from orchestra.errors import TaskNotFound
from orchestra.model import template
from orchestra.model.graph import Graph, GraphStep, Mapped, StepOptions
from orchestra.runtime.registry import GENERIC
from orchestra.store.contract import NewRun
from orchestra.testing.simulation.script import Script, anything

QUEUES = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Submission:
    """A run that is submitted at a time, and what is done to it by hand.

    What is cancelled of it when, when it is paused and for how long, and when somebody tries to open it again.
    """

    run: NewRun
    at_s: float
    cancels: Sequence[tuple[float, int | None]] = ()
    pauses: Sequence[tuple[float, float]] = ()
    retries: Sequence[float] = ()


class SimRegistry:
    """Binds scripts: their text is what workers find."""

    travels = True

    def bind(self, agent: object) -> Target:
        """Return how a worker finds what a step does."""
        if isinstance(agent, str):
            return Target(GENERIC, agent)
        return Target(GENERIC, Script().text())  # a step that only gathers or passes on

    def resolve(self, path: str) -> NoReturn:
        """No simulated step names a function."""
        raise TaskNotFound(path, "the simulation has no functions")


REGISTRY = SimRegistry()


def submissions(rng: random.Random, prefix: str, until_s: float) -> list[Submission]:
    """Return the runs of one simulation."""
    queues = QUEUES[: rng.choice((1, 1, 2, 3))]
    return [_submission(rng, f"{prefix}-{at}", queues, until_s) for at in range(rng.choice((1, 1, 2, 3, 5)))]


def _submission(rng: random.Random, run_id: str, queues: Sequence[str], until_s: float) -> Submission:
    if rng.random() < 0.15:
        compiled, single = _single(rng, run_id, queues), True
    else:
        graph = random_graph(rng, run_id, queues, rng.choice((2, 4, 7, 12)))
        compiled, single = plan(graph, REGISTRY.bind, priority=rng.randint(1, 10), queue=queues[0]), False
    new = NewRun(run_id, run_id, run_id, compiled, single, key=f"key-{run_id}", fingerprint=run_id)
    cancels: list[tuple[float, int | None]] = []
    if rng.random() < 0.15:
        whole = single or rng.random() < 0.5
        cancels = [(rng.uniform(0.0, 6.0), None if whole else rng.randrange(len(compiled.steps)))]
    pauses = [(rng.uniform(0.0, 3.0), rng.uniform(0.0, 6.0)) for _ in range(rng.choice((0, 0, 0, 0, 1, 2)))]
    retries = [rng.uniform(0.5, 8.0) for _ in range(rng.choice((0, 0, 0, 0, 0, 3)))]
    return Submission(new, rng.uniform(0.0, min(until_s, 4.0)), cancels, pauses, retries)


def _single(rng: random.Random, run_id: str, queues: Sequence[str]) -> Plan:
    script, retry, timeout_s = anything(rng, 0)
    options = StepOptions(retry=retry, timeout_s=timeout_s)
    step = GraphStep(run_id, run_id, script.text(), [], {}, frozenset(), options)
    return plan(Graph(run_id, run_id, [step]), REGISTRY.bind, queue=rng.choice(queues))


def random_graph(rng: random.Random, name: str, queues: Sequence[str], size: int, depth: int = 0) -> Graph:
    """Return a graph: random edges or layers, with maps, conditions, any-joins, retries, failures and poison."""
    layered = rng.random() < 0.3
    steps: list[GraphStep] = []
    for _ in range(rng.randint(1, size)):
        position = len(steps)
        before = _before(rng, position, layered)
        if position and rng.random() < 0.15:
            steps += _mapped(rng, f"{name}/{position}", position, before, queues, depth)
        else:
            steps.append(_step(rng, f"{name}/{position}", before, queues, depth))
    on_failure = rng.choice(("fail", "continue"))
    return Graph(name, name, steps, None, on_failure)


def _before(rng: random.Random, position: int, layered: bool) -> frozenset[int]:
    if position == 0:
        return frozenset()
    if layered:
        width = 3
        first = position // width * width
        return frozenset(range(max(0, first - width), first))
    some = rng.choice((0, 1, 1, 1, 2, 3))
    return frozenset(rng.sample(range(position), min(position, some)))


def _step(rng: random.Random, name: str, before: frozenset[int], queues: Sequence[str], depth: int) -> GraphStep:
    script, retry, timeout_s = anything(rng, depth)
    options = StepOptions(
        priority=rng.choice((None, None, 1, 5, 9)),
        queue=rng.choice(queues) if rng.random() < 0.3 else None,
        retry=retry,
        timeout_s=timeout_s,
        fallback=Script("ok", 0.05).text() if rng.random() < 0.08 else None,
        max_rounds=rng.randint(1, 2) if script.kind == "deeper" else None,
    )
    whens = {each: f"output.v % {rng.choice((2, 2, 3))} != 0" for each in before if rng.random() < 0.15}
    named = [template.reference_to(each) for each in sorted(before)] if rng.random() < 0.5 else []
    from_predecessors = not named and bool(before)
    any_way = len(before) > 1 and rng.random() < 0.12
    return GraphStep(
        name, name, script.text(), named, {}, before, options, {}, None, from_predecessors, whens, any_way
    )  # fmt: skip


def _mapped(
    rng: random.Random, name: str, position: int, before: frozenset[int], queues: Sequence[str], depth: int
) -> list[GraphStep]:
    """A step that makes a list, and a map over it."""
    source = GraphStep(name, name, Script("list", 0.01, size=rng.choice((0, 1, 3, 5))).text(), [], {}, before)
    over = Mapped(template.reference_to(position), rng.choice((None, None, 1, 2)))
    script, retry, timeout_s = anything(rng, depth)
    options = StepOptions(queue=rng.choice(queues), retry=retry, timeout_s=timeout_s)
    key = f"{name}-map"
    return [source, GraphStep(key, key, script.text(), [], {}, frozenset({position}), options, {}, over)]


def nested(script: Script, name: str, depth: int) -> Graph:
    """Return the sub-workflow that a step turns into."""
    rng = random.Random(script.size + depth)
    if script.kind == "deeper":
        step = GraphStep(f"{name}.", f"{name}.", script.text(), [], {}, frozenset(), StepOptions(max_rounds=2))
        return Graph(name, name, [step])
    return random_graph(rng, f"{name}>", QUEUES[:1], 4, depth=1)
