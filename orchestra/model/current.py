"""Current: what the body of a step can ask about itself, and what it can write down while it runs."""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from orchestra.errors import InvalidOption, NotInStep
from orchestra.model.event import check_custom
from orchestra.model.ids import StepRef
from orchestra.model.options import text as checked_text
from orchestra.model.record import RunRecord, moment
from orchestra.model.usage import UsageLimits, limits_in


class Keeper(Protocol):
    """What answers a body; the runtime's."""

    def save(self, key: str, value: object) -> None:
        """Save a checkpoint."""
        ...

    def saved(self, key: str, default: object) -> object:
        """Return a checkpoint."""
        ...

    def saved_keys(self) -> list[str]:
        """Return the keys of all checkpoints."""
        ...

    def earlier(self, metadata: Mapping[str, object], key: str, limit: int) -> list[object]:
        """Return checkpoints of earlier runs."""
        ...

    def others(self, key: str) -> dict[int, object]:
        """Return checkpoints of the other steps of the run."""
        ...

    def tell(self, share: float | None, message: str) -> None:
        """Keep progress."""
        ...

    def emit(self, event_type: str, data: Mapping[str, object]) -> None:
        """Write an event of the step to the log."""
        ...

    def say(self, text: str, by: str) -> None:
        """Give a piece of text to those who follow the step."""
        ...

    def run(self) -> RunRecord:
        """Return the run, as it was when it was first asked for."""
        ...

    def stop_requested(self) -> bool:
        """Whether somebody has asked the step to stop."""
        ...

    def leave_early(self) -> None:
        """Raise LeftEarly if the worker was told to go."""
        ...


class Checkpoint:
    """What the step has saved: JSON values by key, kept over crashes and retries, until the run goes."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def save(self, value: object, key: str = "default") -> None:
        """Save a value, in the place of what the key held. It is on the disk of the store when this returns.

        Args:
            value: Anything that an output may be. Small: it is written as a whole each time.
            key: For a step that saves several.

        Raises:
            UnserialisableOutput: JSON cannot hold it.
            Superseded: The step was cancelled, timed out, or another worker took it; nothing was saved. Let it pass.
        """
        self._keeper.save(checked_text("key", key), value)

    def load(self, default: object = None, key: str = "default") -> object:
        """Return what this or an earlier claim of the step saved last, as JSON has it, or else the default."""
        return self._keeper.saved(checked_text("key", key), default)

    def keys(self) -> list[str]:
        """Return the keys that something was saved under."""
        return self._keeper.saved_keys()


class Current:
    """The step whose body runs here. May be handed to threads that the body starts.

    Facts that are attributes cost nothing; those of the run are read from the store when first asked for.
    """

    def __init__(
        self,
        keeper: Keeper,
        ref: StepRef,
        name: str,
        *,
        claim: int,
        attempt: int,
        own: Mapping[str, object],
        ends_at: float | None,
        logger: logging.Logger,
    ) -> None:
        self._keeper, self._own, self._ends_at = keeper, own, ends_at
        self.run_id = ref.run_id
        """The run."""
        self.n = ref.n
        """The step's number in the run."""
        self.step_id = str(ref)
        """The step: ``run.n``."""
        self.name = name
        """The step's name."""
        self.claim = claim
        """How often a worker has taken the step, this time included."""
        self.attempt = attempt
        """Which attempt this is, from 1; a crashed worker was none."""
        self.idempotency_key = f"{ref.run_id}.{ref.n}"
        """The same in every claim, attempt and manual retry of this step, and in no other: for calls that must have one
        effect, whoever runs the body again."""
        self.checkpoint = Checkpoint(keeper)
        """What the step has saved."""
        self.logger = logger
        """A logger whose lines name run and step, and are kept with the run (the newest 1,000); see ``orch.logs``."""

    @property
    def run_name(self) -> str:
        """The workflow's name, or that of the task that was submitted alone."""
        return self._keeper.run().name

    @property
    def metadata(self) -> Mapping[str, object]:
        """The run's metadata, with the step's own over it."""
        return {**self._keeper.run().metadata, **self._own}

    @property
    def usage_limits(self) -> UsageLimits | None:
        """What the agents of the run may use together; None where nothing was said."""
        return limits_in(self._keeper.run().metadata)

    @property
    def job_id(self) -> str | None:
        """The scheduled job that made the run, if one did."""
        return self._keeper.run().job_id

    @property
    def scheduled_for(self) -> datetime | None:
        """The time that the run stands for, if a job made it."""
        return moment(self._keeper.run().scheduled_for)

    @property
    def deadline(self) -> datetime | None:
        """When this body has to be done: the end of its time limit or of its run, whichever comes first."""
        times = [at for at in (self._ends_at, self._keeper.run().deadline) if at is not None]
        return moment(min(times, default=None))

    @property
    def stop_requested(self) -> bool:
        """Whether the step was cancelled, ran out of time or was given to another worker: nothing that it does counts
        any more. Cheap enough for every turn of a loop."""
        return self._keeper.stop_requested()

    def safe_point(self) -> None:
        """Let the body be left here, when its worker was told to stop: right after a checkpoint, as a rule.

        Another worker then begins it again at once, and it goes on from what it has saved. Otherwise this does nothing,
        and is cheap enough for every turn of a loop.

        Raises:
            LeftEarly: The worker was told to stop. Let it pass.
        """
        self._keeper.leave_early()

    def progress(self, share: float | None, message: str = "") -> None:
        """Say how far it is: a share from 0 to 1 (None: not known), and a text for people.

        The newest counts. Cheap enough for every turn of a loop: what comes too fast is not written.
        """
        if share is not None and not 0 <= share <= 1:
            raise InvalidOption("share", share, "a number from 0 to 1, or None")
        self._keeper.tell(share, message)

    def say(self, text: str, by: str = "") -> None:
        """Give the next piece of a text to those who follow the step (``task.stream()``). Nothing of it is kept.

        ``by`` says whose text it is, for a step that writes several.
        """
        self._keeper.say(text, by)

    def emit(self, event: str, data: Mapping[str, object] | None = None) -> None:
        """Write a custom event to the log that names run and step: handlers of every process hear it."""
        self._keeper.emit(check_custom(event), dict(data or {}))

    def earlier(self, metadata: Mapping[str, object], key: str = "default", limit: int = 10) -> list[object]:
        """Return what steps of earlier runs saved under a checkpoint key, oldest first.

        Args:
            metadata: Entries that the metadata of those runs must have.
            limit: How many runs to look at, the newest.
        """
        return self._keeper.earlier(metadata, checked_text("key", key), limit)

    def others(self, key: str = "default") -> dict[int, object]:
        """Return what the other steps of the run saved last under a checkpoint key, by the steps' numbers."""
        return self._keeper.others(checked_text("key", key))

    def __repr__(self) -> str:
        return f"<Current {self.name!r} {self.step_id} claim {self.claim}>"


running: ContextVar[Callable[[], Current] | None] = ContextVar("orchestra_current", default=None)
"""Set by the runtime around each body: makes the step's ``Current`` when it is asked for."""


def in_step() -> bool:
    """Whether the body of a step runs here."""
    return running.get() is not None


def current() -> Current:
    """Return the step whose body this is called in.

    In a thread that the body has started itself, use the object that the body got.

    Raises:
        NotInStep: No step runs here.
    """
    make = running.get()
    if make is None:
        raise NotInStep
    return make()
