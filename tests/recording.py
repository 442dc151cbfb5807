"""A store that counts what is asked of it."""

from typing import Any

from orchestra.errors import StoreUnavailable
from orchestra.store.memory.store import MemoryStore


class Recording:
    """Stands before a store, and counts what is asked of it; it may be away for the next calls."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.calls: list[tuple[str, int]] = []
        self.away = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("claim", "record", "together"):
            return method

        def call(*args: Any) -> Any:
            if self.away:
                self.away -= 1
                raise StoreUnavailable("memory://", "away")
            self.calls.append((name, len(args[0]) if name == "together" else 1))
            return method(*args)

        return call
