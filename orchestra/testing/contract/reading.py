"""What a store says of what it holds."""

from orchestra.model.graph import StepOptions
from orchestra.model.ids import StepRef
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.contract import RunFilter
from orchestra.testing.contract.desk import Desk, graph, must


class Reading:
    """``run``, ``runs``, ``step``, ``find_step``, ``steps``, ``counts``, ``outputs``, ``backlog`` and their like."""

    def test_what_is_not_there_is_none_or_empty(self, desk: Desk) -> None:
        store = desk.store
        assert store.run("nowhere") is None
        assert store.step(StepRef("nowhere", 0)) is None
        assert store.find_step("nowhere") is None
        assert store.steps("nowhere") == []
        assert store.counts("nowhere") == {}
        assert store.outputs("nowhere", [0]) == {}
        assert store.result_template("nowhere") is None
        assert store.runs(RunFilter()) == []
        assert (store.depth(), store.open_queues()) == ({}, [])
        assert store.events(0) == ([], 0)
        assert store.last_event() == 0

    def test_a_step_is_stored_as_it_was_planned(self, desk: Desk) -> None:
        its = {
            "options": StepOptions(2, "other"),
            "metadata": {"team": "größe"},
            "key": "key",
            "name": 'it\'s "a" name',
        }
        run = desk.create(graph([], s0=its))
        step = desk.step(run, 0)
        assert (step.ref, step.key, step.name, step.target) == (StepRef(run, 0), "key", 'it\'s "a" name', "m:agent0")
        assert (step.priority, step.queue, step.metadata) == (2, "other", {"team": "größe"})
        assert (step.claims, step.attempts, step.crashes, step.generation) == (0, 0, 0, 0)
        assert (step.created_at, step.started_at, step.completed_at, step.parent) == (desk.clock(), None, None, None)

    def test_runs_are_listed_newest_first(self, desk: Desk) -> None:
        runs: list[str] = []
        for _ in range(3):
            runs.append(desk.create(graph([])))
            desk.clock.advance(1)
        assert [each.id for each in desk.store.runs(RunFilter())] == runs[::-1]
        assert [each.id for each in desk.store.runs(RunFilter(limit=2))] == runs[:0:-1]

    def test_all_conditions_on_runs_must_hold(self, desk: Desk) -> None:
        old = desk.create(graph([]), name="a", metadata={"team": "x", "n": 1})
        middle = desk.clock.advance(1)
        done = desk.create(graph([]), name="a", metadata={"team": "x", "n": 2})
        other = desk.create(graph([]), name="b", metadata={"team": "y", "nested": {"k": [1]}})
        desk.complete(done, 0)

        def found(**conditions: object) -> set[str]:
            return {each.id for each in desk.store.runs(RunFilter(**conditions))}  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

        assert found(name="a") == {old, done}
        assert found(name="a", status=WorkflowStatus.COMPLETED) == {done}
        assert found(metadata={"team": "x"}) == {old, done}
        assert found(metadata={"team": "x", "n": 2}) == {done}
        assert found(metadata={"nested": {"k": [1]}}) == {other}
        assert found(metadata={"absent": None}) == set()
        assert found(since=middle) == {done, other}
        assert found(since=middle, status=WorkflowStatus.RUNNING) == {other}
        assert found(limit=0) == set()

    def test_a_step_is_found_by_its_key_in_the_newest_run(self, desk: Desk) -> None:
        keyed = graph([], [0], s0={"key": "one"}, s1={"key": "two"})
        first = desk.create(keyed)
        desk.complete(first, 0, output="1")
        found = desk.store.find_step("one")
        assert found is not None
        assert (found.ref, found.output) == (StepRef(first, 0), "1")
        desk.clock.advance(1)
        second = desk.create(keyed)
        found = desk.store.find_step("two")
        assert found is not None
        assert found.ref == StepRef(second, 1)

    def test_steps_are_listed_by_number_without_outputs_and_by_status(self, desk: Desk) -> None:
        run = desk.create(graph(*(() for _ in range(12))))
        desk.complete(run, 3, 11, output="1")
        assert [each.ref.n for each in desk.store.steps(run)] == list(range(12))
        completed = desk.store.steps(run, TaskStatus.COMPLETED)
        assert [(each.ref.n, each.output) for each in completed] == [(3, None), (11, None)]
        assert desk.store.steps(run, TaskStatus.FAILED) == []

    def test_counts_say_how_far_a_run_is(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [], [0, 1]))
        desk.claim(run, 0)
        desk.complete(run, 1)
        counts = {status: count for status, count in desk.store.counts(run).items() if count}
        assert counts == {TaskStatus.RUNNING: 1, TaskStatus.COMPLETED: 1, TaskStatus.QUEUED: 1, TaskStatus.PENDING: 1}

    def test_outputs_are_given_byte_for_byte_where_there_are_any(self, desk: Desk) -> None:
        run = desk.create(graph([], [], []))
        text = '{"a": [1.0, "größe \\u00e9 \U0001f600", null], "b" : 1e3}'
        desk.complete(run, 0, output=text)
        desk.complete(run, 1, output="null")
        assert desk.store.outputs(run, [0, 1, 2, 9]) == {0: text, 1: "null"}
        assert desk.step(run, 0).output == text

    def test_a_large_output_is_given_byte_for_byte(self, desk: Desk) -> None:
        run = desk.create(graph([], [0], s1={"from_predecessors": True}))
        text = f'"{"größe " * 50_000}"'
        desk.complete(run, 0, output=text)
        assert desk.step(run, 0).output == text
        assert desk.store.outputs(run, [0]) == {0: text}
        assert dict(desk.claim(run, 1).outputs) == {0: text}

    def test_the_template_of_the_output_is_kept(self, desk: Desk) -> None:
        run = desk.create(graph([], [], result={"both": [{"$ref": 0}, {"$ref": 1}], "text": "x"}))
        assert desk.store.result_template(run) == {"both": [{"$ref": 0}, {"$ref": 1}], "text": "x"}

    def test_the_backlog_is_counted_by_queue_and_priority(self, desk: Desk) -> None:
        assert desk.store.backlog() == []
        begun = desk.clock()
        for priority, wide in ((5, 70), (2, 1)):
            desk.create(graph(*(() for _ in range(wide))), priority=priority)
            desk.clock.advance(1)
        desk.create(graph([], s0={"options": StepOptions(10, "größe")}))
        backlog = desk.store.backlog()
        assert [(each.queue, each.priority, each.ready) for each in backlog] == [
            ("größe", 10, 1), ("q", 2, 1), ("q", 5, 70),
        ]  # fmt: skip
        since = [(each.sent_since, each.ready_since) for each in backlog]
        assert [tuple(round(must(each) - begun, 3) for each in times) for times in since] == [(2, 2), (1, 1), (0, 0)]
        assert [each.sent for each in backlog] == [1, 1, 64]

    def test_the_backlog_says_since_when_its_first_step_is_ready(self, desk: Desk) -> None:
        begun = desk.clock()
        desk.create(graph(*(() for _ in range(70))))
        later = desk.create(graph([], [0], s0={"options": StepOptions(1)}, s1={"options": StepOptions(2)}))
        desk.clock.advance(5)
        desk.complete(later, 0)
        desk.clock.advance(5)
        times = {each.priority: each.ready_since for each in desk.store.backlog()}
        assert (times[2], times[5]) == (begun + 5, begun)

    def test_what_has_been_claimed_is_no_backlog(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        desk.claim(run, 0)
        assert desk.store.backlog() == []

    def test_it_says_which_steps_a_step_waits_for(self, desk: Desk) -> None:
        assert desk.store.predecessors("nowhere") == {}
        run = desk.create(graph([], [], [0], [0, 1], [0, 1], [2, 3]))
        expected = {2: [0], 3: [0, 1], 4: [0, 1], 5: [2, 3]}
        assert {n: sorted(before) for n, before in desk.store.predecessors(run).items()} == expected
        desk.complete(run, 0, 1)
        assert {n: sorted(before) for n, before in desk.store.predecessors(run).items()} == expected

    def test_queues_with_work_are_those_of_open_steps(self, desk: Desk) -> None:
        shape = graph([], [0], [0], s1={"options": StepOptions(queue="b")}, s2={"options": StepOptions(queue="größe")})
        run = desk.create(shape)
        assert sorted(desk.store.open_queues()) == ["b", "größe", "q"]
        assert desk.store.depth() == {"q": 1}
        desk.complete(run, 0, 1)
        assert desk.store.open_queues() == ["größe"]
        desk.retry(run, 2, 60.0)
        assert desk.store.open_queues() == ["größe"]
        assert desk.store.depth() == {}
        desk.cancel(run)
        assert desk.store.open_queues() == []
