"""Retention, the census, and the end of a store's life."""

import pytest

from orchestra.errors import StoreUnavailable
from orchestra.model.status import WorkflowStatus
from orchestra.store.contract import RunFilter, Store
from orchestra.testing.contract.desk import Desk, graph

LINE = graph([], [0])


class Keeping:
    """``prune``, ``prunable``, ``census``, ``close``."""

    def test_runs_that_ended_before_a_time_are_deleted_as_a_whole(self, store: Store, desk: Desk) -> None:
        old = desk.create(LINE, key="k", fingerprint="f")
        desk.complete(old, 0, 1)
        limit = desk.clock.advance(10)
        recent, still = desk.create(LINE), desk.create(LINE)
        desk.complete(recent, 0, 1)
        assert store.prunable(limit) == 1
        assert store.prune(limit, 100) == 1
        assert store.prune(limit, 100) == 0
        assert {each.id for each in store.runs(RunFilter())} == {recent, still}
        assert (store.run(old), store.steps(old)) == (None, [])
        assert store.events(0, run_id=old)[0] == []
        found = store.find_step("s0")
        assert found is not None
        assert found.ref.run_id in (recent, still)

    def test_what_has_not_ended_is_kept_however_old(self, desk: Desk) -> None:
        run = desk.create(LINE)
        desk.complete(run, 0)
        later = desk.clock.advance(1e9)
        assert desk.store.prunable(later) == desk.store.prune(later, 100) == 0
        assert desk.complete(run, 1).ended_run is WorkflowStatus.COMPLETED

    def test_the_key_of_a_deleted_run_is_free_again(self, desk: Desk) -> None:
        old = desk.create(LINE, key="k", fingerprint="one")
        desk.cancel(old)
        desk.store.prune(desk.clock.advance(1), 100)
        assert desk.create(LINE, key="k", fingerprint="other") != old

    def test_never_more_than_the_limit_is_deleted_at_once(self, desk: Desk) -> None:
        for _ in range(5):
            desk.complete(desk.create(graph([])), 0)
        later = desk.clock.advance(1)
        deleted: list[int] = []
        while (number := desk.store.prune(later, 2)) > 0:
            deleted.append(number)
        assert sum(deleted) == 5
        assert max(deleted) <= 2

    def test_cursors_of_the_log_stay_good(self, desk: Desk) -> None:
        desk.complete(desk.create(graph([])), 0)
        end = desk.store.last_event()
        desk.store.prune(desk.clock.advance(1), 100)
        run = desk.create(graph([]))
        events, cursor = desk.store.events(end)
        assert {each.run_id for each in events} == {run}
        assert cursor > end

    def test_the_census_counts_runs_by_status_and_steps(self, desk: Desk) -> None:
        desk.complete(desk.create(LINE), 0, 1)
        desk.cancel(desk.create(LINE))
        desk.create(graph([], [], []))
        census = desk.store.census()
        runs = {status: number for status, number in census.runs.items() if number}
        assert runs == {WorkflowStatus.COMPLETED: 1, WorkflowStatus.CANCELLED: 1, WorkflowStatus.RUNNING: 1}
        assert census.steps == 7
        assert census.events > 0

    def test_a_url_names_the_store_without_a_password(self, store: Store) -> None:
        assert "://" in store.url

    def test_a_closed_store_says_so_and_closing_again_is_harmless(self, store: Store) -> None:
        store.close()
        store.close()
        with pytest.raises(StoreUnavailable):
            store.run("any")
        with pytest.raises(StoreUnavailable):
            store.emit("custom.event", {}, 1.0)
