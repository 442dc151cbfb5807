"""What running steps write down: checkpoints, progress, log lines."""

from orchestra.engine.outcome import Completed, Rescheduled
from orchestra.model.ids import StepRef
from orchestra.model.record import LogLine, Progress
from orchestra.store.notes import MOST_LINES
from orchestra.store.values import Claimed
from orchestra.testing.contract.desk import BOOM, Desk, graph


def line(claimed: Claimed, text: str, at: float = 1.5) -> LogLine:
    """Return a log line of a step."""
    return LogLine(claimed.claim.ref.step.n, claimed.claim.claim, at, "INFO", text)


class Noting:
    """``save_checkpoint``, ``checkpoints``, ``tell``, ``progress``, ``logs``."""

    def test_a_checkpoint_is_read_back_and_replaced_by_key(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        claim = desk.claim(run, 0).claim
        assert desk.store.checkpoints(StepRef(run, 0)) == {}
        assert desk.store.save_checkpoint(claim, "a", '{"ä":1}', 1.0)
        assert desk.store.save_checkpoint(claim, "b", "2", 1.0)
        assert desk.store.save_checkpoint(claim, "a", "[3]", 1.0)
        assert desk.store.checkpoints(StepRef(run, 0)) == {"a": "[3]", "b": "2"}
        assert desk.store.checkpoints(StepRef(run, 1)) == {}
        assert desk.store.checkpoints(StepRef("nowhere", 0)) == {}

    def test_checkpoints_outlive_crashes_and_retries(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        first = desk.claim(run, 0)
        desk.store.save_checkpoint(first.claim, "a", "1", 1.0)
        desk.vanish(first)
        second = desk.claim(run, 0)
        assert not desk.store.save_checkpoint(first.claim, "a", "2", 1.0)
        assert desk.store.save_checkpoint(second.claim, "b", "2", 1.0)
        desk.record(second, Rescheduled(BOOM, 1.0))
        assert not desk.store.save_checkpoint(second.claim, "b", "3", 1.0)
        assert desk.store.checkpoints(StepRef(run, 0)) == {"a": "1", "b": "2"}

    def test_a_step_that_has_ended_or_was_cancelled_saves_nothing(self, desk: Desk) -> None:
        run = desk.create(graph([], [], [0]))
        ended, cancelled = desk.claim(run, 0), desk.claim(run, 1)
        desk.record(ended, Completed("1"))
        desk.cancel(run)
        for each in (ended, cancelled):
            assert not desk.store.save_checkpoint(each.claim, "a", "1", 1.0)
            assert not desk.store.tell(each.claim, Progress(0.5, "", 1.0), [line(each, "x")], 1.0)
            assert desk.store.checkpoints(each.claim.ref.step) == {}
        assert (desk.store.progress(run), desk.store.logs(run, None, 10)) == ({}, [])

    def test_the_newest_progress_of_each_step_is_kept(self, desk: Desk) -> None:
        run = desk.create(graph([], [], []))
        one, other = desk.claim(run, 0), desk.claim(run, 2)
        assert desk.store.tell(one.claim, Progress(0.25, "a\x00ä", 1.0), [], 1.0)
        assert desk.store.tell(one.claim, Progress(0.5, "b", 2.0), [], 2.0)
        assert desk.store.tell(one.claim, None, [line(one, "x")], 2.0)
        assert desk.store.tell(other.claim, Progress(None, "c", 3.0), [], 3.0)
        assert desk.store.progress(run) == {0: Progress(0.5, "b", 2.0), 2: Progress(None, "c", 3.0)}
        assert desk.store.progress("nowhere") == {}

    def test_the_newest_log_lines_of_a_run_are_kept(self, desk: Desk) -> None:
        run = desk.create(graph([], []))
        one, other = desk.claim(run, 0), desk.claim(run, 1)
        desk.store.tell(one.claim, None, [line(one, f"a{at}\x00") for at in range(MOST_LINES - 1)], 1.0)
        desk.store.tell(other.claim, None, [line(other, "b")], 1.0)
        assert len(desk.store.logs(run, None, 10 * MOST_LINES)) == MOST_LINES
        desk.store.tell(one.claim, None, [line(one, "c"), line(one, "d")], 1.0)
        found = desk.store.logs(run, None, 10 * MOST_LINES)
        assert [each.text for each in found[-3:]] == ["b", "c", "d"]
        assert (len(found), found[0].text) == (MOST_LINES, "a2\x00")
        assert desk.store.logs(run, 1, 10) == [line(other, "b")]
        assert [each.text for each in desk.store.logs(run, 0, 2)] == ["c", "d"]
        assert desk.store.logs("nowhere", None, 10) == []

    def test_what_was_written_down_goes_with_its_run(self, desk: Desk) -> None:
        run = desk.create(graph([]))
        claimed = desk.claim(run, 0)
        desk.store.save_checkpoint(claimed.claim, "a", "1", 1.0)
        desk.store.tell(claimed.claim, Progress(0.5, "", 1.0), [line(claimed, "x")], 1.0)
        desk.record(claimed, Completed("1"))
        assert desk.store.checkpoints(StepRef(run, 0)) == {"a": "1"}
        desk.store.prune(desk.clock.advance(10), 10)
        assert desk.store.checkpoints(StepRef(run, 0)) == {}
        assert (desk.store.progress(run), desk.store.logs(run, None, 10)) == ({}, [])

    def test_what_all_steps_of_a_run_saved_is_read_at_once(self, desk: Desk) -> None:
        run, other = desk.create(graph([], [], [])), desk.create(graph([]))
        first, last = desk.claim(run, 0).claim, desk.claim(run, 2).claim
        for claim, key, value in ((first, "a", "1"), (first, "b", "2"), (last, "a", "3")):
            desk.store.save_checkpoint(claim, key, value, 1.0)
        desk.store.save_checkpoint(desk.claim(other, 0).claim, "a", "1", 1.0)
        assert desk.store.run_checkpoints(run) == {0: {"a": "1", "b": "2"}, 2: {"a": "3"}}
        assert desk.store.run_checkpoints(run, "a") == {0: {"a": "1"}, 2: {"a": "3"}}
        assert desk.store.run_checkpoints(run, "b") == {0: {"b": "2"}}
        assert desk.store.run_checkpoints("nowhere") == desk.store.run_checkpoints("nowhere", "a") == {}
