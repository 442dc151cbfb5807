"""Random graphs as workflows that can be submitted, and what became of them."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from orchestra import Orchestrator, Workflow
from orchestra.model.graph import Graph
from orchestra.model.task import WorkflowRun
from orchestra.model.workflow import ExecutionPattern
from tests.loop import ends_of
from tests.shapes import Told, expected_status, interpret, random_graph


class Drawn(Workflow):
    """A graph that was drawn at random, in the place of tasks and dependencies."""

    def __init__(self, graph: Graph) -> None:
        self.id, self.name, self.tasks, self._graph = graph.id, graph.name, [], graph

    def graph(self, pattern: ExecutionPattern = ExecutionPattern.PARALLEL, given: object = None) -> Graph:
        return self._graph


def check_random_graphs(orch: Orchestrator, seeds: Sequence[int], timeout_s: float, *, at_once: int = 4) -> None:
    """Submit graphs, a few at a time, and compare how they end with what the interpreter says."""
    with ThreadPoolExecutor(at_once) as threads:
        for _ in threads.map(lambda seed: _check(orch, seed, timeout_s), seeds):
            pass


def _check(orch: Orchestrator, seed: int, timeout_s: float) -> None:
    graph, told = random_graph(seed), Told()
    _way, output = interpret(graph, told)
    run: WorkflowRun = orch.submit_workflow(Drawn(graph)).wait(timeout_s)
    assert (seed, ends_of(orch.parts.store, run.id)) == (seed, told.ends)
    assert (seed, run.status) == (seed, expected_status(told))
    assert (seed, run.output) == (seed, None if told.failed else json.loads(json.dumps(output)))
