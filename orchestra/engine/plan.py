"""Plan: a graph compiled to numbered steps, chains and joins.

A *chain* is a longest linear run of steps. A *join* is a set of predecessors and the steps that wait for exactly that
set, so edges cost one row per set instead of one per pair: a fully connected 10 × 200 graph is 9 joins. Steps are
numbered topologically; stores lock rows in that order, which is what keeps two records of one run from deadlocking.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from orchestra.engine.ranks import UNIT, ranks, weights
from orchestra.errors import CyclicDependency
from orchestra.model import template
from orchestra.model.graph import Graph, GraphStep, identity
from orchestra.model.options import DEFAULT_PRIORITY
from orchestra.model.retry import RetryPolicy

SEGMENT = 8
"""How many links of a chain travel in one message, the first included: 0.9 kB and 290 bytes a link stay below 4 kB."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a step calls, as a worker finds it."""

    task: str
    """The Celery task that the message names: an adopted one, or the generic ``orchestra.step``."""
    path: str
    """``module:qualname`` of the function behind the generic task; the task's name for an adopted one."""
    takes_input: bool = True
    """False for a function without parameters: the outputs of its predecessors are not passed."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """Templates of a step's arguments. Their keys are step numbers."""

    args: Sequence[object] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object])
    from_predecessors: int = 0
    """How many predecessors' outputs are the input: their value for one, a dict by name for several; 0 for none."""
    items: object = None
    """Template of the list that a map runs over."""

    def to_json(self) -> dict[str, object]:
        """Return what ``from_json`` takes back, without what is empty."""
        whole = {
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
            "from": self.from_predecessors,
            "items": self.items,
        }
        return {key: value for key, value in whole.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "StepInput":
        """Return the input that ``to_json`` wrote."""
        return cls(data.get("args", ()), data.get("kwargs", {}), data.get("from", 0), data.get("items", []))  # pyright: ignore[reportArgumentType]

    def needs(self) -> list[int]:
        """Return the numbers of the steps whose outputs the templates name."""
        return template.references([list(self.args), dict(self.kwargs), self.items])


@dataclass(frozen=True, slots=True)
class Join:
    """A set of predecessors, and the steps that wait for exactly that set."""

    number: int
    parts: tuple[int, ...]
    bodies: tuple[int, ...]
    any: bool = False
    """Whether the first way taken releases the bodies."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan."""

    n: int
    position: int
    """Where it stands in the graph."""
    key: str
    name: str
    target: Target
    input: StepInput
    is_map: bool
    max_parallel: int | None
    priority: int
    queue: str
    retry: RetryPolicy | None
    timeout_s: float | None
    metadata: Mapping[str, object]
    waits_for: int | None
    """The join that releases it; None for a step that is ready at once."""
    feeds: tuple[int, ...]
    """The joins that it is a part of; none for a last step."""
    chain: tuple[int, ...]
    """The links that follow in the same chain segment; only the first step of a segment has them."""
    rank: int
    """How long the longest path from here to an end is, itself included: see ``engine.ranks``."""
    whens: Mapping[int, str]
    """Conditions on its output, by the join that they guard."""
    fallback: Target | None
    max_rounds: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled workflow."""

    steps: Sequence[PlannedStep]
    joins: Sequence[Join]
    result: object
    """Template of the run's output."""
    on_failure: str = "fail"


def plan(
    graph: Graph,
    bind: Callable[[object], Target],
    *,
    priority: int = DEFAULT_PRIORITY,
    queue: str,
    gathered: bool = False,
    alone: bool = False,
    durations: Mapping[str, float] | None = None,
) -> Plan:
    """Compile a graph. ``bind`` says how a worker finds what a step calls; ``priority`` and ``queue`` are defaults.

    Args:
        gathered: Make the result the output of one step, adding one that gathers where it is not.
        alone: Make that one the only last step, and one that does nothing else.
        durations: Seconds that steps have taken before, by name.

    Raises:
        CyclicDependency: Steps wait for each other in a circle.
    """
    if len(graph.steps) == 1 and not (gathered or durations or graph.steps[0].after):
        return _plan_of_one(graph, bind, priority, queue)
    return compiled(graph, bind, priority, queue, gathered=gathered, alone=alone, durations=durations)


def compiled(
    graph: Graph,
    bind: Callable[[object], Target],
    priority: int,
    queue: str,
    *,
    gathered: bool = False,
    alone: bool = False,
    durations: Mapping[str, float] | None = None,
) -> Plan:
    """Compile a graph of any shape; see ``plan``."""
    bind = _each_once(bind)
    graph = _with_gates(graph)
    if gathered:
        graph = _gathered(graph, alone)
    order = _topological(graph)
    number = {position: n for n, position in enumerate(order)}
    ordered = [graph.steps[position] for position in order]
    joins = _joins(ordered, number)
    waits_for = {body: join for join in joins for body in join.bodies}
    feeds: list[list[int]] = [[] for _ in order]
    whens: list[dict[int, str]] = [{} for _ in order]
    for join in joins:
        guards = ordered[join.bodies[0]].whens
        for part in join.parts:
            feeds[part].append(join.number)
            if order[part] in guards:
                whens[part][join.number] = guards[order[part]]
    chain = _chains(joins, feeds)
    called = [_called(step, number, bind, waits_for.get(n)) for n, step in enumerate(ordered)]
    known = weights([step.name for step in ordered], [target.path for target, _ in called], durations)
    rank = ranks(joins, feeds, known)
    steps: list[PlannedStep] = []
    for n, step in enumerate(ordered):
        place = _Place(n, order[n], waits_for.get(n), tuple(feeds[n]), chain[n], rank[n], whens[n])
        steps.append(_planned(step, place, *called[n], bind, priority, queue))
    return Plan(steps, joins, _result(graph, steps, number), graph.on_failure)


def _each_once(bind: Callable[[object], Target]) -> Callable[[object], Target]:
    """Return the same, asked once for each of the functions that a graph calls: thousands of steps may call one."""
    known: dict[int, tuple[object, Target]] = {}

    def bound(agent: object) -> Target:
        found = known.get(id(agent))
        if found is None:
            found = known[id(agent)] = agent, bind(agent)  # kept with it: an id may be given again
        return found[1]

    return bound


def _plan_of_one(graph: Graph, bind: Callable[[object], Target], priority: int, queue: str) -> Plan:
    """Compile a graph of one step, as a task that is submitted alone has it: there is nothing to be found out."""
    (step,) = graph.steps
    called = _called(step, {0: 0}, bind, None)
    steps = [_planned(step, _Place(0, 0, None, (), (), UNIT, {}), *called, bind, priority, queue)]
    return Plan(steps, [], _result(graph, steps, {0: 0}), graph.on_failure)


class _Place(NamedTuple):
    """Where a step stands in its plan."""

    n: int
    position: int
    join: Join | None
    feeds: tuple[int, ...]
    chain: tuple[int, ...]
    rank: int
    whens: Mapping[int, str]


def _planned(
    step: GraphStep,
    place: _Place,
    target: Target,
    given: StepInput,
    bind: Callable[[object], Target],
    priority: int,
    queue: str,
) -> PlannedStep:
    chosen = step.options
    return PlannedStep(
        n=place.n,
        position=place.position,
        key=step.key,
        name=step.name,
        target=target,
        input=given,
        is_map=step.mapped is not None,
        max_parallel=step.mapped.max_parallel if step.mapped else None,
        priority=priority if chosen.priority is None else chosen.priority,
        queue=chosen.queue or queue,
        retry=chosen.retry,
        timeout_s=chosen.timeout_s,
        metadata=step.metadata,
        waits_for=place.join.number if place.join else None,
        feeds=place.feeds,
        chain=place.chain,
        rank=place.rank,
        whens=place.whens,
        fallback=None if chosen.fallback is None else bind(chosen.fallback),
        max_rounds=chosen.max_rounds,
    )


def _called(
    step: GraphStep, number: Mapping[int, int], bind: Callable[[object], Target], join: Join | None
) -> tuple[Target, StepInput]:
    """Return what a step calls, and with which input."""
    target = bind(step.agent)
    args, kwargs = list(step.args), dict(step.kwargs)
    items: object = step.mapped.items if step.mapped else []
    if args or kwargs or items:
        args, kwargs, items = template.remap([args, kwargs, items], number)
    inherits = step.from_predecessors and target.takes_input and join is not None
    return target, StepInput(args, kwargs, len(join.parts) if inherits and join else 0, items)


def _with_gates(graph: Graph) -> Graph:
    """Put a step behind every map whose output a condition looks at: no worker sees that output before."""
    guarded = {before for step in graph.steps for before in step.whens if graph.steps[before].mapped is not None}
    if not guarded:
        return graph
    steps = list(graph.steps)
    gate: dict[int, int] = {}
    for position in sorted(guarded):
        name = f"{steps[position].name} (gathered)"
        gate[position] = len(steps)
        given = [template.reference_to(position)]
        steps.append(GraphStep(name, name, identity, given, {}, frozenset({position}), steps[position].options))
    for position, step in enumerate(graph.steps):
        if step.whens:
            # The way from the map itself is not one into the step, so its input comes from the gate as well.
            of = {each: gate.get(each, each) if each in step.whens else each for each in step.after}
            args, kwargs, items = template.remap(
                [list(step.args), dict(step.kwargs), step.mapped.items if step.mapped else []], of
            )
            steps[position] = replace(
                step,
                args=args,
                kwargs=kwargs,
                mapped=step.mapped and replace(step.mapped, items=items),
                after=frozenset(of.values()),
                whens={of[each]: when for each, when in step.whens.items()},
            )
    return replace(graph, steps=steps)


def _gathered(graph: Graph, alone: bool) -> Graph:
    """Make the result of a graph the output of one of its steps."""
    result = graph.result
    followed = {before for step in graph.steps for before in step.after}
    last = [position for position in range(len(graph.steps)) if position not in followed]
    if result is None:
        result = (
            template.reference_to(last[0])
            if len(last) == 1
            else {graph.steps[each].name: template.reference_to(each) for each in last}
        )
    needs = template.references(result)
    if not alone and len(needs) == 1 and result == template.reference_to(needs[0]):
        return replace(graph, result=result)
    steps, after = list(graph.steps), frozenset(needs)
    if alone:
        after |= _awaited(graph)
    if any(step.whens for step in steps):
        # Behind a way that is always taken, so that it runs also when all others are not.
        begun = f"{graph.name} (begun)"
        after |= {len(steps)}
        steps.append(GraphStep(begun, begun, identity, [None], {}, frozenset()))
    name = f"{graph.name} (result)"
    steps.append(GraphStep(name, name, identity, [result], {}, after))
    return replace(graph, steps=steps, result=template.reference_to(len(steps) - 1))


def _awaited(graph: Graph) -> frozenset[int]:
    """Return the positions of the steps that no other step is sure to wait for."""
    waited_for = {before for step in graph.steps if not step.any for before in step.after}
    return frozenset(range(len(graph.steps))) - waited_for


def _topological(graph: Graph) -> list[int]:
    """Return the positions in an order that respects the edges and, among ready ones, the order as written."""
    sorter = TopologicalSorter({position: step.after for position, step in enumerate(graph.steps)})
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[int] = error.args[1]
        raise CyclicDependency([graph.steps[each].name for each in cycle[:-1]]) from None  # it repeats the first
    order: list[int] = []
    while ready := sorted(sorter.get_ready()):
        order += ready
        sorter.done(*ready)
    return order


def _joins(ordered: Sequence[GraphStep], number: Mapping[int, int]) -> list[Join]:
    """Return the joins. Steps with conditions, or that run on any way, have one of their own."""
    waiting: dict[tuple[frozenset[int], int | None], list[int]] = {}
    for n, step in enumerate(ordered):
        if step.after:
            own = n if step.whens or step.any else None
            waiting.setdefault((frozenset(number[each] for each in step.after), own), []).append(n)
    return [
        Join(j, tuple(sorted(parts)), tuple(bodies), any=ordered[bodies[0]].any)
        for j, ((parts, _own), bodies) in enumerate(waiting.items())
    ]


def _chains(joins: Sequence[Join], feeds: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return for the first step of each chain segment the links that follow it, for every other step nothing."""
    follows: dict[int, int] = {}
    for join in joins:
        if len(join.parts) == 1 and len(join.bodies) == 1 and len(feeds[join.parts[0]]) == 1:
            follows[join.parts[0]] = join.bodies[0]
    linked = set(follows.values())
    segments: list[tuple[int, ...]] = [()] * len(feeds)
    for head in range(len(feeds)):
        if head in linked:
            continue
        run = [head]
        while run[-1] in follows:
            run.append(follows[run[-1]])
        for at in range(0, len(run), SEGMENT):
            segments[run[at]] = tuple(run[at + 1 : at + SEGMENT])
    return segments


def _result(graph: Graph, steps: Sequence[PlannedStep], number: Mapping[int, int]) -> object:
    if graph.result is not None:
        return template.remap(graph.result, number)
    last = [step for step in steps if not step.feeds]
    if len(last) == 1:
        return template.reference_to(last[0].n)
    return {step.name: template.reference_to(step.n) for step in last}
