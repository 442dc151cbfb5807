"""Learning: how often durations are read, and how much of them is kept."""

from orchestra.store.learning import ASK_AGAIN_S, READ_EVERY_S, Learning, took


class Reads:
    """Durations of a store, and which were asked for."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}
        self.names: list[str] = []
        self.now = 1000.0
        self.learning = Learning(self.read, lambda: self.now)

    def read(self, name: str) -> dict[str, float]:
        """Answer, and note it."""
        self.names.append(name)
        return dict(self.known)


def test_many_submits_read_once() -> None:
    reads = Reads()
    reads.known = {"s": 1.0}
    for _ in range(100):
        assert reads.learning("w") == {"s": 1.0}
    assert reads.names == ["w"]
    reads.known = {"s": 2.0}
    reads.now += READ_EVERY_S
    assert reads.learning("w") == {"s": 2.0}


def test_what_is_not_known_is_asked_again_soon() -> None:
    reads = Reads()
    assert [reads.learning("w"), reads.learning("w")] == [{}, {}]
    reads.known = {"s": 1.0}
    reads.now += ASK_AGAIN_S
    assert reads.learning("w") == {"s": 1.0}
    assert reads.names == ["w", "w"]


def test_names_without_end_are_not_kept_without_end() -> None:
    reads = Reads()
    for n in range(1000):
        reads.learning(f"w{n}")
    assert len(reads.learning._known) < 100


def test_names_that_come_twice_are_averaged_and_what_was_not_run_is_left_out() -> None:
    assert took([("a", 1.0, 2.0), ("a", 1.0, 4.0), ("b", None, 3.0), ("c", 2.0, 1.0)]) == {"a": 2.0, "c": 0.0}
