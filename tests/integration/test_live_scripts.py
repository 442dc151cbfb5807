"""Random scripts of submit, work, kill, pause, resume, retry, fork and cancel, played by real orchestrators.

The model is the memory store with one worker that claims whatever is ready. After each action the orchestrator must
come to what the model says; when a script is over all is let go on, and each run must come to its end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from orchestra.engine.outcome import Change, Completed, Failed, Rescheduled
from orchestra.model.ids import MessageRef
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import Claimed, ClaimRef, NewRun, Store
from orchestra.store.memory.store import MemoryStore
from orchestra.testing.contract.desk import BOOM, compiled
from orchestra.testing.watched import check_history
from tests.cluster import ROOT, Cluster
from tests.processes import Process, wait_until
from tests.scripted_flows import ORDERS, flows, give_order, perform
from tests.stores import open_url

S = TaskStatus
_PICK = st.integers(0, 1000)
_SHAPES = range(len(flows()))


class Player(Protocol):
    """An orchestrator with its workers, real ones."""

    orders: Path
    store: Store

    def perform(self, action: str, *given: Any) -> Any: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class Embedded:
    """All in one process beside the test, on a state file; the process is killed and started again."""

    def __init__(self, folder: Path, orders: Path) -> None:
        self.orders, self._file = orders, folder / "state.db"
        self._env = {ORDERS: str(orders)}
        self._start()
        self.store = open_url(f"sqlite:///{self._file}")

    def _start(self) -> None:
        command = ["env", *(f"{name}={value}" for name, value in self._env.items()), sys.executable]
        self._process = subprocess.Popen(
            [*command, "-m", "tests.scripted_flows", str(self._file)], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._answer()

    def perform(self, action: str, *given: Any) -> Any:
        cast(IO[str], self._process.stdin).write(json.dumps([action, *given]) + "\n")
        return self._answer()

    def _answer(self) -> Any:
        return json.loads(cast(IO[str], self._process.stdout).readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.store.close()


class OnRedis:
    """Broker, store and a worker with its own process group, which is killed and started again."""

    def __init__(self, folder: Path, orders: Path, broker: str) -> None:
        self.orders, store = orders, f"{broker}?prefix=live-scripts"
        self._cluster = Cluster(folder, broker, store=store, settings={ORDERS: str(orders)})
        self._orch = self._cluster.orchestrator()
        self._worker = self._start()
        self.store = open_url(store)

    def _start(self) -> Process:
        return self._cluster.worker("--pool", "threads", "--concurrency", "64")

    def perform(self, action: str, *given: Any) -> Any:
        return perform(self._orch, action, *given)

    def kill(self) -> None:
        self._worker.kill9()
        self._worker = self._start()

    def close(self) -> None:
        self.store.close()
        with self._cluster:
            pass


class LiveScripts(RuleBasedStateMachine):
    """One script, played by the model and by an orchestrator."""

    player: Player

    def __init__(self) -> None:
        super().__init__()
        self.model = MemoryStore()
        self.now = 1000.0
        self.runs: list[str] = []
        self.claims: dict[MessageRef, ClaimRef] = {}
        self.was_killed = False

    # --- what people do -----------------------------------------------------------------------------------------

    @rule(shape=st.sampled_from(_SHAPES))
    def submit(self, shape: int) -> None:
        run_id = self.player.perform("submit", shape)
        plan = compiled(flows()[shape].graph())
        self.model.create_runs([NewRun(id=run_id, name="w", workflow_id="w", plan=plan)], self.now)
        self.runs.append(run_id)
        self._settle()

    @precondition(lambda self: self.runs)
    @rule(which=_PICK, action=st.sampled_from(("pause", "resume", "retry", "cancel")))
    def steer(self, which: int, action: str) -> None:
        self._steer(self._run(which), action)
        self._settle()

    @precondition(lambda self: self.runs)
    @rule(which=_PICK, n=st.integers(0, 4))
    def cancel_step(self, which: int, n: int) -> None:
        run_id = self._run(which)
        if n < len(self.model.steps(run_id)):
            self.player.perform("cancel", f"{run_id}.{n}")
            self.model.cancel(run_id, n, self.now)
            self._settle()

    @precondition(lambda self: self.runs)
    @rule(which=_PICK, n=st.integers(0, 4))
    def fork(self, which: int, n: int) -> None:
        new = self.player.perform("fork", self._run(which), f"s{n}")
        forked = self.model.fork(self._run(which), new or "refused", n, self.now)
        assert (forked is None) == (new is None)
        if new is not None:
            self.runs.append(new)
            self._settle()

    # --- what workers do ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.claims)
    @rule(which=_PICK, how=st.sampled_from(("return", "return", "return", "fail", "retry")))
    def work(self, which: int, how: str) -> None:
        held = list(self.claims)
        self._work(held[which % len(held)], how)
        self._settle()

    @precondition(lambda self: self.claims and not self.was_killed)
    @rule()
    def kill(self) -> None:
        self.was_killed = True  # once: from its second crash on a step runs alone
        self.player.kill()
        for claim in self.claims.values():
            self.model.vanish(claim, "it was killed", self.now)
        self._settle()

    # --- the end ------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        while not all(self._status(run_id) is WorkflowStatus.COMPLETED for run_id in self.runs):
            for run_id in self.runs:
                self._steer(run_id, "resume")
                self._steer(run_id, "retry")
            self._settle()
            for message in list(self.claims):
                self._work(message, "return")
            self._settle()
        check_history(self.player.store, self.runs)
        assert not any(self.player.store.depth().values())
        assert not list(self.player.orders.iterdir())

    def _steer(self, run_id: str, action: str) -> None:
        done = self.player.perform(action, run_id)
        theirs: Any = (
            self.model.cancel(run_id, None, self.now)
            if action == "cancel"
            else getattr(self.model, action)(run_id, self.now)
        )
        assert done == (theirs is not None), (action, run_id)

    def _work(self, message: MessageRef, how: str) -> None:
        changes: dict[str, Change] = {
            "return": Completed(str(message.step.n)), "fail": Failed(BOOM), "retry": Rescheduled(BOOM, 1.0)
        }  # fmt: skip
        step = self.player.store.step(message.step)
        assert step is not None
        how = "fail" if how == "retry" and step.parent is not None else how  # a fallback has one attempt
        give_order(self.player.orders, str(message.step), step.claims, how)
        assert self.model.record(self.claims[message], changes[how], self.now) is not None

    def _settle(self) -> None:
        """Let the model's worker take what is ready, and wait until the orchestrator has come as far."""
        self.now += 10.0
        self.model.due(self.now)
        self.claims = {
            each: claim
            for each, claim in self.claims.items()
            if isinstance(held := self.model.claimed(each, "w"), Claimed) and held.claim == claim
        }
        for message in self._ready():
            claimed = self.model.claim(message, "w", self.now)
            if isinstance(claimed, Claimed):
                self.claims[message] = claimed.claim
        expected = self._shown(self.model)
        seen: list[object] = []

        def is_there() -> bool:
            seen[:] = self._shown(self.player.store)
            return seen == expected

        with suppress(AssertionError):
            wait_until(is_there, 60)
        assert seen == expected

    def _ready(self) -> list[MessageRef]:
        steps = [step for run_id in self.runs for step in self.model.steps(run_id)]
        return [MessageRef(step.ref, step.generation) for step in steps if step.status is S.QUEUED]

    def _run(self, which: int) -> str:
        return self.runs[which % len(self.runs)]

    def _status(self, run_id: str) -> WorkflowStatus | None:
        run = self.model.run(run_id)
        return run and run.status

    def _shown(self, store: Store) -> Sequence[object]:
        def show(run_id: str) -> object:
            run = store.run(run_id)
            steps = [
                (step.ref.n, step.status, step.generation, step.attempts, step.crashes) for step in store.steps(run_id)
            ]
            return run and run.status, steps, store.outputs(run_id, range(6))

        return [show(run_id) for run_id in self.runs]


@pytest.fixture(params=["embedded", "redis"])
def player(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Player]:
    orders = tmp_path / "orders"
    orders.mkdir()
    if request.param == "embedded":
        made: Player = Embedded(tmp_path, orders)
    else:
        made = OnRedis(tmp_path, orders, request.getfixturevalue("private_redis")().url)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("examples", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_random_scripts_end_as_the_model_says(examples: int, player: Player) -> None:
    machine = type("LiveScripts", (LiveScripts,), {"player": player})
    live = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate], database=None, derandomize=examples < 10,
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=live)
