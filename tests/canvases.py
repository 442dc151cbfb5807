"""Series-parallel workflows; as a program, it runs them as canvas on stock Celery and prints what they gave.

A program of its own, since Celery's results hold a connection until the process ends.
"""

import json
import os
from collections.abc import Callable

from orchestra import Orchestrator, Task, Workflow
from tests import bodies
from tests.cluster import RESULTS


def straight() -> Workflow:
    """A chain whose inputs are built from earlier outputs."""
    first = Task("first", bodies.echo, "x")
    second = Task("second", bodies.echo, lambda: f"<{first.output}>")
    third = Task("third", bodies.echo, lambda: {"list": [second.output, 1]})
    return Workflow("straight", [first, second, third], {"second": ["first"], "third": ["second"]})


def diamond() -> Workflow:
    """A→{B, C}→D→E."""
    tasks = [Task("A", bodies.mark, kwargs={"name": "A"}), *[Task(name, bodies.echo) for name in "BCDE"]]
    return Workflow("diamond", tasks, {"B": ["A"], "C": ["A"], "D": ["B", "C"], "E": ["D"]})


def forks() -> Workflow:
    """Two roots of different length, joined, and two steps after the join."""
    tasks = [Task(name, bodies.echo, name) for name in ("a", "b")]
    tasks += [Task(name, bodies.echo) for name in ("a2", "join", "left", "right")]
    after = {"a2": ["a"], "join": ["a2", "b"], "left": ["join"], "right": ["join"]}
    return Workflow("forks", tasks, after)


def nested() -> Workflow:
    """A fork inside of a fork: s→{p→{q, r}→t, u}→v."""
    tasks = [Task("s", bodies.echo, "s"), *[Task(name, bodies.echo) for name in "pqrtuv"]]
    after = {"p": ["s"], "u": ["s"], "q": ["p"], "r": ["p"], "t": ["q", "r"], "v": ["t", "u"]}
    return Workflow("nested", tasks, after)


def templates() -> Workflow:
    """A join whose body is told by a template what goes where."""
    a, b = Task("a", bodies.echo, "x"), Task("b", bodies.echo, "y")
    c = Task("c", bodies.echo, lambda: {"b": b.output, "both": f"{a.output}{b.output}"})
    return Workflow("templates", [a, b, c], {"c": ["a", "b"]})


def long() -> Workflow:
    """A chain that is longer than a segment."""
    tasks = [Task("0", bodies.echo, 1), *[Task(str(n), bodies.echo) for n in range(1, 20)]]
    return Workflow("long", tasks, {str(n): [str(n - 1)] for n in range(1, 20)})


WORKFLOWS: dict[str, Callable[[], Workflow]] = {
    each.__name__: each for each in (straight, diamond, forks, nested, templates, long)
}


def main() -> None:
    """Run all as canvas and print their results."""
    with Orchestrator(modules=["tests"]) as orch:
        orch.app.conf.result_backend = os.environ[RESULTS]
        results = {name: orch.compile(make()).apply_async() for name, make in WORKFLOWS.items()}
        print(json.dumps({name: result.get(timeout=30) for name, result in results.items()}))
        assert orch.runs() == [], "stock Celery keeps them, not the store"


if __name__ == "__main__":
    main()
