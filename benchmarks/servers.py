"""The servers of one run: private, on loopback, with empty files, and only those that somebody needs."""

import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

import psutil

from tests.servers import PrivatePostgres, PrivateRabbit, PrivateRedis


class Servers:
    """Started at entering, ended at leaving. Reads what they have done, and gives every visit an empty place."""

    def __init__(self, needed: Iterable[str]) -> None:
        self._needed = frozenset(needed)
        self._stack = ExitStack()
        self._redis: dict[str, PrivateRedis] = {}
        self._rabbit: PrivateRabbit | None = None
        self._postgres: PrivatePostgres | None = None
        self._database = ""

    def __enter__(self) -> Self:
        with ExitStack() as started:
            if "redis" in self._needed:
                self._redis["redis"] = started.enter_context(PrivateRedis())
            if "store" in self._needed:
                self._redis["store"] = started.enter_context(PrivateRedis(appendonly=True, fsync="everysec"))
            if "rabbitmq" in self._needed:
                self._rabbit = started.enter_context(PrivateRabbit())
            if "postgresql" in self._needed:
                self._postgres = started.enter_context(PrivatePostgres(fsync=True))
            self._stack = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def emptied(self) -> dict[str, str]:
        """Empty them, and return the variables that say where they are."""
        found = {f"BENCH_{name.upper()}": each.url for name, each in self._redis.items()}
        for each in self._redis.values():
            each.flush()
        if self._rabbit is not None:
            found["BENCH_RABBITMQ"] = self._rabbit.url
        if self._postgres is not None:
            self._database = self._replace_database(self._database)
            found["BENCH_POSTGRESQL"] = self._postgres.url.removesuffix("/postgres") + f"/{self._database}"
        return found

    def flush_broker(self) -> None:
        """Delete what the Redis broker holds, as a careless operator would."""
        self._redis["redis"].flush()

    def seconds(self) -> float:
        """Return the processor seconds that all of them have used."""
        roots = [each.pid for each in (*self._redis.values(), self._rabbit, self._postgres) if each is not None]
        return sum(used(root) for root in roots)

    def redis_counters(self) -> dict[str, int]:
        """Return commands, and bytes received, of both Redis servers together; nothing where there is none."""
        total: dict[str, int] = {}
        for each in self._redis.values():
            with each.client() as client:
                info = client.info("stats")
            total["commands"] = total.get("commands", 0) + info["total_commands_processed"]
            total["bytes_in"] = total.get("bytes_in", 0) + info["total_net_input_bytes"]
        return total

    def _replace_database(self, old: str) -> str:
        import psycopg  # only a run with PostgreSQL needs it

        assert self._postgres is not None
        name = f"bench_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self._postgres.url, autocommit=True) as admin:
            if old:
                admin.execute(f'DROP DATABASE IF EXISTS "{old}" WITH (FORCE)')
            admin.execute(f'CREATE DATABASE "{name}"')
        return name


def tree(root: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def used(root: int) -> float:
    """Return the processor seconds of a tree, with those of children that have ended."""
    total = 0.0
    for each in tree(root):
        try:
            total += sum(each.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def memory(root: int) -> float:
    """Return the megabytes of a tree, shared pages counted once."""
    total = 0
    for each in tree(root):
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1e6
