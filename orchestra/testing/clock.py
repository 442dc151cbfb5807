"""A manual clock: time passes when it is told to."""


class Clock:
    """Seconds since the epoch. Called, it returns them; nothing but ``advance`` and ``set`` changes them."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass, and return the new time."""
        self.now += seconds
        return self.now

    def __repr__(self) -> str:
        return f"<clock at {self.now}>"
