"""Envelopes: messages of steps as kombu's transports carry them over Redis, as text.

Those of one function differ in a few ids only, so the text around these is made once.
"""

import base64
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from orchestra.model.ids import MessageRef, StepRef
from orchestra.runtime.confirms import Message
from orchestra.store.contract import Dispatch

Envelope = Mapping[str, Any]
"""A message as kombu's virtual transports carry it."""
_KINDS = 256
"""How many texts a process keeps."""
_BODY = '[[],{},{"callbacks":null,"errbacks":null,"chain":%s,"chord":null}]'


def body_of(chain: Sequence[Any]) -> str:
    """Return the body of a step's message: no arguments, and the rest of its chain segment."""
    return _BODY % (json.dumps(chain) if chain else "null")


def _encoded(body: str) -> str:
    return base64.b64encode(body.encode()).decode()


_NO_CHAIN = _encoded(body_of(()))


class Envelopes:
    """Writes messages.

    Args:
        compose: Makes what kombu's ``Producer.publish`` would be called with.
        shown: Makes a name short enough for a message.
    """

    def __init__(self, compose: Callable[[Dispatch], Message], shown: Callable[[str], str]) -> None:
        self._compose, self._shown = compose, shown
        self._pid = 0

    def write(self, dispatch: Dispatch, chain: Sequence[Any]) -> str:
        """Return the text of a message."""
        if self._pid != os.getpid():
            self._begin()
        run_id, n = dispatch.ref.step
        text = self._form(dispatch.task, dispatch.queue, dispatch.priority, dispatch.timeout_s)
        return text % {
            "id": quoted(f"{run_id}.{n}.{dispatch.ref.generation}"),
            "root_id": quoted(f"{run_id}.0.0"),
            "parent_id": "null" if dispatch.parent is None else quoted(dispatch.parent),
            "shadow": "null" if dispatch.name == dispatch.task else quoted(self._shown(dispatch.name)),
            "body": _encoded(body_of(chain)) if chain else _NO_CHAIN,
            "tag": f"{self._process}-{next(self._tags):x}",
        }

    def _begin(self) -> None:
        # The process is named in the message; and no two messages may have one tag.
        self._form = lru_cache(_KINDS)(self._made)
        self._process, self._tags = uuid.uuid4().hex, count()
        self._pid = os.getpid()

    def _made(self, task: str, queue: str, priority: int, timeout_s: float | None) -> str:
        """Return the text of a kind of messages, with places for what differs among them."""
        mark = uuid.uuid4().hex
        ref = MessageRef(StepRef(mark, 1), 1)
        message = self._compose(
            Dispatch(ref, task, f"{mark}.name", queue, priority, timeout_s, parent=f"{mark}.parent")
        )
        envelope = {
            "body": f"{mark}.body",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message["headers"],
            "properties": {
                "correlation_id": message["correlation_id"],
                "delivery_mode": message["delivery_mode"],
                "delivery_info": {"exchange": message["exchange"], "routing_key": message["routing_key"]},
                "priority": message["priority"],
                "body_encoding": "base64",
                "delivery_tag": f"{mark}.tag",
            },
        }
        places = {
            f'"{ref.celery_id}"': "%(id)s",
            f'"{mark}.0.0"': "%(root_id)s",
            f'"{mark}.parent"': "%(parent_id)s",
            f'"{mark}.name"': "%(shadow)s",
            f'"{mark}.body"': '"%(body)s"',
            f'"{mark}.tag"': '"%(tag)s"',
        }
        text = json.dumps(envelope, separators=(",", ":")).replace("%", "%%")
        for marked, place in places.items():
            text = text.replace(marked, place)
        return text
