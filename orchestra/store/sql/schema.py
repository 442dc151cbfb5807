"""The tables. Times are seconds since the epoch; JSON is text, since the store never looks inside it."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, text

VERSION = 5
"""Rises with every change of the tables."""

metadata = MetaData()

# PostgreSQL writes a new version of a row for every update, so tables of which every row changes are cleaned before a
# fifth of a million rows is dead. Room on its page lets a row change without touching an index, where what changes is
# in none (measured: every update of a run); the status of a step is in most, so room would not help there.
_CLEANED = {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}
_HOT = {"fillfactor": 80, **_CLEANED}

_OF_JOB = text("job_id IS NOT NULL")
_OPEN_OF_JOB = text("job_id IS NOT NULL AND completed_at IS NULL")
_HAS_DEADLINE = text("deadline IS NOT NULL AND completed_at IS NULL")
_LEARNED_FROM = text("single = 0 AND completed_at IS NOT NULL")
_HAS_EXPIRY = text("expires_at IS NOT NULL AND completed_at IS NULL")

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("single", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("metadata", Text),
    Column("key", Text, unique=True),
    Column("fingerprint", Text),
    Column("job_id", Text),
    Column("scheduled_for", Float),
    Column("deadline", Float, comment="when the run ends, whatever it has come to"),
    Column("expires_at", Float, comment="when the run ends if nothing of it has begun"),
    Column("result", Text, comment="template of the output"),
    Column("on_failure", Text, nullable=False),
    Column("next_n", Integer, nullable=False, comment="the number of the next step that is added"),
    Column("next_join", Integer, nullable=False),
    Column(
        "remaining", Integer, nullable=False, comment="last steps that have not ended; all running ones once ending"
    ),
    Column("ending", Text, comment="the status that the run will have when what is running has ended"),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("completed_at", Float),
    Index("runs_by_age", "created_at"),
    # A firing is the run that it created: a job has one of each time, whoever creates it.
    Index("runs_of_job", "job_id", "scheduled_for", unique=True, sqlite_where=_OF_JOB, postgresql_where=_OF_JOB),
    Index("runs_open_of_job", "job_id", sqlite_where=_OPEN_OF_JOB, postgresql_where=_OPEN_OF_JOB),
    # Which of a workflow completed last: the durations of its steps order the next. The status is left out of it, or
    # every change of it would touch all indexes.
    Index("runs_learned_from", "name", "completed_at", sqlite_where=_LEARNED_FROM, postgresql_where=_LEARNED_FROM),
    Index("runs_by_deadline", "deadline", sqlite_where=_HAS_DEADLINE, postgresql_where=_HAS_DEADLINE),
    Index("runs_by_expiry", "expires_at", sqlite_where=_HAS_EXPIRY, postgresql_where=_HAS_EXPIRY),
    postgresql_with=_HOT,
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("task", Text, nullable=False, comment="the Celery task that the message names"),
    Column("target", Text, nullable=False, comment="what the worker calls"),
    Column("status", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("rank", Integer, nullable=False, comment="steps on the longest path from here to an end"),
    Column("input", Text, nullable=False),
    Column("retry", Text),
    Column("timeout_s", Float),
    Column("metadata", Text),
    Column("is_map", Integer, nullable=False),
    Column("max_parallel", Integer),
    Column("waits_for", Integer, comment="the join that releases it"),
    Column("feeds", Text, comment="joins that it is a part of: [number, parts, bodies, any] each"),
    Column("chain", Text, comment="links that follow in its segment: [n, task, name, queue, priority] each"),
    Column("whens", Text, comment="conditions on its output, by the number of the join that they guard"),
    Column("fallback", Text, comment="what is called instead when it has failed for good: [task, target, name]"),
    Column("round", Integer, nullable=False, comment="sub-workflows that it is inside of"),
    Column("max_rounds", Integer),
    Column("parent", Integer, comment="the step that it is a part of"),
    Column("parts_left", Integer, comment="of a parent: parts that have not ended"),
    Column("parts_broken", Integer, nullable=False, comment="of a parent: parts that did not complete"),
    Column("collects", Integer, comment="of a parent: the part whose output it takes; null: a list of all"),
    Column("generation", Integer, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("announced", Integer, nullable=False, comment="the newest claim whose start is in the log"),
    Column("worker", Text, comment="the incarnation that claimed it last"),
    Column("sent_at", Float, comment="when its message was published; null while it waits in the store"),
    Column("resends", Integer, nullable=False),
    Column("parked", Integer, nullable=False, server_default="0", comment="its run is paused: it is offered to nobody"),
    Column("due_at", Float),
    Column("output", Text, comment="JSON, or the marker of one that is in results"),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("completed_at", Float),
    postgresql_with=_CLEANED,
)

# Partial indexes hold only what is on its way, so that finished steps cost the hot queries nothing.
_WAITING = text("status = 'QUEUED' AND sent_at IS NULL AND parked = 0")
_SENT = text("status = 'QUEUED' AND sent_at IS NOT NULL")
Index(
    "steps_waiting",
    steps.c.queue,
    steps.c.priority,
    steps.c.rank.desc(),
    steps.c.created_at,
    steps.c.run_id,
    steps.c.n,
    sqlite_where=_WAITING,
    postgresql_where=_WAITING,
)
Index("steps_sent", steps.c.queue, steps.c.priority, steps.c.sent_at, sqlite_where=_SENT, postgresql_where=_SENT)
_RUNNING = text("status = 'RUNNING'")
Index("steps_running", steps.c.worker, sqlite_where=_RUNNING, postgresql_where=_RUNNING)
_RETRYING = text("status = 'RETRYING'")
Index("steps_due", steps.c.due_at, sqlite_where=_RETRYING, postgresql_where=_RETRYING)
_PENDING = text("status = 'PENDING'")
Index(
    "steps_pending", steps.c.run_id, steps.c.waits_for, steps.c.parent, sqlite_where=_PENDING, postgresql_where=_PENDING
)
_PART = text("parent IS NOT NULL")
Index("steps_parts", steps.c.run_id, steps.c.parent, steps.c.n, sqlite_where=_PART, postgresql_where=_PART)
Index("steps_by_key", steps.c.key, steps.c.created_at)

results = Table(
    "results",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False, comment="an output that is too large for the row of its step"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False, comment="JSON that a body saved"),
)

progress = Table(
    "progress",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("told", Text, nullable=False, comment="[share, text, time]"),
)

logs = Table(
    "logs",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("line", Text, nullable=False, comment="[n, claim, time, level, text]"),
    Index("logs_of_run", "run_id", "seq"),
    sqlite_autoincrement=True,
)

joins = Table(
    "joins",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("remaining", Integer, nullable=False),
    Column("live", Integer, nullable=False, comment="ways that were taken"),
    Column("broken", Integer, nullable=False, comment="predecessors that did not complete"),
    Column("dead", Text, nullable=False, comment="numbers of predecessors whose way was not taken, each after a comma"),
    Column("any_way", Integer, nullable=False, comment="whether the first way taken releases what waits"),
    Column("parts", Text, nullable=False, comment="numbers of the predecessors"),
    postgresql_with=_HOT,
)

shards = Table(
    "shards",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="of the join that it is a part of"),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("remaining", Integer, nullable=False),
    Column("live", Integer, nullable=False),
    Column("broken", Integer, nullable=False),
    Column("dead", Text, nullable=False),
    postgresql_with=_HOT,
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("run_id", Text),
    Column("single", Integer, nullable=False),
    Column("worker", Text),
    Column("entries", Text, nullable=False, comment="what one transaction did: [type, numbers of steps, data] each"),
    Index("events_of_run", "run_id", "seq"),
    sqlite_autoincrement=True,
)

leases = Table(
    "leases",
    metadata,
    Column("incarnation", Text, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Float, nullable=False),
    Column("queues", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("renewed_at", Float, nullable=False, server_default="0"),
    postgresql_with=_HOT,
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True, comment="of a subscriber"),
    Column("seq", BigInteger, nullable=False, comment="the last row of the log that it has dealt with"),
    Column("holder", Text, nullable=False, comment="the process that reads for it"),
    Column("held_until", Float, nullable=False),
    postgresql_with=_HOT,
)

_ACTIVE = text("status = 'ACTIVE'")
jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("schedule", Text, nullable=False, comment="when it runs"),
    Column("payload", Text, nullable=False, comment="what its runs are made from"),
    Column("created_at", Float, nullable=False),
    Column("status", Text, nullable=False),
    Column("next_run_at", Float, comment="the first time that nothing has been decided about"),
    Column("due_at", Float, comment="when a beat has to look at it: that time with its jitter"),
    Column("last_run_at", Float),
    Column("last_run_id", Text),
    Column("runs", Integer, nullable=False),
    Column("missed", Integer, nullable=False),
    Column("error", Text),
    Column("backfills", Text, comment="the job whose missed runs this one creates"),
    Column("version", Integer, nullable=False, comment="rises with every change"),
    # What is due is found without looking at what is not.
    Index("jobs_due", "due_at", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    postgresql_with=_HOT,
)

# What a Celery result backend keeps (``orchestra.store.task_results``); nothing else refers to it.
task_results = Table(
    "task_results",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("expires_at", Float),
    Index("task_results_by_expiry", "expires_at"),
    postgresql_with=_CLEANED,
)

task_groups = Table(
    "task_groups",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("expires_at", Float),
    Index("task_groups_by_expiry", "expires_at"),
    postgresql_with=_CLEANED,
)

_COMPLETE = text("status = 'COMPLETE'")
chords = Table(
    "chords",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("status", Text, nullable=False, comment="OPEN, COMPLETE, DONE"),
    Column("size", Integer),
    Column("grown", Integer, nullable=False, comment="parts that other parts have added"),
    Column("counted", Integer, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("due_at", Float, comment="when the claim of a complete one runs out"),
    Column("header", LargeBinary, comment="its shape, where it is no plain list"),
    Column("callback", LargeBinary, comment="what to publish, once it is complete"),
    Column("expires_at", Float),
    Index("chords_overdue", "due_at", sqlite_where=_COMPLETE, postgresql_where=_COMPLETE),
    Index("chords_by_expiry", "expires_at"),
    postgresql_with=_HOT,
)

chord_parts = Table(
    "chord_parts",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("task_id", Text, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    postgresql_with=_CLEANED,
)

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
