"""The log: what happened, once, and causes before what they caused."""

from datetime import UTC, datetime

from orchestra.engine.outcome import Completed
from orchestra.model.ids import StepRef
from orchestra.store.contract import Store
from orchestra.testing.contract.claiming import at_once
from orchestra.testing.contract.desk import Desk, graph


class Telling:
    """``events``, ``announce``, ``emit``, ``watch``."""

    def test_the_log_of_a_run_tells_its_story_in_order(self, desk: Desk) -> None:
        run = desk.create(graph([], [0]))
        desk.retry(run, 0, 1.0)
        desk.clock.advance(1)
        desk.due()
        desk.complete(run, 0, 1)
        assert desk.told(run) == [
            "workflow.started", "submitted 0", "submitted 1", "queued 0", "started 0", "retrying 0", "queued 0",
            "started 0", "completed 0", "queued 1", "started 1", "completed 1", "workflow.completed",
        ]  # fmt: skip

    def test_an_event_says_when_where_and_what(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        started = desk.clock.advance(1)
        claimed = desk.claim(run, 0, "w7")
        ended = desk.clock.advance(2.5)
        desk.record(claimed, Completed("1"))
        events, _cursor = desk.store.events(0, run_id=run)
        start, end = events[-3:-1]
        assert (start.type, start.time, start.worker) == ("task.started", datetime.fromtimestamp(started, UTC), "w7")
        assert (start.run_id, start.task_id) == (run, f"{run}.0")
        assert dict(start.data) == {"name": "s0", "attempt": 1, "claim": 1}
        assert (end.type, end.time) == ("task.completed", datetime.fromtimestamp(ended, UTC))
        assert end.data["duration_s"] == 2.5

    def test_a_start_is_announced_when_the_body_takes_its_time_and_then_not_told_again(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        at = desk.clock()
        claimed = desk.claim(run, 0, "w1")
        desk.claim(run, 1, "w2")
        assert desk.store.announce("w1", at, desk.clock()) == 0  # it has not been running since before that time
        later = desk.clock.advance(1)
        assert desk.store.announce("w1", later, later) == 1
        assert desk.store.announce("w1", later, later) == 0
        assert desk.told(run, "task.started") == ["started 0"]
        desk.record(claimed, Completed("1"))
        assert desk.told(run, "task.started") == ["started 0"]
        (event,) = [each for each in desk.store.events(0, run_id=run)[0] if each.type == "task.started"]
        assert (event.time, event.worker) == (datetime.fromtimestamp(at, UTC), "w1")

    def test_every_claim_that_began_is_told(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        claimed = desk.claim(run, 0)
        later = desk.clock.advance(1)
        desk.store.announce("w1", later, later)
        desk.vanish(claimed)
        desk.vanish(desk.claim(run, 0))
        desk.complete(run, 0)
        events, _cursor = desk.store.events(0, run_id=run)
        assert [each.data["claim"] for each in events if each.type == "task.started"] == [1, 2, 3]

    def test_an_announced_single_task_has_the_id_of_its_run(self, desk: Desk) -> None:
        run = desk.single()
        desk.claim(run, 0)
        later = desk.clock.advance(1)
        desk.store.announce("w1", later, later)
        assert desk.told(run, "task.started") == ["started alone"]

    def test_a_reader_that_goes_on_from_the_cursor_misses_nothing_and_sees_nothing_twice(self, desk: Desk) -> None:
        runs = [desk.create(graph([], [0])) for _ in range(5)]
        for run in runs:
            desk.complete(run, 0, 1)
        whole, end = desk.store.events(0, 100_000)
        paged, cursor = list[str](), 0
        while True:
            page, cursor = desk.store.events(cursor, 3)
            if not page:
                break
            paged += [each.id for each in page]
        assert paged == [each.id for each in whole]
        assert len(set(paged)) == len(paged)
        assert cursor == end == desk.store.last_event()
        assert desk.store.events(end) == ([], end)

    def test_events_that_nobody_wants_are_left_out_and_the_others_stay_what_they_are(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1]))
        desk.complete(run, 0, 1)
        whole, end = desk.store.events(0)
        for kind in ("task.queued", "task.completed", "none.such"):
            wanted = [each for each in whole if each.type == kind]
            assert desk.store.events(0, wanted=kind.__eq__) == (wanted, end)

    def test_one_transaction_appends_all_its_events_to_one_page(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0, 1]))
        first, cursor = desk.store.events(0, 1)
        assert len(first) == 6
        claimed = desk.claim(run, 0)
        assert desk.store.events(cursor) == ([], cursor)
        desk.record(claimed, Completed("1"))
        second, _cursor = desk.store.events(cursor, 1)
        assert [each.type for each in second] == ["task.started", "task.completed"]

    def test_the_newest_events_are_the_end_of_the_log(self, desk: Desk) -> None:
        for n in range(5):
            desk.store.emit("custom.event", {"n": n}, desk.clock())
        found, cursor = desk.store.events(0, 2, newest=True)
        assert [each.data["n"] for each in found] == [3, 4]
        assert cursor == desk.store.last_event()
        after = desk.store.events(0, 3)[1]
        assert [each.data["n"] for each in desk.store.events(after, 10, newest=True)[0]] == [3, 4]

    def test_the_log_of_one_run_has_nothing_of_another(self, desk: Desk) -> None:
        one, other = desk.create(graph([])), desk.create(graph([]))
        desk.store.emit("custom.event", {}, desk.clock())
        desk.complete(other, 0)
        assert desk.told(one) == ["workflow.started", "submitted 0", "queued 0"]
        assert desk.store.events(0, run_id="nowhere")[0] == []

    def test_a_custom_event_is_kept_as_it_was_emitted(self, desk: Desk) -> None:
        data = {"text": "größe '\"\\", "number": 1.5, "nothing": None, "list": [1, {"a": True}]}
        desk.store.emit("order.shipped", data, desk.clock(), worker="w1@host")
        (event,), _cursor = desk.store.events(0)
        assert (event.type, dict(event.data), event.worker) == ("order.shipped", data, "w1@host")
        assert (event.run_id, event.task_id, event.time) == (None, None, datetime.fromtimestamp(desk.clock(), UTC))

    def test_an_event_of_a_step_is_in_the_log_of_its_run(self, desk: Desk) -> None:
        run, single, other = desk.create(graph([], [])), desk.single(), desk.create(graph([]))
        for each in (run, single):
            n = int(each == run)
            claimed = desk.claim(each, n)
            of = StepRef(each, n)
            desk.store.emit("custom.event", {"n": n}, desk.clock(), worker="w1", of=of, single=each == single)
            desk.record(claimed, Completed("1"))
        for each, task_id in ((run, f"{run}.1"), (single, single)):
            found = desk.store.events(0, run_id=each)[0]
            events = [(event.run_id, event.task_id) for event in found if event.type == "custom.event"]
            assert events == [(each, task_id)]
            assert found[-1].type == "task.completed"
        assert all(event.type != "custom.event" for event in desk.store.events(0, run_id=other)[0])

    def test_ids_of_events_differ(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        desk.complete(run, 0, 1)
        ids = [each.id for each in desk.store.events(0)[0]]
        assert len(set(ids)) == len(ids)

    def test_who_watches_hears_of_every_commit_that_wrote_events_until_it_stops(self, desk: Desk) -> None:
        heard: list[int] = []
        stop = desk.store.watch(lambda: heard.append(len(heard)))
        run = desk.create(graph([]))
        assert len(heard) == 1
        claimed = desk.claim(run, 0)
        assert len(heard) == 1  # the start is told later
        desk.record(claimed, Completed("1"))
        assert len(heard) == 2
        stop()
        desk.store.emit("custom.event", {}, desk.clock())
        assert len(heard) == 2
        stop()

    def test_a_listener_may_read_the_store(self, desk: Desk) -> None:
        seen: list[int] = []
        desk.store.watch(lambda: seen.append(desk.store.last_event()))
        desk.store.emit("custom.event", {}, desk.clock())
        assert seen == [desk.store.last_event()]

    def test_writers_and_a_reader_at_the_same_time_miss_nothing(self, desk: Desk, store: Store) -> None:
        found: list[str] = []

        def work(at: int) -> None:
            if at < 4:
                for n in range(15):
                    store.emit("custom.event", {"of": at, "n": n}, desk.clock())
                return
            cursor = 0
            while len(found) < 60:
                page, cursor = store.events(cursor, 7)
                found.extend(f"{each.data['of']}.{each.data['n']}" for each in page)

        at_once(5, work)
        assert len(set(found)) == len(found) == 60
        for writer in range(4):
            assert [each for each in found if each.startswith(f"{writer}.")] == [f"{writer}.{n}" for n in range(15)]
