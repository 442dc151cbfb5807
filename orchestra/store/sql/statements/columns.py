"""Columns: what the statements return, in this order; ``rows`` makes values of them."""

from orchestra.store.sql.schema import jobs, leases

DISPATCH = ("run_id", "n", "generation", "task", "name", "queue", "priority", "timeout_s", "chain", "target")
HOT = (
    "n", "key", "name", "queue", "feeds", "parent", "is_map", "attempts", "crashes", "retry", "fallback", "claims",
    "announced", "started_at", "worker",
)  # fmt: skip
ROW = (
    "n", "key", "name", "task", "target", "status", "priority", "queue", "rank", "input", "retry", "timeout_s",
    "metadata", "is_map", "max_parallel", "waits_for", "feeds", "chain", "whens", "parent", "fallback", "round",
    "max_rounds",
)  # fmt: skip
"""The columns of a StepRow."""
CLAIMED = (*ROW, "claims", "attempts", "crashes", "created_at", "sent_at", "started_at")
RECORD = (
    "run_id", "n", "key", "name", "target", "status", "priority", "queue", "metadata", "claims", "attempts", "crashes",
    "generation", "output", "error", "worker", "created_at", "due_at", "started_at", "completed_at", "parent",
)  # fmt: skip
RUN = (
    "id", "name", "workflow_id", "status", "single", "priority", "metadata", "key", "error", "job_id", "scheduled_for",
    "created_at", "started_at", "completed_at", "deadline",
)  # fmt: skip
STARTED = ("n", "name", "attempts", "claims", "worker", "started_at")
RELEASED = ("n", "queue")
COUNTED = ("status", "completed_at", "single")
RUN_STATE_COLUMNS = ("completed_at", "ending", "single", "on_failure", "status")
PICKED = (*DISPATCH, "rank", "created_at", "more", "room")
EVENT = ("seq", "time", "run_id", "single", "worker", "entries")
LEASE = tuple(column.name for column in leases.columns)
JOB = tuple(column.name for column in jobs.columns)
MOVING = ("status", "next_run_at", "due_at", "last_run_at", "last_run_id", "runs", "missed", "error")
MOVES = ("id", "version", *MOVING)
