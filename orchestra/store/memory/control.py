"""The primitives of ``orchestra.store.steering`` over dicts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from orchestra.engine.again import Again, Standing
from orchestra.model.status import OPEN, WorkflowStatus
from orchestra.model.status import TaskStatus as S
from orchestra.store.memory.tables import Join, Run, Step, Tables, Undo


class MemoryControl:
    """A part of ``MemoryTransaction``."""

    tables: Tables
    _undo: list[Undo]

    def set(self, thing: Run | Join, **fields: Any) -> None:
        """Change fields of a run or a join."""
        raise NotImplementedError

    def change(self, step: Step, **fields: Any) -> None:
        """Change fields of a step."""
        raise NotImplementedError

    def set_paused(self, run_id: str, paused: bool) -> bool:
        run = self.tables.runs.get(run_id)
        before, after = WorkflowStatus.RUNNING, WorkflowStatus.PAUSED
        if not paused:
            before, after = after, before
        if run is None or run.status is not before or (paused and run.ending is not None):
            return False
        self.set(run, status=after)
        return True

    def park(self, run_id: str) -> list[str]:
        ready = [step for step in self.tables.runs[run_id].steps.values() if step.status in OPEN]
        for step in ready:
            self.change(step, parked=True, sent_at=None)
        return [step.queue for step in ready if step.status is S.QUEUED]

    def unpark(self, run_id: str) -> list[str]:
        parked = [step for step in self.tables.runs[run_id].steps.values() if step.parked]
        for step in parked:
            self.change(step, parked=False)
        return [step.queue for step in parked if step.status is S.QUEUED]

    def standing(self, run_id: str) -> tuple[list[Standing], Mapping[int, frozenset[int]]]:
        run = self.tables.runs.get(run_id)
        if run is None:
            return [], {}
        dead = {number: frozenset(join.dead) for number, join in run.joins.items()}
        return [_standing(step) for _n, step in sorted(run.steps.items())], dead

    def reopen(self, run_id: str, remaining: int) -> None:
        run = self.tables.runs[run_id]
        self.set(
            run, status=WorkflowStatus.RUNNING, ending=None, error=None, completed_at=None, remaining=remaining,
            deadline=None, expires_at=None, retried=True,
        )  # fmt: skip
        if run.new.job_id is not None:
            self.tables.open_of_job[run.new.job_id].append(run)

    def set_back(self, run_id: str, to: Again) -> None:
        run = self.tables.runs[run_id]
        for n, status in to.steps.items():
            step = run.steps[n]
            self.change(
                step, status=status, generation=step.generation + 1, attempts=0, crashes=0, error=None, output=None,
                completed_at=None, due_at=None, sent_at=None, parked=False, resends=0, parts_left=to.parts.get(n),
                parts_broken=0,
            )  # fmt: skip
        for number, its in to.joins.items():
            self.set(run.joins[number], remaining=its.remaining, live=its.live, broken=0, dead=set(its.dead))

    def copy_run(self, run_id: str, new_id: str, undone: Sequence[int], now: float) -> str | None:
        old = self.tables.runs.get(run_id)
        if old is None:
            return None
        first = [step for step in old.steps.values() if step.row.parent is None]
        joins = {step.row.waits_for for step in first} - {None}
        kept = replace(old.new, id=new_id, key=None, fingerprint=None, job_id=None, scheduled_for=None)
        run = Run(kept, 0, len(first), max((n for n in joins if n is not None), default=-1) + 1, now)
        run.status, run.ending, run.completed_at = WorkflowStatus.CANCELLED, WorkflowStatus.CANCELLED, now
        self._undo.append(partial(self.tables.drop_run, run))
        self.tables.add_run(run)
        for step in first:
            copy = Step(run, step.row, now)
            is_undone = step.n in undone
            copy.status = S.CANCELLED if is_undone else step.status
            copy.output, copy.error = (None, None) if is_undone else (step.output, step.error)
            copy.completed_at = now
            self._undo.append(partial(self.tables.drop_step, copy))
            self.tables.add_step(copy)
        for number, join in old.joins.items():
            if number in joins:
                run.joins[number] = Join(list(join.parts), join.any, 0, dead=set(join.dead))
        return kept.name

    def overdue(self, now: float) -> list[tuple[str, bool]]:
        if (self.tables.next_timed() or now + 1) > now:
            return []
        found: list[tuple[str, bool]] = []
        for at, run_id, by_deadline in sorted(self.tables.timed):
            run = self.tables.runs.get(run_id)
            if at > now:
                break
            if run is not None and run.completed_at is None and at == (run.deadline if by_deadline else run.expires_at):
                found.append((run_id, by_deadline))
        return found

    def has_begun(self, run_id: str) -> bool:
        run = self.tables.runs[run_id]
        begun = any(step.claims for step in run.steps.values())
        if begun:
            self.set(run, expires_at=None)
        return begun


def _standing(step: Step) -> Standing:
    row = step.row
    return Standing(
        step.n, row.key, row.name, row.queue, step.status, row.waits_for, step.feeds, step.parent, row.is_map,
        row.max_parallel, step.collects, None if step.error is None else step.error.type,
    )  # fmt: skip
