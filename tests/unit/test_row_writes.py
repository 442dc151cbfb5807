"""What a step costs: transactions and row writes, counted by SQLite itself."""

from collections.abc import Sequence

from orchestra.engine.outcome import Done
from orchestra.engine.plan import Plan, Target, plan
from orchestra.model.graph import Graph, GraphStep, identity
from orchestra.model.ids import new_id
from orchestra.runtime.cycle import Cycle
from orchestra.store.contract import Dispatch, NewRun
from orchestra.store.sql.store import SqlStore

STEPS = 50


class Outbox:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.waiting: list[Dispatch] = []

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        self.waiting += dispatches


def planned(after: Sequence[Sequence[int]]) -> Plan:
    steps = [GraphStep(f"s{n}", f"s{n}", identity, [], {}, frozenset(each)) for n, each in enumerate(after)]
    return plan(Graph("w", "w", steps), lambda _agent: Target("t", "p"), queue="q")


def cost_per_step(plans: Sequence[Plan], *, single: bool) -> tuple[float, float]:
    """Run no-op plans to their ends; return row writes and transactions a step, creation left out."""
    store = SqlStore("sqlite://")
    outbox = Outbox()
    cycle = Cycle(store, outbox, lambda: 1.0, "worker")
    for each in plans:
        (created,) = store.create_runs([NewRun(new_id(), "w", "w", each, single=single)], 1.0)
        outbox.publish(created.dispatches)
    connection = store._database._connection  # pyright: ignore[reportPrivateUsage]
    begun: list[str] = []
    before = connection.total_changes
    connection.set_trace_callback(lambda text: begun.append(text) if text.startswith("BEGIN") else None)
    done = 0
    while outbox.waiting:
        cycle.perform(outbox.waiting.pop(0).ref, lambda _claimed: Done("null"))
        done += 1
    assert done == sum(len(each.steps) for each in plans)
    return (connection.total_changes - before) / done, len(begun) / done


def test_a_link_of_a_chain_costs_two_transactions_and_at_most_four_row_writes() -> None:
    writes, transactions = cost_per_step([planned([[n - 1] if n else [] for n in range(STEPS)])], single=False)
    assert writes <= 4 + 1 / STEPS  # the end of the run is the odd one
    assert transactions == 2


def test_a_single_task_costs_two_transactions_and_at_most_five_row_writes() -> None:
    """Claim, outcome, event and the count and end of its run."""
    writes, transactions = cost_per_step([planned([[]])] * STEPS, single=True)
    assert writes <= 5
    assert transactions == 2


def test_a_part_of_a_join_costs_two_transactions_and_at_most_four_row_writes() -> None:
    fan_in = [*([[]] * STEPS), list(range(STEPS))]
    writes, transactions = cost_per_step([planned(fan_in)], single=False)
    assert writes <= 4 + 2 / STEPS  # the release of the join's body and the end of the run are the odd ones
    assert transactions == 2
