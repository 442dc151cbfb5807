"""A process with a named subscriber, which writes down what it hears. Run with the file to write to."""

import os
import sys
import threading

from orchestra import Orchestrator
from orchestra.model.event import Event

orch = Orchestrator(modules=["tests"])


def main(path: str) -> None:
    """Hear everything until killed."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def hear(event: Event) -> None:
        os.write(file, f"{event.id} {event.run_id} {event.type}\n".encode())

    orch.on("*", hear, name="pager")
    print("subscribed", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
