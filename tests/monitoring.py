"""What monitoring sees of a worker or a beat: its pages over HTTP."""

import re
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.processes import Process

_AT = re.compile(r"Metrics and probes are at (http://\S+)")


def address(process: Process) -> str:
    """Return where a process that was given the port 0 serves its pages."""
    process.wait_for("Metrics and probes are at http", 60)
    found = _AT.search(process.output)
    assert found is not None
    return found[1]


def page(url: str) -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def metrics(url: str) -> dict[str, float]:
    """Return the values by name and labels, such as ``orchestra_steps_started_total{queue="q",task="m:f"}``."""
    status, text = page(f"{url}/metrics")
    assert status == 200, text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {f"{each.name}{_labels(each.labels)}": each.value for each in samples}


def _labels(labels: dict[str, str]) -> str:
    pairs = [f'{name}="{value}"' for name, value in sorted(labels.items())]
    return f"{{{','.join(pairs)}}}" if pairs else ""
