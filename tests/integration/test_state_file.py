"""A state file: what was pending goes on, with real programs that are killed."""

import random
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, Workflow, WorkflowStatus
from orchestra.errors import KeyConflict, SettingsError, StoreUnavailable
from orchestra.runtime import local
from tests.forks import Program
from tests.processes import Process, wait_until

LONG_S = 30

HEAD = """
import os, sys, time
from pathlib import Path
from orchestra import Orchestrator, RetryPolicy, Task, TaskStatus, Workflow

def note(what):
    with open("notes", "a") as file:
        file.write(f"{what}\\n")

def until(name):
    while not Path(name).exists():
        time.sleep(0.01)
"""


class Programs:
    """Programs of one folder, with one state file."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self._env, self._count = folder, {"PYTHONPATH": str(root)}, 0

    def __call__(self, source: str) -> Process:
        self._count += 1
        path = self.folder / f"program{self._count}.py"
        path.write_text(HEAD + source)
        log = self.folder / f"log{self._count}"
        return Program([sys.executable, path], log=log, cwd=self.folder, env=self._env)

    def notes(self) -> Counter[str]:
        path = self.folder / "notes"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def completed(self) -> int:
        """Return how many steps the state file says are completed."""
        with sqlite3.connect(self.folder / "state.db", timeout=10) as file:
            return file.execute("SELECT count(*) FROM steps WHERE status = 'COMPLETED'").fetchone()[0]

    def allow(self, name: str) -> None:
        (self.folder / name).touch()


@pytest.fixture
def programs(tmp_path: Path, root: Path) -> Programs:
    return Programs(tmp_path, root)


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def hold(gate: threading.Event) -> Callable[[], object]:
    return lambda: gate.wait(LONG_S)


def submitted_and_left(state_file: Path, gate: threading.Event, *agents: object) -> list[str]:
    """Leave tasks in a state file that were never begun: the one slot is taken by another."""
    with Orchestrator(state_file=state_file, concurrency=1) as orch:
        holding = orch.submit(hold(gate))
        wait_until(lambda: holding.status is TaskStatus.RUNNING)
        tasks = [orch.submit(agent, 1) for agent in agents]
        orch.cancel(holding.id)
    gate.set()
    return [each.id for each in tasks]


# Going on


def test_killed_in_the_middle_and_started_again_it_finishes_and_runs_no_finished_step_again(programs: Programs) -> None:
    program = programs("""
def a():
    note("a")
    return 1

def wide(number):
    note("wide")
    return number

def c(value):
    note("c")
    until("go")
    return value + 1

def d(value):
    note("d")
    return value + 1

orch = Orchestrator(state_file="state.db")
if not orch.runs():
    print("submits")
    names = [f"wide {n}" for n in range(20)]
    tasks = [Task("a", a), *[Task(name, wide, 1) for name in names], Task("c", c), Task("d", d)]
    orch.submit_workflow(Workflow("flow", tasks, {"c": ["a"], "d": ["c"], **{name: ["a"] for name in names}}))
(run,) = orch.runs()
run.wait(30)
print("ended", run.status, run.output["d"])
""")
    with program:
        wait_until(lambda: programs.notes()["c"] and programs.completed() == 21)
        program.kill9()
        assert "ended" not in program.output
        programs.allow("go")
        program.start()
        program.wait_for("ended COMPLETED 3")
    assert program.output.count("submits") == 1
    assert programs.notes() == {"a": 1, "wide": 20, "c": 2, "d": 1}


def test_killed_again_and_again_it_loses_nothing_and_repeats_only_what_was_running(programs: Programs) -> None:
    program = programs("""
def step(n):
    note(n)
    time.sleep(0.002)
    return n

orch = Orchestrator(state_file="state.db", concurrency=4)
if not orch.runs():
    tasks = [Task(f"t{n}", step, n) for n in range(400)]
    after = {f"t{n}": [f"t{n - 1}", f"t{n // 2}"] for n in range(1, 400) if n % 5}
    orch.submit_workflow(Workflow("flow", tasks, after))
(run,) = orch.runs()
print("up")
run.wait(30)
print("ended", run.status, len(run.tasks), sum(task.output for task in run.tasks))
""")
    kills, seed = 4, random.Random(7)
    with program:
        for kill in range(kills):
            program.wait_for(lambda output, kill=kill: output.count("up") > kill)
            enough = min(len(programs.notes()) + 10 + seed.randrange(60), 380)
            wait_until(lambda enough=enough: len(programs.notes()) >= enough)
            program.kill9()
            program.start()
        program.wait_for(f"ended COMPLETED 400 {sum(range(400))}")
    notes = programs.notes()
    again = sum(notes.values()) - len(notes)
    print(f"{kills} kills: {again} bodies ran again")
    assert len(notes) == 400
    assert again <= kills * 4


def test_a_retry_that_was_waited_for_is_still_due_after_a_restart(state_file: Path) -> None:
    runs: list[float] = []

    def unsteady() -> str:
        runs.append(time.time())
        if len(runs) == 1:
            raise ConnectionError("once")
        return "there"

    def due_at() -> float:
        with closing(sqlite3.connect(state_file, timeout=10)) as file:
            return file.execute("SELECT due_at FROM steps").fetchone()[0]

    policy = RetryPolicy(2, delay=3600, jitter=0)
    with Orchestrator(state_file=state_file) as orch:
        waiting = orch.submit(unsteady, retry=policy, key="k")
        wait_until(lambda: waiting.status is TaskStatus.RETRYING)
    due = due_at()
    assert due >= runs[0] + 3600
    with Orchestrator(state_file=state_file) as orch:
        again = orch.submit(unsteady, retry=policy, key="k")
        assert (again.id, again.status) == (waiting.id, TaskStatus.RETRYING)
        orch.submit(len, "abc").wait(LONG_S)  # it works, and the retry has to wait
        assert (again.status, due_at()) == (TaskStatus.RETRYING, due)
    # Nobody waits for an hour, and the time comes sooner while nothing runs.
    soon = time.time() + 0.5
    with closing(sqlite3.connect(state_file, timeout=10)) as file, file:
        file.execute("UPDATE steps SET due_at = ? WHERE status = 'RETRYING'", (soon,))
    with Orchestrator(state_file=state_file) as orch:
        again = orch.submit(unsteady, retry=policy, key="k")
        assert (again.id, again.wait(LONG_S).output) == (waiting.id, "there")
    assert len(runs) == 2
    assert runs[1] >= soon


def test_what_was_done_before_is_still_known(state_file: Path) -> None:
    with Orchestrator(state_file=state_file) as orch:
        done = orch.submit(len, "abc", name="Größe", key="k", metadata={"c": 1}).wait(LONG_S)
        run = orch.submit_workflow(Workflow("flow", [Task("only", len, "abcd")])).wait(LONG_S)
        orch.emit("order.placed", {"n": 1})
    with Orchestrator(state_file=str(state_file)) as orch:
        found = orch.get_task(done.id)
        assert (found.name, found.output, found.status, found.metadata) == ("Größe", 3, TaskStatus.COMPLETED, {"c": 1})
        assert orch.get_run(run.id).output == 4
        assert [each.id for each in orch.runs()] == [run.id, done.id]
        assert [each.data for each in orch.history(type="order.*")] == [{"n": 1}]
        assert orch.submit(len, "abc", key="k").id == done.id
        with pytest.raises(KeyConflict):
            orch.submit(len, "other", key="k")


def test_opening_starts_something_only_when_there_is_work(state_file: Path, gate: threading.Event) -> None:
    before = set(threading.enumerate())  # some of other tests may be about to end

    def started() -> set[threading.Thread]:
        return set(threading.enumerate()) - before

    with Orchestrator(state_file=state_file) as orch:
        orch.submit(len, "abc").wait(LONG_S)
    wait_until(lambda: not started())
    with Orchestrator(state_file=state_file) as orch:
        assert not started()
    (left,) = submitted_and_left(state_file, gate, abs)
    with Orchestrator(state_file=state_file) as orch:
        assert started()
        orch.submit(abs, 2)
        assert orch.get_task(left).wait(LONG_S).output == 1


# Functions that are not there yet


def test_a_function_that_is_defined_two_seconds_after_the_opening_is_waited_for(programs: Programs) -> None:
    first = programs("""
def blocks(): time.sleep(60)
def late(value): return value
orch = Orchestrator(state_file="state.db", concurrency=1)
blocking = orch.submit(blocks)
orch.submit(late, "waited for", name="late")
while blocking.status != "RUNNING": time.sleep(0.01)
print("ready")
time.sleep(60)
""")
    with first:
        first.wait_for("ready")
        first.kill9()
    second = programs("""
def blocks(): pass
orch = Orchestrator(state_file="state.db", concurrency=1)
(run,) = orch.runs(name="late")
while run.status != "RUNNING": time.sleep(0.01)
time.sleep(2)
print("after two seconds", run.status)
def late(value): return value
print("ended", run.wait(30).output)
""")
    with second:
        second.wait_for("ended waited for")
    assert "after two seconds RUNNING" in second.output


def test_a_function_of_a_module_of_the_program_need_not_be_submitted_again(programs: Programs) -> None:
    (programs.folder / "helpers.py").write_text(
        "import pathlib, time\n"
        "def work():\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "    return 'from a module'\n"
    )
    program = programs("""
import helpers
orch = Orchestrator(state_file="state.db")
if not orch.runs():
    orch.submit(helpers.work)
(run,) = orch.runs()
print("up")
print("ended", run.wait(30).output)
""")
    with program:
        program.wait_for("up")
        program.kill9()
        programs.allow("go")
        program.start()
        program.wait_for("ended from a module", timeout=30)


class Adder:
    """Its instances are no functions that a name could lead to."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, other: int) -> int:
        return self.number + other

    def add(self, other: int) -> int:
        return self.number + other


def test_a_function_that_never_appears_fails_its_step_and_is_named(
    state_file: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(_value: int) -> None: ...

    left = submitted_and_left(state_file, gate, vanished, Adder(3), Adder(3).add)
    usual = local.PATIENCE_S
    monkeypatch.setattr(local, "PATIENCE_S", 0.3)
    started = time.monotonic()
    with Orchestrator(state_file=state_file) as orch:
        tasks = orch.wait_all([orch.get_task(each) for each in left], timeout=LONG_S)
    assert 0.3 <= time.monotonic() - started < usual
    for ended, name in zip(tasks, ("vanished", "Adder()", "Adder.add()"), strict=True):
        assert ended.error is not None
        assert (ended.status, ended.error.type, ended.attempts) == (TaskStatus.FAILED, "TaskNotFound", 0)
        assert name in ended.error.message
        assert "no function of that name has been defined here" in ended.error.message


def test_after_a_restart_a_lambda_is_not_mistaken_for_another(state_file: Path, gate: threading.Event) -> None:
    def first() -> Callable[[int], str]:
        return lambda value: f"first {value}"

    def second() -> Callable[[int], str]:
        return lambda value: f"second {value}"

    def by_number(number: int) -> Callable[[int], str]:
        return lambda value: f"number {number}, {value}"

    left = submitted_and_left(state_file, gate, first(), second(), by_number(1), by_number(2))
    with Orchestrator(state_file=state_file) as orch:
        # The program does other things first this time.
        assert orch.submit(lambda value: f"other {value}", 5).wait(LONG_S).output == "other 5"
        assert orch.submit(second(), 6).wait(LONG_S).output == "second 6"
        assert orch.get_task(left[1]).wait(LONG_S).output == "second 1"
        assert orch.get_task(left[0]).status is not TaskStatus.COMPLETED
        orch.submit(first(), 7)
        orch.submit(by_number(1), 8)
        orch.submit(by_number(2), 9)
        assert [orch.get_task(each).wait(LONG_S).output for each in left] == [
            "first 1", "second 1", "number 1, 1", "number 2, 1",
        ]  # fmt: skip


# Several processes


TWO = """
def work(name):
    note(name)
    until(f"let {name} go")
    return name

orch = Orchestrator(state_file="state.db", concurrency=2)
task = orch.submit(work, sys.argv[0][-4], key=sys.argv[0])
print("up")
print("ended", task.wait(30).output, "after", task.claims, task.crashes)
"""


def test_two_processes_on_one_file_leave_each_other_what_they_are_doing(programs: Programs) -> None:
    one, two = programs(TWO), programs(TWO)
    with one, two:
        wait_until(lambda: programs.notes() == {"1": 1, "2": 1}, timeout=LONG_S)
        # Both are idle with a free slot for longer than a worker takes to conclude that messages were lost.
        time.sleep(2)
        programs.allow("let 2 go")
        two.wait_for("ended 2 after 1 0")
        two.wait()
        programs.allow("let 1 go")
        one.wait_for("ended 1 after 1 0")
    assert programs.notes() == {"1": 1, "2": 1}


def test_what_a_killed_process_was_doing_is_taken_over_by_the_one_that_lives(programs: Programs) -> None:
    one, two = programs(TWO), programs(TWO)
    with one, two:
        wait_until(lambda: programs.notes() == {"1": 1, "2": 1}, timeout=LONG_S)
        programs.allow("let 1 go")
        one.wait_for("ended 1")
        one.wait()
        one.start()  # the same program: its key is known
        one.wait_for(lambda output: output.count("ended 1") == 2)
        two.kill9()
        two.start()
        wait_until(lambda: programs.notes()["2"] == 2, timeout=LONG_S)
        programs.allow("let 2 go")
        two.wait_for("ended 2 after 2 1")
    assert programs.notes() == {"1": 1, "2": 2}


def test_a_process_that_does_not_have_a_function_leaves_its_steps_to_the_one_that_does(
    state_file: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PATIENCE_S", 0.2)
    with Orchestrator(state_file=state_file, concurrency=1) as one, Orchestrator(state_file=state_file) as other:
        one.submit(hold(gate))
        mine = one.submit(lambda: "mine")
        other.submit(len, "starts the worker").wait(LONG_S)
        # The other concludes that the message was lost, and finds that it does not have the function.
        wait_until(lambda: mine.claims > 1, LONG_S, "the other to have tried it")
        assert not mine.status.ended
        gate.set()
        assert mine.wait(LONG_S).output == "mine"


def test_two_orchestrators_of_one_process_share_a_file_too(state_file: Path) -> None:
    ran: list[int] = []
    with Orchestrator(state_file=state_file) as one, Orchestrator(state_file=state_file) as two:
        tasks = [(one if n % 2 else two).submit(ran.append, n) for n in range(100)]
        one.wait_all(tasks, timeout=LONG_S)
        assert sorted(ran) == list(range(100))
        assert two.get_run(tasks[1].id).status is WorkflowStatus.COMPLETED
        heard = threading.Event()
        two.on("order.placed", lambda _event: heard.set())
        one.emit("order.placed")
        assert heard.wait(LONG_S)


# Files that cannot be opened


def test_a_state_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE meta (name, value)").connection.close()
    for path in (tmp_path / "missing" / "state.db", tmp_path, tmp_path / "text.db"):
        with pytest.raises(StoreUnavailable, match=path.name):
            Orchestrator(state_file=path)
    with pytest.raises((StoreUnavailable, SettingsError), match=r"other\.db"):
        Orchestrator(state_file=tmp_path / "other.db")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "name", ["mit Leerzeichen.db", "größe.db", "a%20b.db", "a#b.db", "a:b@c.db", "what?.db", ".state"]
)
def test_a_state_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    with Orchestrator(state_file=tmp_path / name) as orch:
        orch.submit(len, "abc").wait(LONG_S)
    assert (tmp_path / name).exists()
    with Orchestrator(state_file=tmp_path / name) as orch:
        assert len(orch.runs()) == 1
