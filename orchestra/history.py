"""History: events of the log that have happened already."""

from collections import deque
from dataclasses import replace
from functools import partial

from orchestra.model import event as events
from orchestra.model import options
from orchestra.model.event import Event
from orchestra.store.contract import Store

_PAGE = 1000


def read(store: Store, *, run: str | None, type: str | None, after: str | None, limit: int, most: int) -> list[Event]:
    """Return events in the order of their commits: the newest ones, or those after an event id."""
    options.at_least_one("data_limit", most)
    pattern = "*" if type is None else events.check_pattern(type)
    behind = (0, -1) if after is None else events.position(after)
    found: deque[Event] = deque(maxlen=options.at_least_one("limit", limit) if after is None else None)
    # The newest ones may be far apart when only some are wanted; then the log is read from its beginning.
    newest = after is None and run is None and type is None
    cursor = behind[0] if after is None else behind[0] - 1
    while True:
        page, last = store.events(
            cursor, limit if newest else _PAGE, run_id=run, newest=newest, wanted=partial(events.matches, pattern)
        )
        found += [each for each in page if events.position(each.id) > behind]
        if newest or last == cursor or (after is not None and len(found) >= limit):
            return [replace(each, data=events.cut(each.data, most)) for each in list(found)[:limit]]
        cursor = last
