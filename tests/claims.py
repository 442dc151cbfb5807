"""How often steps were claimed, held against what the log says of them."""

from collections import Counter

from orchestra import Orchestrator, TaskStatus, WorkflowRun


def check_claims(orch: Orchestrator, run: WorkflowRun) -> dict[str, int]:
    """Assert that the log says why each further claim of each step was made; return how many these were by name.

    Where a machine stalls, a child gives back what it has in hand and has not begun. That costs a claim and no attempt.
    """
    told = Counter(event.task_id for event in orch.history(run=run.id, type="task.retrying", limit=100_000))
    steps = orch.parts.store.steps(run.id)
    again = {f"{run.id}.{step.ref.n}": step.claims - 1 for step in steps}
    assert {step: count for step, count in again.items() if count} == told
    assert all(step.crashes <= step.claims - 1 for step in steps if step.status is TaskStatus.COMPLETED)
    return {step.name: step.claims - 1 for step in steps}
