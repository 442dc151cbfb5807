"""The store as one process sees it: the real one, which is away at times and whose answers get lost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from orchestra.engine.outcome import Change, Completed
from orchestra.errors import StoreUnavailable
from orchestra.store.contract import ClaimRef, Onward, Recorded, Store, ToClaim, ToRecord
from orchestra.testing.simulation.judge import Judge
from orchestra.testing.simulation.telling import told
from orchestra.testing.simulation.world import Process, World

_SLOW = frozenset({"claim", "record", "record_onward", "together"})
_URL = "simulated://"
_QUIET = frozenset({"due", "announce", "leases", "orphans", "held", "renew", "refill"})
"""Calls that are told in the story only when something came of them."""


class SimStore:
    """Stands before a store. Each call is two points, and may fail before it is made or after it was committed."""

    def __init__(self, world: World, store: Store, process: Process, judge: Judge) -> None:
        self._world, self._store, self._process, self._judge = world, store, process, judge

    @classmethod
    def of(cls, world: World, store: Store, process: Process, judge: Judge) -> Store:
        """Return it as what it stands for."""
        return cast(Store, cls(world, store, process, judge))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not callable(getattr(self._store, name)):
            return getattr(self._store, name)
        call = self._call(name, getattr(self._store, name))
        setattr(self, name, call)
        return call

    def note_body(self, seconds: float) -> None:
        """Nothing is asked of the store: it is known here."""
        self._store.note_body(seconds)

    def together(self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None = None) -> list[Any]:
        """Make them one by one, so that the judge sees each; nothing else happens in between."""
        return self._call("together", self._make_all)(wanted, onward)

    def _make_all(self, wanted: Sequence[ToClaim | ToRecord], onward: Onward | None) -> list[Any]:
        answers = [self._make(each) for each in wanted]
        room = 0 if onward is None else onward.most
        for at, (each, recorded) in enumerate(zip(wanted, answers, strict=True)):
            if onward is not None and isinstance(each, ToRecord) and isinstance(each.change, Completed) and recorded:
                fits = [its for its in recorded.dispatches if onward.takes(each.claim.ref.step.run_id, its)][:room]
                room -= len(fits)
                taken = [(its, self._make(ToClaim(its.ref, onward.worker, each.now))) for its in fits]
                others = [its for its in recorded.dispatches if its not in fits]
                answers[at] = replace(recorded, dispatches=others, onward=taken)
        return answers

    def _make(self, wanted: ToClaim | ToRecord) -> Any:
        if isinstance(wanted, ToClaim):
            name, args = "claim", (wanted.message, wanted.worker, wanted.now)
        else:
            name, args = "record", (wanted.claim, wanted.change, wanted.now)
        result = getattr(self._store, name)(*args)
        self._judge.saw(self._process, name, args, result)
        return result

    def record(self, claim: ClaimRef, change: Change, now: float, onward: Onward | None = None) -> Recorded | None:
        """Record, and claim what the worker goes on with, one by one as well."""

        def make(claim: ClaimRef, change: Change, now: float) -> Recorded | None:
            return self._make_all([ToRecord(claim, change, now)], onward)[0]

        return self._call("record_onward", make)(claim, change, now)

    def _call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._world.point(f"before {name}")
            if name in _SLOW and self._world.weather.store_s:
                self._world.sleep(self._world.weather.store_s)
            self._refuse_while_away(name)
            result = real(*args, **options)
            self._judge.saw(self._process, name, args, result)
            self._tell(name, args, result)
            if self._reply_is_lost():
                self._judge.reply_lost(name, result)
                self._process.refused_at = self._world.now
                self._world.note(self._process.name, f"does not hear the answer of {name}")
                raise StoreUnavailable(_URL, "simulated: the answer got lost")
            if name in _SLOW and self._reply_is_lost():
                self._world.sleep(self._world.rng.uniform(0.5, 4))  # it only takes long
                self._process.waited_at = self._world.now
            self._world.point(f"after {name}")
            return result

        return call

    def _refuse_while_away(self, name: str) -> None:
        world, weather, process = self._world, self._world.weather, self._process
        if world.stormy and weather.partitions and world.rng.random() < weather.partition:
            weather.partitions -= 1
            process.away_until = world.now + world.rng.uniform(1, 15)
            world.note(process.name, f"cannot reach the store for {process.away_until - world.now:.1f} s")
        away = any(begin <= world.elapsed < end for begin, end in weather.store_away)
        if away or process.away_until > world.now:
            if world.rng.random() < 0.2:
                world.sleep(world.rng.choice((0.1, 1.0, 3.0)))  # a call that hangs for a while
            process.refused_at = world.now
            raise StoreUnavailable(_URL, f"simulated: away at {name}")

    def _reply_is_lost(self) -> bool:
        world = self._world
        return world.stormy and world.weather.lost_reply > 0 and world.rng.random() < world.weather.lost_reply

    def _tell(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name in _QUIET and (not result or name in ("held", "leases") or result == ((), None)):
            return
        if name == "due" and not result[0]:
            return
        self._world.note(self._process.name, lambda: told(name, args, result))
