"""Testing: what users test their workflows with, and what the engine is tested with.

``Clock`` is a clock that stands still. ``check_transitions`` and ``check_history`` watch a store. ``StoreContract`` is
the suite that every store passes; a store of your own is tested by one fixture:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[Store]:
            with closing(MyStore(...)) as store:
                yield store
"""

from typing import TYPE_CHECKING, Any

from orchestra.testing.clock import Clock
from orchestra.testing.watched import BrokenRule, check_history, check_transitions

if TYPE_CHECKING:
    from orchestra.testing.contract import StoreContract
    from orchestra.testing.scripted import Calls, ScriptedModel

__all__ = ["BrokenRule", "Calls", "Clock", "ScriptedModel", "StoreContract", "check_history", "check_transitions"]


def __getattr__(name: str) -> Any:
    if name in ("Calls", "ScriptedModel"):
        from orchestra.testing import scripted  # pydantic-ai is needed for it alone

        return getattr(scripted, name)
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestra.testing.contract import StoreContract  # pytest is needed for it alone

    return StoreContract
