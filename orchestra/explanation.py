"""Explanation: gathers from the store what ``engine.reasons`` has to know."""

from orchestra.engine.reasons import Facts, Reason, Server, why_run, why_step
from orchestra.model.ids import StepRef
from orchestra.model.record import RunRecord
from orchestra.store.contract import Store


def explain(store: Store, run: RunRecord, n: int | None, now: float) -> list[Reason]:
    """Say what a run, or the n-th step of it, is waiting for."""
    facts = gather(store, run, now)
    if n is not None and n not in facts.steps:
        return []
    return why_run(facts) if n is None else why_step(facts, n)


def gather(store: Store, run: RunRecord, now: float) -> Facts:
    """Read the facts. Nothing holds them together: what happens meanwhile may be in some of them only."""
    steps = {each.ref.n: each for each in store.steps(run.id)}
    return Facts(
        run,
        steps,
        store.predecessors(run.id),
        servers(store, now),
        {(each.queue, each.priority): each.ready for each in store.backlog()},
        now,
    )


def servers(store: Store, now: float) -> list[Server]:
    """Return the workers that have a lease, whether it still holds or not."""
    return [
        Server(
            lease.worker,
            lease.incarnation,
            lease.queues,
            lease.slots,
            len(store.held(lease.incarnation)),
            lease.expires_at > now,
            lease.renewed_at or None,
            lease.expires_at,
        )
        for lease in store.leases()
    ]


def place(store: Store, id: str) -> tuple[RunRecord, int | None] | None:
    """Return the run that an id means, and the number of the step if it means one; None when there is neither."""
    run = store.run(id)
    if run is not None:
        return run, 0 if run.single else None
    run_id, dot, n = id.rpartition(".")
    step = store.step(StepRef(run_id, int(n))) if dot and n.isdigit() else store.find_step(id)
    run = None if step is None else store.run(step.ref.run_id)
    return None if step is None or run is None else (run, step.ref.n)
