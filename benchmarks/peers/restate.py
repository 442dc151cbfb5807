"""Restate: its server, with files of its own, and two processes of handlers behind hypercorn."""

import asyncio
import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import restate

from benchmarks import bodies

VERSIONS = ("restate-sdk", "hypercorn")
SERVERS = {"restate-server": Path(__file__).with_suffix(".npm").read_text().strip().rpartition("@")[2]}
PORTS = os.environ["BENCH_PORTS"].split(",")
INGRESS, ADMIN, NODE, HANDLERS = (f"127.0.0.1:{port}" for port in PORTS)
ENV = {
    "RESTATE_INGRESS__BIND_ADDRESS": INGRESS,
    "RESTATE_ADMIN__BIND_ADDRESS": ADMIN,
    "RESTATE_BIND_ADDRESS": NODE,
    "RESTATE_LISTEN_MODE": "tcp",
    "RESTATE_DISABLE_TELEMETRY": "true",
    "RESTATE_LOG_FILTER": "error",
    "DO_NOT_TRACK": "1",
}
CONNECTIONS = 16
service = restate.Service("Bench")
_loop = asyncio.new_event_loop()


def workers(kind: str) -> list[list[str]]:
    (server,) = Path(sys.prefix).glob("node_modules/@restatedev/restate-server-*/bin/restate-server")
    processes = {"processes": "2", "slots": "1", "waits": "1"}[kind]
    serve = ["hypercorn", "-w", processes, "-b", HANDLERS, "--log-level", "ERROR", "benchmarks.peers.restate:app"]
    return [[str(server), "--no-logo", "--base-dir", os.environ["BENCH_FOLDER"] + "/restate"], serve]


def ready() -> None:
    """Tell the server where the handlers are, as soon as both are up."""
    where = json.dumps({"uri": f"http://{HANDLERS}", "force": True}).encode()
    order = urllib.request.Request(f"http://{ADMIN}/deployments", where, {"content-type": "application/json"})
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(order, timeout=10).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


async def _tick() -> int:
    return bodies.noop()


@service.handler("noop")
async def _noop(ctx: restate.Context, before: int) -> int:
    return bodies.noop()


@service.handler("chain")
async def _chain(ctx: restate.Context, length: int) -> None:
    for number in range(length):
        await ctx.run_typed(f"step-{number}", _tick)


@service.handler("layers")
async def _layers(ctx: restate.Context, given: list[int]) -> None:
    depth, width, join = given
    for _ in range(depth):
        await restate.gather(*[ctx.service_call(_noop, arg=number) for number in range(width)])
    if join:
        await ctx.run_typed("join", _tick)


@service.handler("nap")
async def _nap(ctx: restate.Context, seconds: float) -> int:
    return await bodies.anap(seconds)


@service.handler("stamp")
async def _stamp(ctx: restate.Context, begun: int) -> int:
    return bodies.stamp(begun)


app = restate.app([service])


async def _posts(order: bytes, left: list[None]) -> None:
    """Post the same again and again on one connection: an HTTP client would cost more than what it measures."""
    answers, orders = await asyncio.open_connection(*INGRESS.split(":"))
    while left:
        left.pop()
        orders.write(order)
        head = (await answers.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 2"), head
        await answers.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
    orders.close()


def _send(handler: str, count: int, argument: object, how: str = "/send") -> None:
    body = json.dumps(argument).encode()
    head = f"POST /Bench/{handler}{how} HTTP/1.1\r\nhost: {INGRESS}\r\ncontent-type: application/json\r\n"
    order = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    left = [None] * count

    async def send() -> None:
        await asyncio.gather(*[_posts(order, left) for _ in range(min(count, CONNECTIONS))])

    _loop.run_until_complete(send())


def noop(count: int) -> None:
    _send("noop", count, 0)


def chain(length: int, count: int) -> None:
    _send("chain", count, length)


def fan_out(width: int) -> None:
    _send("layers", 1, [1, width, 1])


def layers(depth: int, width: int) -> None:
    _send("layers", 1, [depth, width, 0])


def waits(count: int, seconds: float) -> None:
    _send("nap", count, seconds)


def stamp(begun: int) -> None:
    _send("stamp", 1, begun)


def result() -> None:
    _send("noop", 1, 0, how="")
