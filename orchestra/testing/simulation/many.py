"""Many seeds: on all processors, with what was found told and counted."""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from orchestra.store.contract import Store
from orchestra.testing.simulation.run import Report, Theatre

BATCH = 50


def theatre(kinds: str) -> Theatre:
    """Return a theatre with the stores named (``memory,sqlite``)."""
    known = {"memory": _memory, "sqlite": _sqlite}
    return Theatre({kind: known[kind] for kind in kinds.split(",")})


def _sqlite(window: int) -> Store:
    from orchestra.store.sql.store import SqlStore

    return SqlStore("sqlite://", window=window)


def _memory(window: int) -> Store:
    from orchestra.store.memory.store import MemoryStore

    return MemoryStore(window=window)


def main() -> int:
    """Play, print what was found, and return 1 if anything was."""
    parser = argparse.ArgumentParser(
        prog="orchestra.testing.simulation", description="Play seeds of the simulation; a failing one is told."
    )
    parser.add_argument("--seeds", type=int, default=20_000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with its whole story")
    parser.add_argument("--stores", default="memory,sqlite", help="comma-separated; each seed takes one of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--stop", type=int, default=1, help="stop after so many failures")
    given = parser.parse_args()
    if given.seed is not None:
        stage = theatre(given.stores)
        report = stage.play(given.seed, tell=True)
        _say("\n".join(report.story))
        _say(report.summary)
        return int(report.violation is not None)
    return _many(given)


def _many(given: argparse.Namespace) -> int:
    began, weather, totals, failed = time.monotonic(), Counter[str](), Counter[str](), 0
    for report in _reports(given):
        totals.update(
            seeds=1, steps=report.steps, messages=report.published, deaths=report.deaths, went=report.went,
            refused=report.superseded, innocents=len(report.innocents), unheard=report.unheard,
        )  # fmt: skip
        weather.update(report.weather or ["calm"])
        if report.violation is not None:
            failed += 1
            if failed <= given.stop:
                _say("\n".join([*report.story[-60:], report.summary, ""]))
            if failed >= given.stop:
                break
    took = time.monotonic() - began
    rate = 60 * totals["seeds"] / took
    _say(f"{totals['seeds']} seeds in {took:.0f} s ({rate:.0f} a minute), {failed} failed")
    _say(", ".join(f"{count} {what}" for what, count in totals.items() if what != "seeds"))
    _say("weather: " + ", ".join(f"{kind} {count}" for kind, count in weather.most_common()))
    return int(failed > 0)


def _reports(given: argparse.Namespace) -> Iterator[Report]:
    starts = range(given.first, given.first + given.seeds, BATCH)
    work = [(given.stores, at, min(at + BATCH, given.first + given.seeds)) for at in starts]
    if given.jobs == 1:
        for each in work:
            yield from _batch(each)
        return
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for reports in pool.imap_unordered(_batch, work):
            yield from reports


def _batch(work: tuple[str, int, int]) -> list[Report]:
    kinds, first, after = work
    stage = theatre(kinds)
    try:
        return [stage.play(seed) for seed in range(first, after)]
    finally:
        stage.close()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
