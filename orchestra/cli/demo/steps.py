"""The demo's workflow: list the modules, measure each in a step of its own, join, write the report."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from orchestra import task, workflow
from orchestra.cli.demo.graph import build_graph
from orchestra.cli.demo.measure import measure
from orchestra.cli.demo.modules import list_paths
from orchestra.cli.demo.rankings import rank_modules
from orchestra.cli.demo.records import Headline, ImportGraph, Measure, Rankings
from orchestra.cli.demo.report import write_files


@task
def list_modules(limit: int = 0) -> list[str]:
    """Return the source files of the standard library; with a limit, an evenly spaced sample."""
    return list_paths(limit)


@task
def measure_module(path: str) -> Measure:
    """Measure one module, and note when and where, for the report's timeline."""
    started, clock = time.time(), time.perf_counter()
    record = measure(path)
    record["worker"], record["started"] = _worker(), round(started, 4)
    record["seconds"] = round(time.perf_counter() - clock, 5)
    return record


@task
def rank(measures: list[Measure]) -> Rankings:
    """Join the measures into totals, rankings and distributions."""
    return rank_modules(measures)


@task
def import_graph(measures: list[Measure]) -> ImportGraph:
    """Join the measures into the import graph."""
    return build_graph(measures)


@task
def write_report(rankings: Rankings, graph: ImportGraph, measures: list[Measure], out: str) -> Headline:
    """Write the report into the folder `out`; return where it is, and the headline figures."""
    return write_files(rankings, graph, measures, Path(out))


@workflow
def analyse(out: str, limit: int = 0) -> Headline:
    """Measure the standard library of the interpreter that runs the workers."""
    modules = list_modules(limit)
    measures = measure_module.map(modules)
    return write_report(rank(measures), import_graph(measures), measures, out)


def _worker() -> str:
    """Name what does the work here: a process, and in a pool of threads also the thread."""
    thread = threading.current_thread()
    process = f"process {os.getpid()}"
    return process if thread is threading.main_thread() else f"{process}, {thread.name}"
