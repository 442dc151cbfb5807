"""Control: pause, resume, retry and fork. They are worked out here from what was read; a function writes it,
unless the run has changed meanwhile.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.engine.again import Again, Standing, again
from orchestra.errors import StoreUnavailable
from orchestra.model.ids import MessageRef
from orchestra.model.status import TaskStatus, WorkflowStatus
from orchestra.store.redis import rows
from orchestra.store.redis.connection import Connection
from orchestra.store.steering import copied, forked
from orchestra.store.values import Created, Recorded
from orchestra.store.window import LiveWindow

_TRIES = 5
# places in `at`, counted from 0
_STATUS, _SINGLE, _GOES_ON, _ENDED, _NEXT_N, _NEXT_JOIN = 0, 1, 2, 5, 6, 7


class RedisControl:
    """The part of the contract that is about control, but for cancel."""

    url: str
    _connection: Connection
    _key: str
    _window: LiveWindow

    def _recorded(self, answer: Any, parent: MessageRef | None = None) -> Recorded | None:
        raise NotImplementedError

    def pause(self, run_id: str, now: float) -> Recorded | None:
        return self._recorded(self._connection.run("pause", run_id, *self._call(now)))

    def resume(self, run_id: str, now: float) -> Recorded | None:
        return self._recorded(self._connection.run("resume", run_id, *self._call(now)))

    def retry(self, run_id: str, now: float) -> Recorded | None:
        for _try in range(_TRIES):
            stands = self._stands(run_id)
            if stands is None or stands[_STATUS] not in (WorkflowStatus.FAILED, WorkflowStatus.CANCELLED):
                return None
            to = again(*self._standing(run_id))
            if to is None:
                return None
            numbers = sorted(to.steps)
            steps = [[n, to.steps[n], to.parts.get(n, False)] for n in numbers]
            texts = (rows.encoded(steps), rows.encoded(numbers), _joins(to), _shut(to))
            answer = self._connection.run("retry", run_id, stands[_ENDED], *self._call(now), to.remaining, *texts)
            if answer != "again":
                return self._recorded(answer)
        raise StoreUnavailable(self.url, f"run {run_id!r} changed again and again while it was retried")

    def fork(self, run_id: str, new_id: str, n: int, now: float) -> Created | None:
        stands = self._stands(run_id)
        if stands is None or stands[_SINGLE]:
            return None
        steps, dead = self._standing(run_id)
        undone = forked(steps, n)
        if undone is None:
            return None
        first = copied(steps, undone)
        to = again(first, dead)
        assert to is not None, (run_id, n)
        made: list[Any] = json.loads(self._connection.command("HGET", f"{self._key}r:{run_id}", "run"))
        made[5:10] = [None, "", None, None, now]
        at = ["RUNNING", False, stands[_GOES_ON], to.remaining, False, False, len(first), stands[_NEXT_JOIN], ""]
        kept = [[each.n, each.status] for each in first if each.n not in to.steps]
        began = {"name": made[0], "forked_from": run_id, "kept": [each[0] for each in kept]}
        events: list[object] = [["workflow.started", [], began], ["task.submitted", sorted(to.steps), {}]]
        answer = self._connection.run(
            "fork", run_id, new_id, *self._call(now), rows.encoded([*at, False, False, rows.text_of(now)]),
            rows.encoded(made), len(first), stands[_NEXT_N], rows.encoded(kept),
            rows.encoded([[n, status, False] for n, status in sorted(to.steps.items())]), _joins(to),
            rows.encoded([text for each in first for text in (each.key, each.n)]),
            "\n".join(map(rows.encoded, events)), _shut(to),
        )  # fmt: skip
        recorded = self._recorded(answer)
        return None if recorded is None else Created(new_id, recorded.dispatches)

    def _call(self, now: float) -> tuple[str, str, str]:
        return rows.text_of(now), self._connection.token(), self._window.at(now).text

    def _stands(self, run_id: str) -> list[Any] | None:
        text = self._connection.command("HGET", f"{self._key}r:{run_id}", "at")
        return None if text is None else json.loads(text)

    def _standing(self, run_id: str) -> tuple[list[Standing], Mapping[int, frozenset[int]]]:
        found = self._connection.run("read_steps", run_id, "")
        steps = [_of_texts(*found[at : at + 4]) for at in range(0, len(found), 4)]
        numbers = sorted({feed[0] for step in steps for feed in step.feeds})
        texts: Sequence[str | None] = ()
        if numbers:
            texts = self._connection.command("HMGET", f"{self._key}r:{run_id}", *(f"d{number}" for number in numbers))
        named = zip(numbers, texts, strict=True)
        return steps, {number: frozenset(map(int, text.split(","))) for number, text in named if text}


def _of_texts(n: int, state: str, facts: str, error: str) -> Standing:
    held = json.loads(state)
    name, key, queue, _priority, _rank, _created, feeds, parent, waits_for, max_parallel, is_map, *_ = json.loads(facts)
    collects = held[14] if len(held) > 14 else False
    none: list[Any] = [None if value is False else value for value in (waits_for, parent, max_parallel, collects)]
    return Standing(
        int(n), key or name, name, queue, TaskStatus(held[0]), none[0], [feed[:4] for feed in feeds or ()], none[1],
        bool(is_map), none[2], none[3], json.loads(error)[0] if error else None,
    )  # fmt: skip


def _joins(to: Again) -> str:
    return rows.encoded(
        [
            [number, its.remaining, its.live, ",".join(map(str, sorted(its.dead)))]
            for number, its in sorted(to.joins.items())
        ]
    )


def _shut(to: Again) -> str:
    return rows.encoded(sorted(n for bodies in to.shut.values() for n in bodies))
