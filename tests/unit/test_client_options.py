"""Options that people give, checked where they are given."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from orchestra.errors import InvalidOption, UnserialisableInput
from orchestra.model import options
from orchestra.model.ids import MessageRef, StepRef, new_id


@pytest.mark.parametrize(("given", "seconds"), [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)])
def test_a_duration_is_seconds_or_a_timedelta(given: Any, seconds: float) -> None:
    assert options.timeout(given) == seconds


@pytest.mark.parametrize("given", [0, -1, timedelta(0), "5", True, [], float("nan"), float("inf"), timedelta(days=999)])
def test_a_time_limit_that_is_not_possible_is_refused(given: Any) -> None:
    with pytest.raises(InvalidOption, match="timeout="):
        options.timeout(given)


def test_no_time_limit_is_none_and_a_wait_of_nothing_is_possible() -> None:
    assert options.timeout(None) is None
    assert options.seconds("timeout", 0) == 0.0


def test_priorities_go_from_one_to_ten() -> None:
    assert [options.priority(each) for each in (1, 10)] == [1, 10]
    for wrong in (0, 11, 1.0, "1", True, None):
        with pytest.raises(InvalidOption, match=r"priority=.*1 \(highest\) to 10"):
            options.priority(wrong)


def test_names_of_queues_are_one_word_of_a_list() -> None:
    assert options.queue("größe") == "größe"
    for wrong in ("", "  ", "a,b", "x" * 201, 5, None):
        with pytest.raises(InvalidOption, match="queue="):
            options.queue(wrong)


@pytest.mark.parametrize("given", ["a", "Gather Sources", "Über-Schritt 🎉", "👨‍👩‍👧", "a\u00a0b", "x" * 200])
def test_names_are_any_text_on_one_line(given: str) -> None:
    assert options.text("name", given) == given


@pytest.mark.parametrize("given", ["", " ", "a\nb", "a\tb", "\x00", "\udcff", "x" * 201, 5, None, b"a"])
def test_a_name_that_no_store_or_screen_could_hold_is_refused(given: Any) -> None:
    with pytest.raises(InvalidOption, match="name="):
        options.text("name", given)


def test_metadata_is_kept_as_json_holds_it() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    given = {"tags": ("a", "b"), "when": moment, "price": Decimal("1.5"), "id": UUID(int=1), "$ref": {"$item": None},
             "day": date(2026, 1, 2)}  # fmt: skip
    assert options.metadata(given) == {
        "tags": ["a", "b"], "when": "2026-01-02T00:00:00Z", "price": "1.5", "id": str(UUID(int=1)),
        "$ref": {"$item": None}, "day": "2026-01-02",
    }  # fmt: skip
    assert options.metadata(None) == {}


def test_metadata_that_is_none_is_refused_where_it_is() -> None:
    for wrong in ([1], "text", {1: 2}):
        with pytest.raises(InvalidOption, match="metadata="):
            options.metadata(wrong)
    with pytest.raises(UnserialisableInput, match=r"metadata\['a'\]\[1\]"):
        options.metadata({"a": [1, object()]})


# Ids


def test_new_ids_are_uuids_that_sort_by_the_time_of_their_making() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {UUID(each).version for each in ids} == {7}
    assert [each[:13] for each in ids] == sorted(each[:13] for each in ids)


@pytest.mark.parametrize("run_id", [new_id(), "my.own.id", "größe 1"], ids=["new", "dots", "letters"])
def test_a_message_is_named_by_run_step_and_generation(run_id: str) -> None:
    message = MessageRef(StepRef(run_id, 12), 3)
    assert message.celery_id == f"{run_id}.12.3"
    assert MessageRef.parse(message.celery_id) == message
    assert str(message.step) == f"{run_id}.12"
