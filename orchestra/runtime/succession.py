"""Succession: the step that follows another on its slot is claimed in the transaction that records the other.

A slot whose body has ended is free, and where it is a thread of the worker nothing else has to know before the next
body may begin there. So the thread takes the next message itself, as the worker's loop would, and has it claimed with
its record; where none waits, the store claims what the record hands on. The worker then handles a message of that step
as if it had just fetched it: monitors, limits, revoked ids and the way out see nothing unusual.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from orchestra.engine.outcome import Completed
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef
from orchestra.runtime.cycle import Cycle, Ended, Turn
from orchestra.runtime.envelopes import Envelope
from orchestra.store.contract import Claimed, ClaimRef, Dispatch, Onward, Recorded, Refused

logger = logging.getLogger(__name__)

_LARGE = 16_384
"""Characters of an output that others do not wait for."""
_MOST_TARGETS = 16
NOT_BEGUN = "it was not begun"


class Fetched(NamedTuple):
    """A message that was taken from a queue, and its step."""

    queue: str
    key: str
    """Where it goes when it is put back."""
    message: Envelope
    ref: MessageRef


class Post(Protocol):
    """How the worker comes by messages."""

    def is_open(self) -> bool:
        """Whether messages can be taken: else nobody knows whether something more urgent waits."""
        ...

    def fetch(self, after: str) -> Fetched | None:
        """Take the most urgent message of the worker's queues without waiting, if it is of a step and no slot is idle.

        Args:
            after: The queue that was served last: others of the same urgency come first.
        """
        ...

    def put_back(self, fetched: Fetched) -> None:
        """Make it the next of its queue again."""
        ...

    def deliver(self, fetched: Fetched) -> None:
        """Have the worker handle it. Raises whatever keeps it from that."""
        ...

    def written(self, dispatch: Dispatch, following: Sequence[object]) -> Fetched:
        """Return the message that would be published for a step."""
        ...


class Host(Protocol):
    """The adapter, as far as it concerns what follows a step."""

    cycle: Cycle

    def may_be_followed(self, claim: ClaimRef) -> bool:
        """Whether the slot of a body that has ended may be given another."""
        ...

    def expect(self, claim: ClaimRef, follower: MessageRef | str) -> None:
        """Something is about to be claimed with the record of a claim: a step, or some step of a run."""
        ...

    def follow(self, claimed: Claimed) -> bool:
        """A step was claimed with the record of another. Returns whether it may be begun."""
        ...

    def settled(self, claim: ClaimRef) -> None:
        """It is known what was claimed with the record of a claim."""
        ...

    def unfollow(self, claimed: Claimed) -> None:
        """A step that was claimed cannot be begun."""
        ...


class Succession:
    """What follows on the slots of a worker. Its bodies run on many threads.

    Args:
        host: Knows what runs in this process.
    """

    def __init__(self, host: Host, post: Post) -> None:
        self._host, self._post = host, post
        self._fetched: dict[ClaimRef, Fetched] = {}
        """What is being claimed with the record of a claim."""
        self._targets: tuple[str, ...] = ()
        """What was called here lately: it can be called here."""

    def claimed(self) -> None:
        """It counts nothing."""

    def turn(self, ended: Ended, worker: str) -> Turn | None:
        """A body has ended: record it, and claim what follows."""
        claim, row = ended.claimed.claim, ended.claimed.row
        fetched = self._fetched.get(claim)
        if not self._may_be_followed(ended):
            if fetched is not None:
                del self._fetched[claim]
                self._post.put_back(fetched)
            return Turn((ended,))
        if fetched is None:
            fetched = self._post.fetch(row.queue)
        if fetched is not None:
            self._fetched[claim] = fetched
            self._host.expect(claim, fetched.ref)
            return Turn((ended,), None, (fetched.ref,))
        if row.key == claim.ref.step.run_id:
            return Turn((ended,))  # a task that was submitted alone hands on nothing of its run
        if row.target not in self._targets:
            self._targets = (row.target, *self._targets)[:_MOST_TARGETS]
        self._host.expect(claim, claim.ref.step.run_id)
        return Turn((ended,), Onward(worker, row.queue, row.priority, frozenset(self._targets)))

    def _may_be_followed(self, ended: Ended) -> bool:
        is_plain = isinstance(ended.change, Completed) and len(ended.change.output) <= _LARGE
        return is_plain and self._host.may_be_followed(ended.claimed.claim) and self._post.is_open()

    def settled(self, ended: Ended, recorded: Recorded | None) -> Sequence[Dispatch]:
        """It was recorded, or superseded: have what follows begun, and return what is to be published."""
        claim = ended.claimed.claim
        for dispatch, claimed in () if recorded is None else recorded.onward:
            self._follow(claimed, lambda dispatch=dispatch: self._post.written(dispatch, ended.following))
        if claim not in self._fetched:
            self._host.settled(claim)
        return () if recorded is None else recorded.dispatches

    def took(self, message: MessageRef, answer: Claimed | Refused) -> None:
        """The step of a message was claimed, or not."""
        claim = next((claim for claim, each in list(self._fetched.items()) if each.ref == message), None)
        if claim is None:
            return
        fetched = self._fetched.pop(claim)
        if isinstance(answer, Claimed):
            self._follow(answer, lambda: fetched)
        self._host.settled(claim)

    def _follow(self, claimed: Claimed, message: Callable[[], Fetched]) -> None:
        if not self._host.follow(claimed):
            self._give_back(claimed)
            return
        try:
            self._post.deliver(message())
        except Exception as error:
            logger.warning("%s cannot be begun here and is given back: %r", claimed.name, error)
            self._host.unfollow(claimed)
            self._give_back(claimed)

    def _give_back(self, claimed: Claimed) -> None:
        try:
            self._host.cycle.give_back(claimed.claim, NOT_BEGUN)
        except StoreUnavailable as away:
            logger.warning("%s, which cannot be begun here, is reopened later: %s", claimed.name, away)
