"""The Grafana dashboard asks for metrics that there are, by labels that they have, and leaves none out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_docs_tables import shown_metrics

METRIC = re.compile(r"\b(orchestra_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \(([^)]*)\)")
SUFFIXES = ("_bucket", "_total")


@pytest.fixture
def dashboard(root: Path) -> dict[str, Any]:
    return json.loads((root / "deploy" / "grafana" / "orchestra.json").read_text())


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_every_query_asks_for_a_metric_that_is_exported_by_labels_that_it_has(dashboard: dict[str, Any]) -> None:
    exported = shown_metrics()
    for query in [*queries(dashboard), *(each.get("definition", "") for each in dashboard["templating"]["list"])]:
        for name, selector in METRIC.findall(query):
            family = next((name.removesuffix(each) for each in SUFFIXES if name.endswith(each)), name)
            assert family in exported, query
            wanted = {each.partition("=")[0].rstrip("!~") for each in selector.split(",") if each}
            wanted |= {label.strip() for group in GROUPED.findall(query) for label in group.split(",")}
            assert wanted <= {*exported[family], "le"}, query
            assert name.endswith("_bucket") == ("histogram_quantile" in query), query


def test_every_metric_is_on_the_dashboard(dashboard: dict[str, Any]) -> None:
    asked = {name for query in queries(dashboard) for name, _selector in METRIC.findall(query)}
    families = {next((name.removesuffix(each) for each in SUFFIXES if name.endswith(each)), name) for name in asked}
    assert families == set(shown_metrics())


def test_every_panel_has_its_place_and_says_what_it_shows(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
