"""Tasks that a worker learns of only when it starts: `include` names this module."""

from typing import Any

from tests.legacy import app


@app.task
def late(value: Any) -> Any:
    """Registers after the application was adopted."""
    return value
