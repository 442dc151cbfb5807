"""Strands: ordinary code that can be stopped at any marked point and gone on with later, or never.

The code that is simulated is plain and synchronous; to stop it in the middle, each strand has a thread that carries it.
Nothing runs at the same time: whoever resumes a strand waits until it has stopped or ended. Which strand is next is the
scheduler's choice alone, so the same seed gives the same story.
"""

import threading
from collections.abc import Callable


class Killed(BaseException):
    """The process that the code ran in is gone. Not an Exception: the code that is simulated must not catch it."""


class Strand:
    """One piece of code on its way."""

    def __init__(self, name: str, body: Callable[[], object], strands: "Strands") -> None:
        self.name, self._body, self._strands = name, body, strands
        self._carrier: _Carrier | None = None
        self._killed = False
        self.ended = False
        self.error: BaseException | None = None

    def resume(self) -> None:
        """Let it run until it stops or ends. An error that it ended with is raised here."""
        if self.ended:
            return
        if self._carrier is None:
            if self._killed:
                self.ended = True
                return
            self._carrier = self._strands.carrier(self)
        before, self._strands.current = self._strands.current, self
        self._carrier.go.release()
        self._carrier.back.acquire()
        self._strands.current = before
        if self.ended:
            self._strands.free(self._carrier)
            if self.error is not None:
                raise self.error

    def kill(self) -> None:
        """Unwind it where it stands."""
        self._killed = True
        self.resume()

    def stop_here(self) -> None:
        """Called by the code itself: go back to whoever resumed it, and on from here at the next ``resume``."""
        if self._killed:
            raise Killed(self.name)
        assert self._carrier is not None, "called from outside"
        self._carrier.back.release()
        self._carrier.go.acquire()
        if self._killed:
            raise Killed(self.name)

    def run(self) -> None:
        """Run the body; called on the carrier."""
        try:
            self._body()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True


class _Carrier(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="simulation", daemon=True)
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()
        self.strand: Strand | None = None

    def run(self) -> None:
        while True:
            self.go.acquire()
            if self.strand is None:
                return
            self.strand.run()
            self.strand = None
            self.back.release()


class Strands:
    """All strands of a simulation, and the threads that carry them, which are used again and again."""

    def __init__(self) -> None:
        self.current: Strand | None = None
        self._free: list[_Carrier] = []

    def new(self, name: str, body: Callable[[], object]) -> Strand:
        """Return a strand that has not begun."""
        return Strand(name, body, self)

    def carrier(self, strand: Strand) -> "_Carrier":
        """Return a thread for a strand; called by the strand."""
        if self._free:
            carrier = self._free.pop()
        else:
            carrier = _Carrier()
            carrier.start()
        carrier.strand = strand
        return carrier

    def free(self, carrier: "_Carrier") -> None:
        """Take a thread back; called by the strand."""
        self._free.append(carrier)

    def close(self) -> None:
        """End the threads."""
        for carrier in self._free:
            carrier.go.release()
            carrier.join()
        self._free.clear()
