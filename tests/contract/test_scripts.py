"""Random scripts of submit, work, crash, pause, resume, retry, fork and cancel: every store goes the way of the model.

The model is the memory store, whose rules are plain Python; after each action all stores must show the same. When a
script is over everything is let go on, and each run must come to the outputs that one sequential pass would give.
"""

import uuid
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestra.engine.outcome import Change, Completed, Failed, Rescheduled
from orchestra.model.ids import MessageRef
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, NewRun, Store
from orchestra.testing.contract.desk import BOOM, WITH_FALLBACK, compiled, graph
from orchestra.testing.watched import check_history, check_transitions
from tests.stores import open_url

S = TaskStatus
SHAPES = (
    graph([]),
    graph([], [0], [1]),
    graph([], [], [0, 1], [2]),
    graph([], [], [0, 1], on_failure="continue"),
    graph([], [0], [0], [1, 2], [3], on_failure="continue"),
    graph([], [0], s0={"options": WITH_FALLBACK}),
    graph([], [], [0, 1], s2={"any": True}),
)
_PICK = st.integers(0, 1000)


class Scripts(RuleBasedStateMachine):
    """One script, played on every store at the same time."""

    urls: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        mark = uuid.uuid4().hex[:12]
        self.stores: list[Store] = [check_transitions(open_url(url.replace("MARK", mark))) for url in self.urls]
        self.runs: list[str] = []
        self.now = 1000.0

    # --- what people do -----------------------------------------------------------------------------------------

    @rule(shape=st.sampled_from(SHAPES))
    def submit(self, shape: object) -> None:
        run_id = f"run{len(self.runs)}"
        self.runs.append(run_id)
        new = NewRun(id=run_id, name="w", workflow_id="w", plan=compiled(shape))  # type: ignore[arg-type]
        self._each(lambda store: store.create_runs([new], self.now) and None)

    @precondition(lambda self: self.runs)
    @rule(which=_PICK)
    def pause(self, which: int) -> None:
        self._each(lambda store: store.pause(self._run(which), self.now) is not None)

    @precondition(lambda self: self.runs)
    @rule(which=_PICK)
    def resume(self, which: int) -> None:
        self._each(lambda store: store.resume(self._run(which), self.now) is not None)

    @precondition(lambda self: self.runs)
    @rule(which=_PICK)
    def retry(self, which: int) -> None:
        self._each(lambda store: store.retry(self._run(which), self.now) is not None)

    @precondition(lambda self: self.runs)
    @rule(which=_PICK, n=st.integers(0, 4))
    def fork(self, which: int, n: int) -> None:
        new = f"run{len(self.runs)}"
        if self._each(lambda store: store.fork(self._run(which), new, n, self.now) is not None):
            self.runs.append(new)

    @precondition(lambda self: self.runs)
    @rule(which=_PICK, n=st.one_of(st.none(), st.integers(0, 4)))
    def cancel(self, which: int, n: int | None) -> None:
        self._each(lambda store: getattr(store.cancel(self._run(which), n, self.now), "ended_run", False))

    # --- what workers do ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.runs)
    @rule(which=_PICK, how=st.sampled_from(("return", "return", "fail", "retry", "die")))
    def work(self, which: int, how: str) -> None:
        ready = self._ready()
        if ready:
            self._do(ready[which % len(ready)], how)

    def _do(self, message: MessageRef, how: str) -> None:
        changes: dict[str, Change] = {
            "return": Completed(str(message.step.n)), "fail": Failed(BOOM), "retry": Rescheduled(BOOM, 1.0)
        }  # fmt: skip

        def play(store: Store) -> object:
            claimed = store.claim(message, "w", self.now)
            if not isinstance(claimed, Claimed):
                return claimed.status
            if how == "die":
                return store.vanish(claimed.claim, "it died", self.now) is not None
            recorded = store.record(claimed.claim, changes[how], self.now)
            return recorded and recorded.ended_run

        self._each(play)

    @rule()
    def time_goes_on(self) -> None:
        self.now += 2.0
        self._each(lambda store: store.due(self.now) and None)

    # --- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def all_stores_say_the_same(self) -> None:
        self._each(lambda store: [self._shown(store, run_id) for run_id in self.runs])

    def teardown(self) -> None:
        for _ in range(200):
            for run_id in self.runs:
                self._each(lambda store, run_id=run_id: store.resume(run_id, self.now) is not None)
                self._each(lambda store, run_id=run_id: store.retry(run_id, self.now) is not None)
            self.time_goes_on()
            ready = self._ready()
            if not ready:
                break
            for message in ready:
                self._do(message, "return")
        for store in self.stores:
            for run_id in self.runs:
                run = store.run(run_id)
                assert run is not None
                assert run.status is WorkflowStatus.COMPLETED, (run, store.steps(run_id))
            assert not any(store.depth().values())
            check_history(store)
            store.close()

    def _ready(self) -> list[MessageRef]:
        steps = [step for run_id in self.runs for step in self.stores[0].steps(run_id)]
        return [MessageRef(step.ref, step.generation) for step in steps if step.status is S.QUEUED]

    def _run(self, which: int) -> str:
        return self.runs[which % len(self.runs)]

    def _shown(self, store: Store, run_id: str) -> object:
        run = store.run(run_id)
        steps = [
            (step.ref.n, step.status, step.generation, step.claims, step.attempts, step.crashes)
            for step in store.steps(run_id)
        ]
        return run and run.status, steps, store.outputs(run_id, range(6))

    def _each(self, action: object) -> object:
        """Do the same with every store, and return what all of them answered."""
        answers = [action(store) for store in self.stores]  # type: ignore[operator]
        assert all(each == answers[0] for each in answers), answers
        return answers[0]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("examples", [6, pytest.param(200, marks=pytest.mark.soak)])
def test_random_scripts_end_alike_on_every_store(examples: int, redis_url: str) -> None:
    urls = ("memory://", "sqlite://", f"{redis_url}?prefix=scripts-MARK")
    machine = type("Scripts", (Scripts,), {"urls": urls})
    quiet = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=quiet)
