"""Scripts: what a simulated body does, as the text that stands for its function in the store."""

import json
import random
from dataclasses import asdict, dataclass

from orchestra.model.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Script:
    """What a body does. ``times`` is how often it misbehaves before it does well; 99 is always."""

    kind: str = "ok"
    """ok, list, raise, ask (for a retry), ignore, unknown, nest, deeper, kill (its worker) or kill child."""
    seconds: float = 0.0
    times: int = 0
    size: int = 0
    """Elements of a list, or seed of what it turns into."""

    def text(self) -> str:
        """Return what ``parse`` takes back."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Script":
        """Return the script of a text."""
        return cls(**json.loads(text))


ALWAYS = 99

ERRORS = {
    "raise": {"Boom"},
    "ask": {"Boom"},
    "ignore": {"EndedWithoutOutcome"},
    "unknown": {"TaskNotFound"},
    "deeper": {"TooManyRounds"},
    "kill": {"WorkerCrashed"},
    "kill child": {"WorkerCrashed"},
}
"""Error types with which a step may fail, by the kind of its script; ``TaskTimedOut`` where it has a time limit."""


class Boom(Exception):
    """What bodies raise."""


def anything(rng: random.Random, depth: int) -> tuple[Script, RetryPolicy | None, float | None]:
    """Return a script, its retry policy and its time limit."""
    seconds = rng.choice((0.0, 0.0, 0.01, 0.1, 0.5, 2.0, 7.0)) * rng.random()
    kind = rng.choices(
        ("ok", "raise", "ask", "ignore", "unknown", "nest", "deeper", "kill", "kill child", "slow"),
        (72, 10, 3, 1, 1, 5 if depth == 0 else 1, 2 if depth == 0 else 0, 2, 3, 3),
    )[0]
    retry = None
    if kind == "raise" or rng.random() < 0.1:
        retry = RetryPolicy(rng.randint(1, 4), rng.choice((0.05, 1.0, 4.0)), rng.choice((1.0, 2.0)), jitter=0.0)
    match kind:
        case "raise":
            return Script(kind, seconds, rng.choice((1, 1, 2, 3, ALWAYS))), retry, None
        case "kill" | "kill child":
            return Script(kind, seconds, rng.choice((1, 1, 2, ALWAYS))), retry, None
        case "ask":
            return Script(kind, seconds, rng.randint(1, 2)), retry, None
        case "nest" | "deeper":
            return Script(kind, seconds, size=rng.randrange(1 << 30)), retry, None
        case "slow":
            return Script("ok", rng.choice((0.5, 3.0))), retry, rng.choice((0.3, 1.0, 10.0))
        case _:
            return Script(kind, seconds), retry, None
