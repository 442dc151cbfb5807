"""What the judge knows of one run: its plan, and its steps as they were when it last looked."""

from dataclasses import dataclass, field

from orchestra.engine.join import Arrivals, Verdict, verdict
from orchestra.engine.rows import JoinRow, StepRow, is_last
from orchestra.model.record import StepRecord
from orchestra.model.status import TERMINAL, WorkflowStatus
from orchestra.model.status import TaskStatus as S
from orchestra.testing.simulation.world import Violation


@dataclass
class RunView:
    """One run. ``rows`` and ``joins`` are what was planned, ``records`` what the store said."""

    id: str
    single: bool
    rows: dict[int, StepRow] = field(default_factory=dict[int, StepRow])
    joins: dict[int, JoinRow] = field(default_factory=dict[int, JoinRow])
    records: dict[int, StepRecord] = field(default_factory=dict[int, StepRecord])
    dead: dict[int, frozenset[int]] = field(default_factory=dict[int, frozenset[int]])
    """Joins whose condition did not hold, by the step that completed."""
    outputs: dict[int, str] = field(default_factory=dict[int, str])
    status: WorkflowStatus = WorkflowStatus.RUNNING

    def verdict(self, join: JoinRow) -> Verdict:
        """Say anew, from the statuses alone, what a join has come to."""
        ended = live = broken = 0
        for part in join.parts:
            record = self.records[part]
            if record.status not in TERMINAL:
                continue
            ended += 1
            if record.status is S.COMPLETED:
                live += join.number not in self.dead.get(part, ())
            elif not (record.status is S.SKIPPED and record.error and record.error.type == "NotTaken"):
                broken += 1
        return verdict(Arrivals(len(join.parts) - ended, live, broken, join.any))

    def check(self) -> None:
        """Invariants that hold after every transaction."""
        open_steps = [each for each in self.records.values() if each.status not in TERMINAL]
        for record in open_steps:
            match record.status:
                case S.PENDING:
                    self._check_pending(record)
                case S.WAITING if not any(self._is_part(each, record.ref.n) for each in open_steps):
                    raise Violation("7 no false waiting", f"{record.name} waits for parts that have all ended")
                case _:
                    pass
        if bool(open_steps) is self.status.ended:
            state = "has ended with open steps" if open_steps else "has no open steps and goes on"
            raise Violation("9 nothing hangs", f"run {self.id} {state}: {[each.name for each in open_steps]}")
        if self.status.ended:
            self._check_end()

    def check_released(self, record: StepRecord) -> None:
        """A step that has just left PENDING for QUEUED must have been free to."""
        row = self.rows.get(record.ref.n)
        if row is None or row.waits_for is None:
            return
        come_to = self.verdict(self.joins[row.waits_for])
        if come_to is not Verdict.RELEASE:
            raise Violation("1 one record", f"{record.name} was released while its join says {come_to}")

    def _check_pending(self, record: StepRecord) -> None:
        row = self.rows[record.ref.n]
        if row.waits_for is not None:
            come_to = self.verdict(self.joins[row.waits_for])
            if come_to is not Verdict.WAIT:
                raise Violation("7 no false waiting", f"{record.name} is PENDING while its join says {come_to}")
            return
        assert row.parent is not None, "a step without predecessors begins QUEUED"
        limit = self.rows[row.parent].max_parallel
        begun = [each for each in self.records.values() if each.parent == row.parent and each.status not in TERMINAL]
        if sum(each.status is not S.PENDING for each in begun) != limit:
            raise Violation("7 no false waiting", f"{record.name} waits, but {limit} parts are not on their way")

    def _is_part(self, record: StepRecord, parent: int) -> bool:
        row = self.rows.get(record.ref.n)
        return record.parent == parent and (row is None or is_last(row.feeds))

    def _is_caught(self, record: StepRecord) -> bool:
        """Whether something that it is a part of completed all the same: by its fallback."""
        return any(self.records[parent].status is S.COMPLETED for parent in self.ancestors(record.ref.n))

    def ancestors(self, n: int) -> list[int]:
        """Return what a step is a part of, from the inside out."""
        found: list[int] = []
        parent = self.records[n].parent
        while parent is not None:
            found.append(parent)
            parent = self.records[parent].parent
        return found

    def _check_end(self) -> None:
        statuses = {each.status for each in self.records.values() if not self._is_caught(each)}
        wrong = {
            WorkflowStatus.COMPLETED: bool(statuses & {S.FAILED, S.CANCELLED}),
            WorkflowStatus.FAILED: S.FAILED not in statuses,
            WorkflowStatus.CANCELLED: S.CANCELLED not in statuses,
        }
        if wrong.get(self.status, True):
            raise Violation("9 nothing hangs", f"run {self.id} is {self.status} with steps {sorted(statuses)}")
