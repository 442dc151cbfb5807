"""Samples as Markdown: a table and a chart for each case, who took part, and what to make of it."""

from collections.abc import Sequence

from benchmarks.case import Case, Figure
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.figures import drift, ratios, shown, spread
from benchmarks.samples import Run, by_contestant, excuses

BASE = "celery"
BAR = 40
BIAS = """\
We wrote Orchestra, and we wrote these scripts. We know our own system better than any of the others, chose the cases,
and measured them more often than once while we made ours faster. The scripts in `benchmarks/peers` are short so that
the peers' authors can judge them; a better configuration of theirs is a welcome change.

In our favour: bodies do nothing, which weighs the cost of the system itself most, and everything is on one machine,
where a round trip to a server is cheap. Against us: every step is written down, where most peers write nothing; our
Redis store keeps an append-only file, their Redis does not; and the time ends at the last body, so that nobody is
waited for who still has a result to write, ourselves included.
"""


def document(run: Run, cases: Sequence[Case]) -> str:
    """Return the page."""
    measured = [case for case in cases if any(each.case == case.name and each.figures for each in run.samples)]
    parts = [
        "# Benchmarks",
        "Made by `make bench` and `python -m benchmarks --publish`, not edited by hand;"
        " `benchmarks/README.md` says how.",
        f"## The machine\n\n{_machine(run)}",
        *(f"## {case.name}\n\n{section(run, case)}" for case in measured),
        f"## Who took part\n\n{_contestants(run)}",
        f"## Our own bias\n\n{BIAS}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def section(run: Run, case: Case) -> str:
    """Return the table and the chart of one case."""
    size = next(each.size for each in run.samples if each.case == case.name)
    parts = [case.asks.format(**case.sizes[size]) + ".", table(run, case), chart(run, case)]
    if told := excuses(run.samples, case.name):
        parts.append("\n".join(f"- {name}: {problem.splitlines()[0]}" for name, problem in told.items()))
    return "\n\n".join(part for part in parts if part)


def table(run: Run, case: Case) -> str:
    """Return a row for each contestant, best first; the first column also as a multiple of bare Celery."""
    first, *others = case.figures
    values = {figure.key: by_contestant(run.samples, case.name, figure.key) for figure in case.figures}
    others = [figure for figure in others if values[figure.key]]
    base = values[first.key].get(BASE, {})
    compared = [f"÷ {BASE}, same round"] if base else []
    rows = [["", first.title, *compared, *(figure.title for figure in others), "rounds"]]
    ranked = _ranked(values[first.key], first)
    also = {name for samples in values.values() for name in samples} - set(ranked)
    for name in [*ranked, *sorted(also)]:
        own = values[first.key].get(name, {})
        row = [name, _cell(own)]
        if base:
            row.append(_times(ratios(own, base)))
        row += [_cell(values[figure.key].get(name, {}), brief=True) for figure in others]
        rows.append([*row, str(max(len(each.get(name, {})) for each in values.values()))])
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def chart(run: Run, case: Case) -> str:
    """Return bars of the first column's medians; the longest is as long as the page."""
    first = case.figures[0]
    values = by_contestant(run.samples, case.name, first.key)
    if not values:
        return ""
    medians = {name: spread(values[name].values()).median for name in _ranked(values, first)}
    longest = max(medians.values())
    lines = [f"{first.title} ({'longer' if first.more else 'shorter'} is better)"]
    for name, median in medians.items():
        lines.append(f"{name:<24}{shown(median):>9}  {'█' * max(1, round(BAR * median / longest))}")
    return "\n".join(["```text", *lines, "```"])


def _ranked(values: dict[str, dict[int, float]], figure: Figure) -> list[str]:
    return sorted(values, key=lambda name: spread(values[name].values()).median, reverse=figure.more)


def _cell(samples: dict[int, float], *, brief: bool = False) -> str:
    if not samples:
        return "–"
    seen = spread(samples.values())
    if brief or seen.count == 1:
        return shown(seen.median)
    return f"**{shown(seen.median)}** ({shown(seen.low)}–{shown(seen.high)})"


def _times(found: Sequence[float]) -> str:
    return shown(spread(found).median) if found else "–"


def _machine(run: Run) -> str:
    loops = [each.loop_ms for each in run.samples if each.loop_ms]
    rounds = max(each.round for each in run.samples) + 1
    steady = (
        f"A loop of pure Python before every measurement took {shown(min(loops))}–{shown(max(loops))} ms, a factor"
        f" of {shown(drift(loops))}: that much of any difference may be the machine. Medians of {rounds} interleaved"
        " rounds (A B C A B C), in brackets the smallest and the largest; ratios are made within a round. Raw samples:"
        " `benchmarks/samples.jsonl`."
    )
    facts = "\n".join(f"| {name} | {value} |" for name, value in run.machine.items())
    return f"| | |\n|---|---|\n{facts}\n\n{steady}"


def _contestants(run: Run) -> str:
    rows = ["| name | how it is set up | what is recorded | versions |", "|---|---|---|---|"]
    for each in CONTESTANTS:
        if versions := _versions(run, each):
            rows.append(f"| {each.name} | {each.setup} | {each.records} | {versions} |")
    return "\n".join(rows)


def _versions(run: Run, contestant: Contestant) -> str:
    seen = next((each.versions for each in run.samples if each.contestant == contestant.name and each.versions), {})
    return ", ".join(f"{name} {version}" for name, version in seen.items())
