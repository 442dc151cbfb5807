"""The tables: what the memory store holds, and the indexes that keep its hot questions cheap."""

import heapq
from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from orchestra.engine.rows import StepRow
from orchestra.model.ids import MessageRef, StepRef
from orchestra.model.record import ErrorInfo, JobRecord, LogLine, Progress, RunRecord, StepRecord
from orchestra.model.schedule import JobStatus
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, Cursor, Dispatch, Lease, NewRun
from orchestra.store.entries import Entry
from orchestra.store.notes import MOST_LINES
from orchestra.store.primitives import Hot
from orchestra.store.values import ready_at_once

S = TaskStatus
EventRow = tuple[int, float, str | None, bool, str | None, list[Entry]]
"""What one transaction did to one run: seq, time, run, whether single, worker, entries."""
Undo = Callable[[], object]
Place = tuple[int, float, str, int, "Step"]
"""Where a step stands among those that wait, best first: rank, age."""


class Step:
    """A step: the row as it was created, and what has become of it."""

    __slots__ = (
        "announced", "attempts", "claims", "collects", "completed_at", "crashes", "created_at", "due_at", "error",
        "fallback", "feeds", "generation", "n", "output", "parent", "parked", "parts_broken", "parts_left", "place",
        "priority", "progress", "queue", "resends", "row", "run", "saved", "sent_at", "started_at", "status", "worker",
    )  # fmt: skip

    def __init__(self, run: "Run", row: StepRow, now: float) -> None:
        self.run, self.row, self.n = run, row, row.n
        self.feeds, self.parent, self.queue, self.priority = row.feeds or (), row.parent, row.queue, row.priority
        self.status: TaskStatus = row.status
        self.created_at = now
        self.place: Place = (-row.rank, now, run.new.id, row.n, self)
        self.fallback = row.fallback
        self.generation = self.claims = self.attempts = self.crashes = self.announced = self.resends = 0
        self.parts_left: int | None = None
        self.parts_broken = 0
        self.collects: int | None = None
        self.output: str | None = None
        self.error: ErrorInfo | None = None
        self.worker: str | None = None
        self.sent_at: float | None = None
        self.due_at: float | None = None
        self.started_at: float | None = None
        self.completed_at: float | None = None
        self.parked = run.status is WorkflowStatus.PAUSED
        self.saved: dict[str, str] = {}
        self.progress: Progress | None = None

    def __lt__(self, _other: "Step") -> bool:
        """Heaps compare steps only when a place in them is left over from a transaction that was taken back."""
        return False

    @property
    def ref(self) -> StepRef:
        """Its reference."""
        return StepRef(self.run.new.id, self.n)

    @property
    def claim_ref(self) -> ClaimRef:
        """Its newest claim."""
        return ClaimRef(MessageRef(self.ref, self.generation), self.claims)

    def claimed(self, ready_at: float | None = None) -> Claimed:
        """Return its newest claim."""
        return Claimed(
            self.claim_ref, self.row, self.attempts, self.crashes, ready_at=ready_at, started_at=self.started_at
        )

    @property
    def ready_at(self) -> float | None:
        """Since when it is ready, as far as is known."""
        at_once = ready_at_once(self.row, self.generation, self.attempts, self.crashes)
        return self.created_at if at_once else self.sent_at

    def hot(self) -> Hot:
        """Return what transitions need to know of it."""
        row = self.row
        return Hot(
            self.n, row.key, row.name, row.queue, self.feeds, self.parent, row.is_map, self.attempts, self.crashes,
            row.retry, self.fallback, self.claims, self.announced, self.started_at, self.worker,
        )  # fmt: skip

    def dispatch(self) -> Dispatch:
        """Return its message."""
        row = self.row
        ref = MessageRef(self.ref, self.generation)
        return Dispatch(
            ref, row.task, row.name, row.queue, row.priority, row.timeout_s, row.chain or (), target=row.target
        )

    def record(self, *, with_output: bool) -> StepRecord:
        """Return it as readers see it."""
        row = self.row
        return StepRecord(
            self.ref, row.key, row.name, row.target, self.status, row.priority, row.queue, row.metadata or {},
            self.claims, self.attempts, self.crashes, self.generation, self.output if with_output else None, self.error,
            self.worker, self.created_at, self.due_at, self.started_at, self.completed_at, self.parent,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Join:
    """A set of predecessors, and what has arrived of it."""

    parts: list[int]
    any: bool
    remaining: int
    live: int = 0
    broken: int = 0
    dead: set[int] = field(default_factory=set[int])


@dataclass(slots=True, eq=False)
class Run:
    """A run, with its steps and joins by number."""

    new: NewRun
    remaining: int
    next_n: int
    next_join: int
    created_at: float
    status: WorkflowStatus = WorkflowStatus.RUNNING
    ending: WorkflowStatus | None = None
    error: ErrorInfo | None = None
    completed_at: float | None = None
    steps: dict[int, Step] = field(default_factory=dict[int, Step])
    joins: dict[int, Join] = field(default_factory=dict[int, Join])
    bodies: dict[int, list[Step]] = field(default_factory=dict[int, list[Step]])
    """By the join that they wait for."""
    parts: dict[int, list[Step]] = field(default_factory=dict[int, list[Step]])
    """By the step that they are parts of."""
    events: list[EventRow] = field(default_factory=list[EventRow])
    deadline: float | None = None
    expires_at: float | None = None
    retried: bool = False
    """Whether it was opened again after its end: then parts of a map may be PENDING anywhere among the others."""
    lines: deque[LogLine] = field(default_factory=lambda: deque[LogLine](maxlen=MOST_LINES))

    @property
    def age(self) -> tuple[float, str]:
        """Where it stands among all runs."""
        return self.created_at, self.new.id

    def record(self) -> RunRecord:
        """Return it as readers see it."""
        new = self.new
        return RunRecord(
            new.id, new.name, new.workflow_id, self.status, new.single, new.priority, dict(new.metadata), new.key, None,
            None, self.error, new.job_id, new.scheduled_for, self.created_at, self.created_at, self.completed_at,
            self.deadline,
        )  # fmt: skip


class Queue:
    """The ready steps of one queue: those that wait, best first, and those that are with the broker."""

    def __init__(self) -> None:
        self.waiting: dict[int, list[Place]] = defaultdict(list)
        """By priority, as heaps. Steps that wait no more are left in them until they come up."""
        self.lengths: dict[int, int] = defaultdict(int)
        """How many really wait, by priority."""
        self.sent: dict[int, dict[Step, None]] = defaultdict(dict)

    def best(self) -> int | None:
        """Return the priority of the best step that waits."""
        return min((priority for priority, length in self.lengths.items() if length), default=None)

    def count_sent(self, priority: int) -> int:
        """Return how many of this priority or better are with the broker."""
        return sum(len(steps) for each, steps in self.sent.items() if each <= priority)

    def ready(self, priority: int) -> list[Step]:
        """Return the ready steps of a priority, in no order."""
        waiting = [place[-1] for place in self.waiting.get(priority, ())]
        still = [step for step in waiting if step.status is S.QUEUED and step.sent_at is None and not step.parked]
        return [*still, *self.sent.get(priority, ())]

    def take(self, priority: int) -> Iterator[Step]:
        """Give the waiting steps of a priority, best first. Each must have been sent when the next is asked for."""
        heap = self.waiting[priority]
        while self.lengths[priority]:
            step = heapq.heappop(heap)[-1]
            if step.status is S.QUEUED and step.sent_at is None and not step.parked:
                yield step


class Tables:
    """Everything that the store holds."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.run_of_key: dict[str, Run] = {}
        self.by_age: list[Run] = []
        self.by_step_key: dict[str, list[Step]] = defaultdict(list)
        """The steps of each key, by the age of what they are."""
        self.queues: dict[str, Queue] = defaultdict(Queue)
        self.running: dict[str, dict[Step, None]] = defaultdict(dict)
        """By incarnation."""
        self.retrying: list[tuple[float, str, int, Step]] = []
        """As a heap. Steps that are not due any more, or at another time, are left in it until they come up."""
        self.timed: list[tuple[float, str, bool]] = []
        """Deadlines (True) and expiries of runs, as a heap. Those that do not hold any more go when they come up."""
        self.leases: dict[str, Lease] = {}
        self.cursors: dict[str, tuple[Cursor, float]] = {}
        """By the name of the subscriber, with the time until which it is held."""
        self.events: list[EventRow] = []
        self.jobs: dict[str, JobRecord] = {}
        self.jobs_due: list[tuple[float, str, int]] = []
        """As a heap: time, id, version. What has changed since is left in it until it comes up."""
        self.runs_of_job: dict[str, dict[float, Run]] = defaultdict(dict)
        """By the time that they stand for."""
        self.open_of_job: dict[str, list[Run]] = defaultdict(list)
        """Those that have ended are left in it until somebody counts."""
        self.last_seq = 0
        """Of all events there have been: numbers are not used again."""

    def step(self, run_id: str, n: int) -> Step | None:
        """Return a step."""
        run = self.runs.get(run_id)
        return None if run is None else run.steps.get(n)

    def next_due(self) -> Step | None:
        """Return the step whose retry is due first."""
        while self.retrying:
            due_at, _run_id, _n, step = self.retrying[0]
            if step.status is S.RETRYING and step.due_at == due_at:
                return step
            heapq.heappop(self.retrying)
        return None

    def next_timed(self) -> float | None:
        """Return the deadline or expiry that comes first."""
        while self.timed:
            at, run_id, by_deadline = self.timed[0]
            run = self.runs.get(run_id)
            if run is not None and run.completed_at is None and at == (run.deadline if by_deadline else run.expires_at):
                return at
            heapq.heappop(self.timed)
        return None

    def put_job(self, job: JobRecord) -> None:
        """Insert or replace a job."""
        self.jobs[job.id] = job
        if job.status is JobStatus.ACTIVE and job.due_at is not None:
            heapq.heappush(self.jobs_due, (job.due_at, job.id, job.version))

    def due_jobs(self, now: float, limit: int) -> tuple[list[JobRecord], float | None]:
        """Return the jobs that are due, and when the next one is."""
        found: list[tuple[float, str, int]] = []
        next_due: float | None = None
        while self.jobs_due:
            entry = heapq.heappop(self.jobs_due)
            job = self.jobs.get(entry[1])
            if job is None or (job.due_at, job.version) != (entry[0], entry[2]) or job.status is not JobStatus.ACTIVE:
                continue
            found.append(entry)
            next_due = entry[0] if next_due is None else next_due
            if entry[0] > now or len(found) > limit:
                break
        for entry in found:
            heapq.heappush(self.jobs_due, entry)
        return [self.jobs[job_id] for at, job_id, _version in found if at <= now][:limit], next_due

    def enter(self, step: Step) -> None:
        """Put a step into the index of its status."""
        if step.status is S.QUEUED:
            if step.parked:
                return
            queue = self.queues[step.queue]
            if step.sent_at is None:
                heapq.heappush(queue.waiting[step.priority], step.place)
                queue.lengths[step.priority] += 1
            else:
                queue.sent[step.priority][step] = None
        elif step.status is S.RUNNING:
            self.running[step.worker or ""][step] = None
        elif step.status is S.RETRYING:
            heapq.heappush(self.retrying, (step.due_at or 0.0, step.run.new.id, step.n, step))

    def leave(self, step: Step) -> None:
        """Take a step out of the index of its status."""
        if step.status is S.QUEUED:
            if step.parked:
                return
            queue = self.queues[step.queue]
            if step.sent_at is None:
                queue.lengths[step.priority] -= 1
            else:
                del queue.sent[step.priority][step]
        elif step.status is S.RUNNING:
            worker = step.worker or ""
            held = self.running[worker]
            del held[step]
            if not held:
                del self.running[worker]

    def add_run(self, run: Run) -> None:
        """Insert a run without steps."""
        self.runs[run.new.id] = run
        for at, by_deadline in ((run.deadline, True), (run.expires_at, False)):
            if at is not None:
                heapq.heappush(self.timed, (at, run.new.id, by_deadline))
        if run.new.key is not None:
            self.run_of_key[run.new.key] = run
        if run.new.job_id is not None:
            self.runs_of_job[run.new.job_id][run.new.scheduled_for or 0.0] = run
            self.open_of_job[run.new.job_id].append(run)
        insort(self.by_age, run, key=attrgetter("age"))

    def drop_run(self, run: Run) -> None:
        """Undo that."""
        del self.runs[run.new.id]
        if run.new.key is not None:
            del self.run_of_key[run.new.key]
        if run.new.job_id is not None:
            del self.runs_of_job[run.new.job_id][run.new.scheduled_for or 0.0]
            still = self.open_of_job[run.new.job_id]
            still[:] = [each for each in still if each is not run]
        del self.by_age[bisect_left(self.by_age, run.age, key=attrgetter("age"))]

    def add_step(self, step: Step) -> None:
        """Insert a step."""
        run, row = step.run, step.row
        run.steps[step.n] = step
        if row.waits_for is not None:
            run.bodies.setdefault(row.waits_for, []).append(step)
        if row.parent is not None:
            run.parts.setdefault(row.parent, []).append(step)
        insort(self.by_step_key[row.key], step, key=_age)
        self.enter(step)

    def drop_step(self, step: Step) -> None:
        """Undo that."""
        run, row = step.run, step.row
        self.leave(step)
        step.status = S.PENDING  # so that a place that is left in a heap is passed over
        del run.steps[step.n]
        if row.waits_for is not None:
            _remove(run.bodies[row.waits_for], step)
        if row.parent is not None:
            _remove(run.parts[row.parent], step)
        _remove(self.by_step_key[row.key], step)

    def forget_run(self, run: Run) -> None:
        """Delete a run that has ended, with its steps; its events stay in the log."""
        self.drop_run(run)
        for step in run.steps.values():
            of_key = self.by_step_key[step.row.key]
            of_key.remove(step)
            if not of_key:
                del self.by_step_key[step.row.key]

    def forget_events(self, runs: Sequence[Run], time: float) -> None:
        """Delete the events of runs, and the oldest ones of no run that are older than a time."""
        run_ids = {run.new.id for run in runs}
        left = sum(len(run.events) for run in runs)
        kept: list[EventRow] = []
        seen = 0
        for row in self.events:
            if not left and row[1] >= time:
                break
            seen += 1
            if row[2] in run_ids:
                left -= 1
            elif row[2] is not None or row[1] >= time:
                kept.append(row)
        self.events[:seen] = kept

    def completed_last(self, name: str) -> Run | None:
        """Return the run of a workflow that completed last."""
        of_name = (run for run in self.runs.values() if run.new.name == name and not run.new.single)
        completed = (run for run in of_name if run.status is WorkflowStatus.COMPLETED)
        return max(completed, key=lambda run: run.completed_at or 0.0, default=None)

    def runs_backwards(self) -> Iterator[Run]:
        """Give all runs, newest first."""
        return reversed(self.by_age)


def _age(step: Step) -> tuple[float, str, int]:
    return step.created_at, step.run.new.id, step.n


def _remove(steps: list[Step], step: Step) -> None:
    if steps[-1] is step:
        steps.pop()
    else:
        steps.remove(step)
