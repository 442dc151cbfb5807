"""Lifetime: how long an orchestrator may be used, and the way to its store until then."""

from orchestra.errors import Closed
from orchestra.store.contract import Store


class Lifetime:
    """From opening an orchestrator to its end.

    It ends in two steps. While it is ``closing`` nothing new is taken, but the last events are still delivered, to
    handlers that read the store. After that nobody reads.
    """

    def __init__(self, store: Store) -> None:
        self.closing = False
        self._ended = False
        self._store = store

    @property
    def store(self) -> Store:
        """The store; raises Closed once this has ended."""
        if self._ended:
            raise Closed(self._store.url)
        return self._store

    def check(self) -> None:
        """Raise Closed from the beginning of the end on."""
        if self.closing:
            raise Closed(self._store.url)

    def end(self) -> None:
        """Close the store, the last step."""
        self._ended = True
        self._store.close()
