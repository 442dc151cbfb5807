"""Measure Orchestra beside its peers.

    python -m benchmarks --case chain --peers celery,taskiq
    python -m benchmarks --publish build/benchmarks/samples.jsonl

The first prints tables and keeps the samples under build/; the second writes docs/benchmarks.md from samples, of
several runs on the same machine where they had different cases.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks.case import SIZES, Case
from benchmarks.cases import CASES
from benchmarks.contestants import Contestant, chosen
from benchmarks.environments import BUILD, CannotInstall, python_of
from benchmarks.machine import described
from benchmarks.report import document, section
from benchmarks.rounds import play
from benchmarks.samples import Run, joined
from benchmarks.servers import Servers

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Run, or publish what was run."""
    given = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that servers and workers are stopped
    if given.publish:
        publish(given.publish)
        return
    try:
        cases, contestants = _cases(given.case), chosen(given.peers, without=given.without)
    except ValueError as error:
        sys.exit(str(error))
    samples = run(cases, contestants, rounds=given.rounds, size=given.size, out=given.out, graphs=given.graphs)
    found = Run.read(samples)
    for case in cases:
        if any(each.case == case.name and each.figures for each in found.samples):
            print(f"\n## {case.name}\n\n{section(found, case)}")
    if not any(each.figures for each in found.samples):
        sys.exit("nothing was measured")


def run(
    cases: list[Case],
    contestants: tuple[Contestant, ...],
    *,
    rounds: int,
    size: str,
    out: Path,
    graphs: Path | None = None,
) -> Path:
    """Play the rounds, print each sample as it comes, and return the file that holds them."""
    contestants = installed(contestants)  # before the clock runs
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = described()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    needed = frozenset[str]().union(*(each.servers for each in contestants))
    with out.open("w") as file, Servers(needed) as servers:
        file.write(json.dumps({"machine": machine}) + "\n")
        for sample in play(cases, contestants, servers, rounds=rounds, size=size, graphs=graphs):
            file.write(sample.line())
            file.flush()
            figures = "  ".join(f"{name} {value:.4g}" for name, value in sample.figures.items())
            print(
                f"{sample.round + 1} {sample.case:<9} {sample.contestant:<24} {figures or sample.problem}", flush=True
            )
    return out


def installed(contestants: tuple[Contestant, ...]) -> tuple[Contestant, ...]:
    """Make the environments, and return those who have one."""
    missing: set[str] = set()
    for peer in dict.fromkeys(each.peer for each in contestants):
        try:
            python_of(peer)
        except CannotInstall as error:
            print(f"{peer} does not take part: {error}", flush=True)
            missing.add(peer)
    return tuple(each for each in contestants if each.peer not in missing)


def publish(samples: list[Path]) -> None:
    """Write the page, and keep the samples beside the suite."""
    kept = ROOT / "benchmarks" / "samples.jsonl"
    kept.write_text(joined([each.read_text() for each in samples]))
    page = ROOT / "docs" / "benchmarks.md"
    page.write_text(document(Run.read(kept), CASES))
    print(f"wrote {page} and {kept}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("--case", type=_listed, default=[], help=f"some of {names}; default all")
    parser.add_argument("--peers", type=_listed, default=[], help="systems or configurations; default all")
    parser.add_argument("--without", type=_listed, default=[], help="configurations of these that do not take part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--out", type=Path, default=BUILD / "samples.jsonl")
    parser.add_argument("--graphs", type=Path, help="folder of recorded graphs; default drawn ones of the same shapes")
    parser.add_argument("--publish", type=Path, nargs="+", metavar="SAMPLES")
    return parser


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _cases(names: list[str]) -> list[Case]:
    known = {case.name: case for case in CASES}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no case is called {unknown[0]!r}; there are {', '.join(known)}")
    return [case for case in CASES if not names or case.name in names]


if __name__ == "__main__":
    main()
