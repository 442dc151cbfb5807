"""The registry: from a path to the function, as workers look it up."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestra.runtime.registry import Registry
from tests.processes import wait_until

_SLOW = """
import time
time.sleep(0.5)
def late(): return 7
"""


def test_a_module_that_another_thread_imports_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slowly_imported.py").write_text(_SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(modules=["slowly_imported"], travels=True)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(registry.resolve, "slowly_imported:late")
        wait_until(lambda: "slowly_imported" in sys.modules)
        second = pool.submit(registry.resolve, "slowly_imported:late")
        assert (first.result()(), second.result()()) == (7, 7)
