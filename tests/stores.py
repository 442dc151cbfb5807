"""The four stores, each empty and of one test alone."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from orchestra.store.contract import Store

KINDS = ("memory", "sqlite", "postgresql", "redis")


def store_url(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty store of a kind. Servers are looked for when a test of theirs runs."""
    match kind:
        case "memory":
            return "memory://"
        case "sqlite":
            path: Path = request.getfixturevalue("tmp_path")
            return f"sqlite:///{path}/state.db"
        case "postgresql":
            return str(request.getfixturevalue("postgres_store_url"))
        case _:
            return f"{request.getfixturevalue('redis_url')}?prefix=test-{uuid.uuid4().hex[:12]}"


def open_url(url: str, **options: Any) -> Store:
    """Open the store of a URL."""
    if url.startswith("memory:"):
        from orchestra.store.memory.store import MemoryStore

        return MemoryStore(**options)
    if url.startswith("redis:"):
        from orchestra.store.redis.store import RedisStore

        return RedisStore(url, **options)
    from orchestra.store.sql.store import SqlStore

    return SqlStore(url, **options)
