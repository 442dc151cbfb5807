"""The run itself: every round visits every contestant once, A B C A B C, and measures all cases that are asked for."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from benchmarks.case import Case
from benchmarks.contestants import Contestant
from benchmarks.machine import calibrate
from benchmarks.samples import Sample
from benchmarks.servers import Servers
from benchmarks.visit import Failed, Visit


def play(
    cases: Sequence[Case],
    contestants: Sequence[Contestant],
    servers: Servers,
    *,
    rounds: int,
    size: str,
    graphs: Path | None = None,
) -> Iterator[Sample]:
    """Yield samples as they come. Who fails in a case, or cannot express it, is not asked again.

    Cases that want the same kind of workers share a visit, so that starting them is paid once.
    """
    out: set[tuple[str, str]] = set()
    for number in range(rounds):
        for contestant in contestants:
            for kind, group in groupby(cases, lambda case: case.workers):
                takes = [case for case in group if contestant.takes(case.name)]
                wanted = [case for case in takes if (contestant.name, case.name) not in out]
                blank = Sample(number, "", contestant.name, size)
                for sample in _visits(wanted, contestant, servers, graphs, kind, blank):
                    if sample.problem:
                        out.add((contestant.name, sample.case))
                    yield sample


def _visits(
    cases: Sequence[Case],
    contestant: Contestant,
    servers: Servers,
    graphs: Path | None,
    kind: str | None,
    blank: Sample,
) -> Iterator[Sample]:
    """Measure cases with one start of a contestant, and start it again after one that failed: what that left undone
    would disturb the next."""
    left = list(cases)
    while left:
        with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
            visit = Visit(contestant, servers, Path(folder), graphs)
            try:
                with visit.running(kind or "processes") as versions:
                    blank = replace(blank, versions=versions)
                    for case in [each for each in left if not visit.offers(each.needs)]:
                        left.remove(case)
                        yield replace(blank, case=case.name, problem=f"has no {case.needs}", offered=False)
                    if left and kind is not None:
                        visit.start(kind)
                    while left:
                        loop = calibrate()
                        figures = left[0].sample(visit, blank.size)
                        yield replace(blank, case=left.pop(0).name, loop_ms=loop, figures=figures)
            except Failed as error:
                yield replace(blank, case=left.pop(0).name, problem=str(error))
