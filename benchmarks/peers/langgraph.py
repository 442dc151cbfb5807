"""LangGraph in one process: a checkpoint is written before the next step starts, to SQLite or PostgreSQL."""

import operator
import os
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Send

from benchmarks import bodies

VERSIONS = ("langgraph", "langgraph-checkpoint")


class State(TypedDict):
    done: Annotated[int, operator.add]


def _saver():
    if os.environ["BENCH_VARIANT"] == "sqlite":
        from langgraph.checkpoint.sqlite import SqliteSaver

        return SqliteSaver(sqlite3.connect(os.environ["BENCH_FOLDER"] + "/graph.db", check_same_thread=False))
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import ConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    saver = PostgresSaver(ConnectionPool(os.environ["BENCH_POSTGRESQL"], min_size=2, max_size=8, kwargs=options))
    saver.setup()
    return saver


_compiled = {}


def workers(kind: str) -> list[list[str]]:
    return []


def build(name: str, *arguments) -> None:
    """A program compiles its graph once, so that is not measured."""
    made = StateGraph(State)
    {"chain": _chain, "fan_out": _fan_out, "layers": _layers, "graph": _graph}[name](made, *arguments)
    _compiled[name] = made.compile(checkpointer=_saver())


def _node(state: State) -> State:
    bodies.tick()
    return {"done": 1}


def _chain(made: StateGraph, length: int, count: int) -> None:
    made.add_sequence([(f"step-{number}", _node) for number in range(length)])
    made.add_edge(START, "step-0")


def _fan_out(made: StateGraph, width: int) -> None:
    made.add_node("part", _node)
    made.add_node("join", _node)
    made.add_conditional_edges(START, lambda state: [Send("part", state)] * width, ["part"])
    made.add_edge("part", "join")


def _layers(made: StateGraph, depth: int, width: int) -> None:
    before: list[str] = [START]
    for layer in range(depth):
        now = [f"{layer}-{number}" for number in range(width)]
        for name in now:
            made.add_node(name, _node)
            made.add_edge(before if layer else START, name)
        before = now


def _graph(made: StateGraph, steps: list) -> None:
    for number, (seconds, after) in enumerate(steps):

        def node(state: State, seconds: float = seconds) -> State:
            bodies.nap(seconds)
            return {"done": 1}

        made.add_node(str(number), node)
        made.add_edge([str(each) for each in after] or START, str(number))


def _invoke(name: str, slots: int | None = None) -> None:
    config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 10_000, "max_concurrency": slots}
    _compiled[name].invoke({"done": 0}, config, durability="sync")


def chain(length: int, count: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: _invoke("chain"), range(count)))


def fan_out(width: int) -> None:
    _invoke("fan_out")


def layers(depth: int, width: int) -> None:
    _invoke("layers")


def graph(steps: list) -> None:
    _invoke("graph", 16)
