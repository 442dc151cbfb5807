"""Pace: how long those who tell of news, and those who read them, wait before they do it again.

Each wait grows with what there was to do, so that many events together cost little more than few, and the first one
after a silence waits for nothing.
"""

LONGEST_S = 0.25
"""No event waits longer, however many there are."""
SHORTEST_GAP_S = 0.05
_PER_COMMIT_S = 0.01
_READ_SHARE = 0.02


def gap_s(commits: int) -> float:
    """Return how long a process waits until it tells of news again, when it has just told of so many commits."""
    return min(LONGEST_S, max(SHORTEST_GAP_S, commits * _PER_COMMIT_S))


def rest_s(took_s: float) -> float:
    """Return how long a reader waits until it reads again, when the last read took so long and found something.

    It spends a fiftieth of its time with reading, as far as it needs no more.
    """
    return min(LONGEST_S, took_s / _READ_SHARE)
