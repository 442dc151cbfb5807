"""Codec: between the values of bodies and the JSON text of the store."""

import json
from typing import Any

from kombu.utils.json import dumps as kombu_dumps
from kombu.utils.json import loads as kombu_loads
from pydantic_core import PydanticSerializationError, to_json

from orchestra.errors import UnserialisableOutput

_KOMBU_TYPE = '"__type__"'
_ESCAPED_TYPE = '"\\u005f_type__"'


def encode_output(value: object, task: str, *, adopted: bool = False) -> str:
    """Return the JSON text of what a body returned.

    Adopted Celery tasks keep the types that kombu's JSON carries (datetime, UUID, Decimal, …); for all others pydantic
    decides (dataclasses and models become objects, datetimes text).

    Raises:
        UnserialisableOutput: JSON cannot hold it.
    """
    try:
        if adopted:
            return kombu_dumps(value)
        # Written with an escape, so that ``decode`` does not take data of the user's for one of kombu's types.
        return to_json(value, inf_nan_mode="constants").decode().replace(_KOMBU_TYPE, _ESCAPED_TYPE)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise UnserialisableOutput(task, type(value).__name__, str(error).strip()) from None


def decode(text: str) -> Any:
    """Return the value of JSON text, with the types that kombu's JSON carries."""
    return kombu_loads(text) if _KOMBU_TYPE in text else json.loads(text)
