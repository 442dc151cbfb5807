"""Graphs of steps that do nothing, and a worker that runs them against a store without any broker."""

from collections.abc import Callable, Sequence

from orchestra.engine.outcome import Change, Completed
from orchestra.engine.plan import Plan, Target, plan
from orchestra.model.graph import Graph, GraphStep, identity
from orchestra.model.ids import MessageRef, new_id
from orchestra.store.contract import Claimed, NewRun, Store


def planned(after: Sequence[Sequence[int]], *, queue: str = "q", names: Sequence[str] | None = None) -> Plan:
    """Return a plan whose step n waits for the steps ``after[n]``."""
    steps = [
        GraphStep(f"s{n}", names[n] if names else f"s{n}", identity, [], {}, frozenset(each))
        for n, each in enumerate(after)
    ]
    return plan(Graph("w", "w", steps), lambda _agent: Target("t", "p"), queue=queue)


def layered(layers: int, width: int) -> list[list[int]]:
    """Return the predecessors in a graph of fully connected layers."""
    return [
        list(range((layer - 1) * width, layer * width)) if layer else []
        for layer in range(layers)
        for _ in range(width)
    ]


def create(
    store: Store, after: Sequence[Sequence[int]], *, queue: str = "q", now: float = 1.0
) -> tuple[str, list[MessageRef]]:
    """Create a run; return its id and what was sent."""
    (created,) = store.create_runs([NewRun(new_id(), "w", "w", planned(after, queue=queue))], now)
    return created.run_id, [each.ref for each in created.dispatches]


def work(
    store: Store,
    messages: list[MessageRef],
    worker: str = "w",
    outcome: Callable[[MessageRef], Change] = lambda _message: Completed("null"),
) -> int:
    """Do what is in a list of messages and what that releases, until the list is empty. Returns how many were done.

    Several threads may share a list.
    """
    done = 0
    while messages:
        try:
            message = messages.pop()
        except IndexError:
            break
        claimed = store.claim(message, worker, 2.0)
        if isinstance(claimed, Claimed):
            recorded = store.record(claimed.claim, outcome(message), 3.0)
            if recorded is not None:
                done += 1
                messages.extend(each.ref for each in recorded.dispatches)
    return done
