"""RetryPolicy: how often a failed body is tried again, and when."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestra.errors import InvalidOption
from orchestra.model.options import Duration, seconds

Errors: TypeAlias = type[BaseException] | str | Sequence[type[BaseException] | str]


def _names(option: str, errors: Errors) -> tuple[str, ...]:
    several = list(errors) if isinstance(errors, Iterable) and not isinstance(errors, (str, type)) else [errors]
    for each in several:
        if not (isinstance(each, str) or (isinstance(each, type) and issubclass(each, BaseException))):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption(option, each, "exception types or their names")
    return tuple(each if isinstance(each, str) else f"{each.__module__}.{each.__qualname__}" for each in several)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, init=False)
class RetryPolicy:
    """How often a body that raised is tried again, and when.

    ``max_attempts`` counts the first one, so 3 means at most two retries; the default of a task without a policy is one
    attempt. A crashed worker is no attempt. The wait before retry k (1, 2, …) is ``delay · backoff^(k-1)``, at most
    ``max_delay``, then varied by ± ``jitter`` (a share, 0.1 is ten per cent).

    ``retry_on`` limits retries to some errors, ``give_up_on`` excludes some. Both take exception types or their names
    (``"ConnectionError"``, ``"requests.exceptions.Timeout"``); subclasses count, since what is compared is every class
    name of the raised error.
    """

    max_attempts: int = 3
    delay_s: float = 1.0
    backoff: float = 2.0
    max_delay_s: float = 3600.0
    jitter: float = 0.1
    retry_on: tuple[str, ...] = field(default=())
    give_up_on: tuple[str, ...] = field(default=())

    def __init__(
        self,
        max_attempts: int = 3,
        delay: Duration = 1.0,
        backoff: float = 2.0,
        max_delay: Duration = 3600.0,
        jitter: float = 0.1,
        retry_on: Errors = (),
        give_up_on: Errors = (),
    ) -> None:
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or not 1 <= max_attempts <= 1000:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption("max_attempts", max_attempts, "a whole number from 1 to 1000 (1 means no retry)")
        if not _is_number(backoff) or not 1.0 <= backoff <= 100.0:
            raise InvalidOption("backoff", backoff, "a factor from 1 to 100")
        if not _is_number(jitter) or not 0.0 <= jitter <= 1.0:
            raise InvalidOption("jitter", jitter, "a share from 0 to 1")
        put = object.__setattr__
        put(self, "max_attempts", max_attempts)
        put(self, "delay_s", seconds("delay", delay))
        put(self, "backoff", float(backoff))
        put(self, "max_delay_s", seconds("max_delay", max_delay))
        put(self, "jitter", float(jitter))
        put(self, "retry_on", _names("retry_on", retry_on))
        put(self, "give_up_on", _names("give_up_on", give_up_on))

    def delay_after(
        self, attempt: int, error_types: Iterable[str], *, spread: random.Random | None = None
    ) -> float | None:
        """Return how many seconds to wait after this attempt (1 = the first) failed, or None to give up.

        ``error_types`` are the class names of the error, most specific first, as ``error_names`` gives them.
        """
        types = set(error_types)
        if attempt >= self.max_attempts or types.intersection(self.give_up_on):
            return None
        if self.retry_on and not types.intersection(self.retry_on):
            return None
        # The exponent is bounded: 100 ** 999 would overflow long before max_delay is asked.
        wait = min(self.delay_s * self.backoff ** min(attempt - 1, 64), self.max_delay_s)
        share = (spread or random).uniform(-self.jitter, self.jitter)
        return max(0.0, wait * (1.0 + share))

    def to_json(self) -> dict[str, object]:
        """Return what ``from_json`` takes back."""
        return {
            "max_attempts": self.max_attempts,
            "delay": self.delay_s,
            "backoff": self.backoff,
            "max_delay": self.max_delay_s,
            "jitter": self.jitter,
            "retry_on": list(self.retry_on),
            "give_up_on": list(self.give_up_on),
        }

    @classmethod
    def from_json(cls, data: dict[str, object]) -> "RetryPolicy":
        """Return the policy that ``to_json`` wrote."""
        return cls(**data)  # pyright: ignore[reportArgumentType]


ONCE = RetryPolicy(max_attempts=1)
"""The default: one attempt."""


def policy(value: object) -> RetryPolicy:
    """Return a policy: ``retry=3`` means three attempts, None means one."""
    match value:
        case RetryPolicy():
            return value
        case None:
            return ONCE
        case bool():
            raise InvalidOption("retry", value, "a number of attempts or a RetryPolicy")
        case int():
            return RetryPolicy(max_attempts=value)
        case _:
            raise InvalidOption("retry", value, "a number of attempts or a RetryPolicy")


def error_names(error: BaseException) -> list[str]:
    """Return the names an error answers to: each class of its ancestry, short and with its module."""
    names: list[str] = []
    for each in type(error).__mro__:
        if each is not object:
            names += [each.__qualname__, f"{each.__module__}.{each.__qualname__}"]
    return names
