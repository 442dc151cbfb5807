"""A worker in a loop: the real cycle and adapter over a store, without Celery, threads or waiting."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

from orchestra.engine.plan import plan
from orchestra.errors import TaskNotFound
from orchestra.model.graph import Graph
from orchestra.model.ids import MessageRef, new_id
from orchestra.model.status import TaskStatus
from orchestra.runtime.adapter import Adapter
from orchestra.runtime.body import arguments, call, elements, inside
from orchestra.runtime.cycle import Cycle
from orchestra.runtime.outcomes import Elements
from orchestra.runtime.registry import Registry, body_of
from orchestra.store.contract import Claimed, Dispatch, NewRun, Refused, Store
from tests.shapes import ADDED


class Clock:
    """Seconds since the epoch that pass when they are told to, and a little with each look."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Loop:
    """Handles messages in random order, some of them twice, never or not to the end, until nothing is left to do.

    Args:
        mischief: How often a message is lost, doubled, or its worker dies.
    """

    def __init__(self, store: Store, seed: int = 0, mischief: float = 0.0) -> None:
        self.store, self.chance, self.mischief = store, random.Random(seed), mischief
        self.clock = Clock()
        self.messages: list[MessageRef] = []
        self.registry = Registry(travels=False)
        # One body at a time runs here, so nobody has to be kept from a suspect.
        cycle = Cycle(store, self, self.clock, "loop")
        self.adapter = Adapter(cycle, self.registry, enter=lambda _worker, _crashes: 0, leave=lambda _place: None)

    def publish(self, dispatches: Sequence[Dispatch], following: Sequence[object] = ()) -> None:
        """Keep messages; some are lost, some doubled."""
        for each in dispatches:
            copies = self.chance.choice([0, 2]) if self.chance.random() < self.mischief else 1
            self.messages += [each.ref] * copies

    def submit(self, graph: Graph, **fields: object) -> str:
        """Create a run."""
        compiled = plan(graph, self.registry.bind, queue="q")
        (created,) = self.store.create_runs([NewRun(new_id(), graph.name, graph.id, compiled, **fields)], self.clock())  # type: ignore[arg-type]
        self.publish(created.dispatches)
        return created.run_id

    def run(self, *, run_id: str = "", cancel_after: int | None = None) -> None:
        """Go on until nothing is left to do; ``cancel_after`` so many messages, the run or one of its steps goes."""
        handled = 0
        while True:
            while self.messages:
                if handled == cancel_after:
                    self.store.cancel(run_id, self.chance.choice([None, 0, 1, 2]), self.clock())
                handled += 1
                at = self.chance.randrange(len(self.messages))
                self.messages[at], self.messages[-1] = self.messages[-1], self.messages[at]
                self.handle(self.messages.pop())
            dispatches, next_due = self.store.due(self.clock())
            self.publish(dispatches)
            if next_due is not None:
                self.clock.now = max(self.clock.now, next_due)
            elif not self.messages:
                # Messages that were lost are sent again; the clock is far enough for any back-off.
                self.clock.now += 10_000.0
                self.messages += [each.ref for each in self.store.resend(["q"], self.clock.now - 1, 100, self.clock())]
                if not self.messages:
                    return

    def handle(self, message: MessageRef) -> Claimed | Refused:
        """Do what a worker does with a message."""
        request = SimpleNamespace(id=message.celery_id, chain=None, callbacks=None)
        claimed = self.adapter.begin(request)
        if isinstance(claimed, Refused):
            return claimed
        if self.chance.random() < self.mischief and claimed.crashes < 3:
            self.adapter.cycle.vanish(claimed.claim, "its worker died")
            return claimed
        try:
            result = self._body(claimed)
        except Exception as error:
            self.adapter.failed(request, error)
        else:
            self.adapter.done(request, result)
        return claimed

    def _body(self, claimed: Claimed) -> object:
        if claimed.row.is_map:
            return Elements(elements(claimed, self.registry.resolve))
        try:
            function = body_of(self.registry.resolve(claimed.row.target))
        except TaskNotFound:
            raise AssertionError(claimed.row.target) from None
        args, kwargs = arguments(claimed, self.registry.resolve)
        with inside(claimed):
            return call(function, args, kwargs, None)


def ends_of(store: Store, run_id: str) -> Counter[tuple[str, TaskStatus, str | None]]:
    """Return how the steps of a run ended, as the interpreter tells it."""
    steps = [each for each in store.steps(run_id) if not each.name.endswith(ADDED)]
    outputs = store.outputs(run_id, [each.ref.n for each in steps])
    values = {n: json.dumps(json.loads(text)) for n, text in outputs.items()}
    return Counter((each.key, each.status, values.get(each.ref.n)) for each in steps)
