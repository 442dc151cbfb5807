"""Samples as lines of JSON: the first line of a file is the machine, every other one a contestant's case in a round."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contestant did in one case of one round.

    Attributes:
        loop_ms: What the calibration loop took just before; 0 where it was not reached.
        figures: What was measured; empty where it failed or is not offered.
        problem: Why there is nothing, else empty.
        offered: Whether the contestant can express the case.
    """

    round: int
    case: str
    contestant: str
    size: str
    loop_ms: float = 0.0
    figures: dict[str, float] = field(default_factory=dict[str, float])
    problem: str = ""
    offered: bool = True
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def line(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True, slots=True)
class Run:
    """A file of samples."""

    machine: dict[str, str]
    samples: tuple[Sample, ...]

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Return what a file holds."""
        first, *others = path.read_text().splitlines()
        return cls(json.loads(first)["machine"], tuple(Sample(**json.loads(line)) for line in others))


_PATH = re.compile(r"(?<![\w.])/(?:[\w.@+-]+/)+[\w.@+-]*")


def fit_to_publish(line: str) -> str:
    """Return a line of a file without what belongs to one machine: of problems the first line, and no paths."""
    sample = json.loads(line)
    if sample.get("problem"):
        first, *_ = sample["problem"].splitlines()
        sample["problem"] = _PATH.sub("…", first)
    return json.dumps(sample)


def joined(files: Sequence[str]) -> str:
    """Return one file of several, fit to be published; the machine is that of the first."""
    machine, *_ = files[0].splitlines()
    lines = [machine, *(line for each in files for line in each.splitlines()[1:])]
    return "".join(f"{fit_to_publish(line)}\n" for line in lines)


def by_contestant(samples: Iterable[Sample], case: str, key: str) -> dict[str, dict[int, float]]:
    """Return one figure of one case: contestant → round → value, where there is one."""
    found: dict[str, dict[int, float]] = {}
    for sample in samples:
        if sample.case == case and key in sample.figures:
            found.setdefault(sample.contestant, {})[sample.round] = sample.figures[key]
    return found


def excuses(samples: Sequence[Sample], case: str) -> dict[str, str]:
    """Return why contestants have no figures of a case; those that have some, or cannot express it, are left out."""
    told = {sample.contestant: sample.problem for sample in samples if sample.case == case and sample.offered}
    return {name: problem for name, problem in told.items() if problem and not _measured(samples, case, name)}


def _measured(samples: Sequence[Sample], case: str, name: str) -> bool:
    return any(each.figures for each in samples if each.case == case and each.contestant == name)
