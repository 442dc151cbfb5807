"""The offline model: answers that are the same each time and say that no model was asked. For demos and tests."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import TypeAdapter

OFFLINE = "offline"
LABEL = "[offline]"
_LONGEST_ECHO = 200


def answer(name: str, prompt: str, output_type: Any) -> Any:
    """Return the answer to a prompt: a labelled sentence, or for another type the plainest value of its schema."""
    text = " ".join(prompt.split())
    echo = text if len(text) <= _LONGEST_ECHO else f"{text[:_LONGEST_ECHO]}…"
    sentence = f"{LABEL} {name} answers: {echo}"
    if output_type is str:
        return sentence
    adapter = TypeAdapter[Any](output_type)
    schema = adapter.json_schema()
    return adapter.validate_python(_value(schema, schema.get("$defs", {}), sentence))


def _value(schema: Mapping[str, Any], types: Mapping[str, Any], sentence: str) -> Any:
    if "$ref" in schema:
        return _value(types[schema["$ref"].rpartition("/")[2]], types, sentence)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _value(cast(Sequence[Any], schema[choice])[0], types, sentence)
    match schema.get("type"):
        case "object":
            wanted = cast(Sequence[str], schema.get("required", ()))
            return {key: _value(schema["properties"][key], types, sentence) for key in wanted}
        case "array":
            return [_value(schema.get("items", {}), types, sentence)] * int(schema.get("minItems", 0))
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            return low if "minimum" in schema or low == 0 else low + 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return sentence[: schema.get("maxLength")]
