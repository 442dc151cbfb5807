"""Drawing: the graph of a run as a tree of text, with where each step stands."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.text import Text
from rich.tree import Tree

from orchestra.cli.options import short
from orchestra.model.record import StepRecord
from orchestra.model.status import TaskStatus

S = TaskStatus
_MARKS = {
    S.PENDING: ("·", "dim"),
    S.QUEUED: ("○", "cyan"),
    S.RUNNING: ("▶", "bold blue"),
    S.RETRYING: ("↻", "yellow"),
    S.WAITING: ("…", "blue"),
    S.COMPLETED: ("✔", "green"),
    S.FAILED: ("✘", "bold red"),
    S.CANCELLED: ("■", "magenta"),
    S.SKIPPED: ("↷", "dim"),
}
_SHOWN = 30
"""Steps beside each other, or parts of one step, that are drawn one by one; of more only those that stand out are."""
_QUIET = frozenset({S.PENDING, S.QUEUED, S.COMPLETED, S.SKIPPED})


def draw(title: str, steps: Sequence[StepRecord], before: Mapping[int, Sequence[int]]) -> Tree:
    """Return a tree in which each step hangs below the last of those that it waits for, and names the others."""
    depth: dict[int, int] = {}
    for step in steps:  # predecessors have smaller numbers
        depth[step.ref.n] = 1 + max((depth.get(n, 0) for n in before.get(step.ref.n, ())), default=0)
    names = {step.ref.n: step.name for step in steps}
    below: dict[int | None, list[StepRecord]] = {}
    for step in steps:
        below.setdefault(_above(step, before, depth), []).append(step)
    tree = Tree(Text(title, style="bold"))
    todo: list[tuple[Tree, list[StepRecord]]] = [(tree, below.get(None, []))]
    while todo:
        node, hanging = todo.pop()
        shown = hanging if len(hanging) <= _SHOWN else [each for each in hanging if each.status not in _QUIET][:_SHOWN]
        for step in shown:
            todo.append((node.add(_line(step, before, names)), below.get(step.ref.n, [])))
        if len(shown) < len(hanging):
            node.add(_others(hanging, len(shown)))
    return tree


def _above(step: StepRecord, before: Mapping[int, Sequence[int]], depth: Mapping[int, int]) -> int | None:
    awaited = before.get(step.ref.n, ())
    if awaited:
        return max(awaited, key=lambda n: (depth.get(n, 0), n))
    return step.parent


def _line(step: StepRecord, before: Mapping[int, Sequence[int]], names: Mapping[int, str]) -> Text:
    mark, style = _MARKS[step.status]
    line = Text.assemble((f"{mark} ", style), step.name, (f"  {step.status.lower()}", style))
    if step.started_at is not None and step.completed_at is not None and step.status is not S.SKIPPED:
        line.append(f"  {short(max(0.0, step.completed_at - step.started_at))}", "dim")
    if step.attempts > 1 or step.crashes:
        tries = f"  {step.attempts} attempts" if step.attempts > 1 else ""
        line.append(tries + (f"  {step.crashes} crashes" if step.crashes else ""), "yellow")
    others = [names[n] for n in before.get(step.ref.n, ()) if n in names]
    if len(others) > 1:
        line.append(f"  ← {', '.join(others[:4])}{f' and {len(others) - 4} more' if len(others) > 4 else ''}", "dim")
    if step.error is not None and step.status is not S.SKIPPED:
        line.append(f"  {step.error.type}: {str(step.error).splitlines()[0][:120]}", "red")
    return line


def _others(hanging: Sequence[StepRecord], shown: int) -> Text:
    counted = Counter(each.status for each in hanging)
    parts = ", ".join(f"{count:,} {status.lower()}" for status, count in sorted(counted.items()))
    return Text(f"{len(hanging):,} steps: {parts}" + (f" ({shown} of them above)" if shown else ""), style="dim")
