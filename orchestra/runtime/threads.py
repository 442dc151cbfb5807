"""The thread pool of worker processes: Celery's own, which wakes the consumer when a body has ended."""

# Celery is untyped where a pool meets it.
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false

from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop


class ThreadPool(thread.TaskPool):
    """A consumer that fetches only while a slot is free sleeps when all are taken.

    A late acknowledgement would wake it. Tasks that acknowledge early, as adopted ones do by default, would leave it
    asleep with free slots, for up to a second.
    """

    def on_apply(self, *args: Any, **options: Any) -> Any:
        """Run one body."""
        result: Any = super().on_apply(*args, **options)
        result.f.add_done_callback(wake_consumer)
        return result


def wake_consumer(_ended: object = None) -> None:
    """Make the consumer look whether there is a free slot."""
    hub: Any = get_event_loop()
    if hub is not None:
        hub.call_soon(_nothing)


def _nothing() -> None: ...
