"""The tables of the docs say what the code says: every setting with its default, every error with its parents."""

import re
from datetime import timedelta
from pathlib import Path

from prometheus_client.core import Metric

from orchestra import errors
from orchestra.errors import OrchestraError
from orchestra.runtime.observing import Measure, Sample
from orchestra.settings import Settings
from orchestra.store.contract import Backlog
from orchestra.telemetry.meters import Meters
from orchestra.telemetry.tally import Tally

TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, without its head."""
    table = re.search(r"(?:^\|.*\|\n)+", page.partition(f"{heading}\n")[2], flags=re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[2:]]


def test_the_docs_name_every_setting_with_its_variable_and_default(root: Path) -> None:
    found = [row[:3] for row in rows((root / "docs" / "deployment.md").read_text(), "## Settings")]
    wanted = [
        [
            f"`{name}`",
            f"`ORCHESTRA_{name.upper()}`",
            default_of(field.default),
        ]
        for name, field in Settings.model_fields.items()
    ]
    assert found == wanted


def default_of(value: object) -> str:
    if isinstance(value, timedelta):
        return f"`{value.total_seconds():g}s`"
    return "none" if value in (None, ()) else f"`{value}`"


def test_the_docs_name_every_error_with_its_parents(root: Path) -> None:
    found = [row[:2] for row in rows((root / "docs" / "errors.md").read_text(), "# Errors")]
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OrchestraError)]
    wanted = [[f"`{each.__name__}`", parent(each)] for each in kinds]
    assert sorted(found) == sorted(wanted)


def parent(kind: type[OrchestraError]) -> str:
    """Return what the table says an error is also: the builtin it stands for, else its base unless that is the root."""
    base = kind.__bases__[-1]
    return "" if base is OrchestraError else f"`{base.__name__}`"


def test_every_line_of_what_dies_names_tests_that_there_are(root: Path) -> None:
    written = {name for path in (root / "tests").rglob("test_*.py") for name in TEST.findall(path.read_text())}
    lines = rows((root / "docs" / "recovery.md").read_text(), "# What dies, and what happens")
    assert len(lines) >= 9  # those of the design
    for what, _happens, named in lines:
        tests = re.findall("`(test_[a-z0-9_]+)`", named)
        assert tests, what
        assert set(tests) <= written, what


def test_the_docs_name_every_metric_with_its_labels(root: Path) -> None:
    listed = rows((root / "docs" / "monitoring.md").read_text(), "## What is measured")
    named = {row[0].strip("`").removesuffix("_total"): set(re.findall(r"`(\w+)`", row[1])) for row in listed}
    assert named == shown_metrics()


def shown_metrics() -> dict[str, set[str]]:
    """Return the labels of each metric that is exported, by its name."""
    tally = Tally()
    meters = Meters(tally, lambda: [Backlog("q", 5, 1, 1, 0.0, 0.0)], lambda: 1.0)
    for measure, labels in SAMPLES.items():
        tally.take([Sample(measure, 1.0, labels)])
    return {each.name: labels_of(each) for each in meters.registry.collect()}


SAMPLES = {
    Measure.STORE: ("claim",),
    Measure.RECEIVED: ("q",),
    Measure.STARTED: ("q", "t"),
    Measure.LAG: ("q",),
    Measure.ENDED: ("q", "t", "completed"),
    Measure.TAKEN_OVER: (),
    Measure.LOST: (),
    Measure.FIRED: (),
}


def labels_of(metric: Metric) -> set[str]:
    return set(metric.samples[0].labels) - {"le"}
