"""Logs: lines of JSON that name run, step, attempt and task, for those who collect them."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery import signals

from orchestra.model.ids import MessageRef
from orchestra.runtime.body import running_step

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_UID = "orchestra-json"


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    It has ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message`` and ``pid``; for what a body logs ``run_id``,
    ``step_id``, ``step`` (its name), ``task`` (what runs), ``attempt`` and ``claim``; ``error`` and ``traceback`` of an
    exception; and what was given as ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. What JSON cannot hold is there as its ``str``."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **_of_step(record),
            **{
                name: value
                for name, value in vars(record).items()
                if name not in _OWN and not _is_celerys(record, name)
            },
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _of_step(record: logging.LogRecord) -> dict[str, object]:
    """Return what is known of the step that a record is about."""
    claimed = running_step()
    if claimed is not None:
        step = claimed.claim.ref.step
        return {
            "run_id": step.run_id,
            "step_id": str(step),
            "step": claimed.name,
            "task": claimed.row.target,
            "attempt": claimed.attempts + 1,
            "claim": claimed.claim.claim,
        }
    if record.name.startswith("celery.") and isinstance(record.args, Mapping):
        try:
            # Celery says of a message how it ended, when the body is over.
            step = MessageRef.parse(str(record.args["id"])).step
        except (KeyError, ValueError):
            return {}
        return {"run_id": step.run_id, "step_id": str(step)}
    return {}


def _is_celerys(record: logging.LogRecord, name: str) -> bool:
    """Whether an extra is Celery's copy of the arguments of its message."""
    return name == "data" and record.name.startswith("celery.")


def write_json(logger: logging.Logger | None = None) -> None:
    """Make all handlers of a logger (default the root) write JSON; one that has none gets one to stderr."""
    logger = logging.getLogger() if logger is None else logger
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def write_nothing_else() -> None:
    """Make all that this process says lines of JSON on stderr, warnings too, before anybody sets up its logging."""
    write_json()
    logging.captureWarnings(True)


def let_workers_write(*, json: bool) -> None:
    """Say what Celery workers that this process becomes log: lines of JSON, or of text as Celery has them."""
    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        if json:
            signal.connect(_after_setup, dispatch_uid=_UID)
        else:
            signal.disconnect(_after_setup, dispatch_uid=_UID)


def _after_setup(logger: Any, **_: Any) -> None:
    if logger.handlers:
        write_json(logger)
