"""Templates: the JSON that an input travels as, with places for outputs that do not exist yet.

Literals stand for themselves. A dict whose only key starts with ``$`` is a marker:

    {"$ref": 3}                              the whole output of step 3, with its type
    {"$text": ["Analyze: ", {"$ref": 3}]}    text; outputs in it count as ``str(value)``
    {"$literal": {"$ref": "price"}}          a dict of the user's that has such a key; its values are templates again

Every other marker (``{"$item": true}``) belongs to whoever put it there: it passes through, and ``fill`` is told its
value.
"""

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias, cast

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from orchestra.errors import UnserialisableInput, UntraceableInput
from orchestra.model.reference import Key, KeyOf, Reference, step_name

Json: TypeAlias = JsonValue

_NOTHING: Mapping[str, object] = MappingProxyType({})


def encode(
    value: object, key_of: KeyOf, *, path: str = "input", read_text: Callable[[str], Json] | None = None
) -> Json:
    """Return the template of a value that may hold references and handles of steps.

    Lists, tuples and mappings are gone through; dataclasses become dicts; pydantic models, datetimes, UUIDs, Decimals,
    Enums, paths and UTF-8 bytes become what pydantic makes of them. Dict keys that are numbers or booleans become text
    as in ``json.dumps``. An object with ``__orchestra_template__()`` gives its own marker.

    Args:
        value: The input as the user wrote it.
        key_of: Says which objects stand for steps. It is asked about the target of every reference, and about every
            object that is no text, number, list, tuple or mapping.
        path: What to call the value in errors.
        read_text: Makes templates of texts; it finds tokens in them. Without it they stand for themselves.

    Raises:
        UnserialisableInput: JSON cannot hold a value: sets, iterators, NaN, infinities, bytes and text that are not
            UTF-8, objects that pydantic does not know, two dict keys that become the same text, a value inside itself.
        UntraceableInput: A reference to a step that is not in the workflow, inside a model, or in the key of a dict.
    """
    try:
        return _Encoder(key_of, read_text or _itself).value(value, path)
    except RecursionError:
        raise UnserialisableInput(path, type(value).__name__, "it contains itself, or nests too deeply") from None


def plain(value: object, *, path: str) -> Json:
    """Return a value as JSON holds it, for what may hold no references: metadata, the data of an event.

    Raises:
        UnserialisableInput: JSON cannot hold it.
    """
    return cast(Json, fill(encode(value, lambda _value: None, path=path), {}))


def reference_to(key: Key) -> Json:
    """Return the template of the whole output of one step."""
    return {"$ref": key}


def references(template: object) -> list[int]:
    """Return the positions of the steps whose outputs the template needs, each once, in order of appearance."""
    return list(dict.fromkeys(cast(Iterator[int], _keys(template))))


def fill(template: object, outputs: Mapping[int, object], markers: Mapping[str, object] = _NOTHING) -> object:
    """Return the value that the template stands for. Pure; outputs are put in as they are, not copied.

    Args:
        template: As ``encode`` or ``trace_template`` made it.
        outputs: Output by position, for every position in ``references(template)``.
        markers: Value by name of marker, for markers other than those of this module: ``{"$item": element}``.

    Raises:
        KeyError: An output that is needed is not given.
        ValueError: The template holds a marker that nobody gave a value for.
    """
    match _marker(template):
        case "$ref", key:
            return outputs[cast(int, key)]
        case "$text", parts:
            return "".join(str(fill(part, outputs, markers)) for part in cast(list[object], parts))
        case "$literal", items:
            return {key: fill(each, outputs, markers) for key, each in cast(dict[str, object], items).items()}
        case (name, _) if name in markers:
            return markers[name]
        case name, _:
            raise ValueError(f"the template holds the marker {name!r}, for which no value was given")
        case None:
            return _each(template, lambda each: fill(each, outputs, markers))


def markers(template: object, prefix: str) -> dict[str, object]:
    """Return the markers whose names begin with a prefix, and what they hold."""
    if isinstance(template, str) or (found := _marker(template)) is None:
        inside: list[object] = []
    elif found[0].startswith(prefix):
        return {found[0]: found[1]}
    else:
        inside = [found[1]] if found[0] in ("$text", "$literal") else []
    match template:
        case dict() if not inside and _marker(cast(object, template)) is None:
            inside = list(cast(dict[str, object], template).values())
        case list():
            inside = cast(list[object], template)
        case _:
            pass
    return {name: content for each in inside for name, content in markers(each, prefix).items()}


def remap(template: object, mapping: Mapping[Any, Key]) -> Any:
    """Return the template with other keys in its references: positions for names, or other positions.

    Raises:
        KeyError: A reference has a key that ``mapping`` does not; the key is the error's argument.
    """
    return _rewritten(template, key=lambda key: mapping[key], text=_itself)


def substitute(template: object, known: Mapping[str, object], markers: Mapping[str, object] = _NOTHING) -> Any:
    """Return the template with ``{name}`` replaced by ``str(known[name])`` in its texts, at any depth.

    Only known names are replaced, so inputs may hold JSON and code. All other braces stay, ``{{name}}`` included. What
    was put in is not looked at again; keys of dicts and outputs that are filled in later are not looked at at all.

    Args:
        markers: Templates by name, for what becomes known only when it is filled: that counts as ``str(value)``.
    """
    if not known and not markers:
        return template
    names = re.compile(r"(?<!\{)\{(" + "|".join(re.escape(name) for name in [*known, *markers]) + r")\}")

    def replaced(text: str) -> Json:
        parts: list[Any] = []
        for at, piece in enumerate(names.split(text)):
            each: Any = piece if at % 2 == 0 else markers[piece] if piece in markers else str(known[piece])
            if isinstance(each, str) and parts and isinstance(parts[-1], str):
                parts[-1] += each
            else:
                parts.append(each)
        return parts[0] if len(parts) == 1 else {"$text": parts}

    return _rewritten(template, key=lambda key: key, text=replaced)


class _Encoder:
    def __init__(self, key_of: KeyOf, read_text: Callable[[str], Json]) -> None:
        self._key_of, self._read_text = key_of, read_text

    def value(self, value: object, path: str) -> Json:
        # References come first: they refuse every question that the other cases ask.
        if isinstance(value, Reference):
            return self._reference(value, path)
        match value:
            case None | bool():
                return value
            case str():
                return self._read_text(_utf8(str.__str__(value), path))
            case int():
                return int(value)
            case float():
                return _finite(value, path)
            case list() | tuple() | deque():
                return [self.value(each, f"{path}[{n}]") for n, each in enumerate(cast(list[object], value))]
            case Mapping():
                return self._mapping(cast(Mapping[object, object], value), path)
            case _:
                return self._object(value, path)

    def _reference(self, reference: Reference, path: str) -> Json:
        key = self._key_of(reference.target)
        if key is None:
            raise UntraceableInput(reference.step, f"{path} refers to it, but it is not a task of this workflow")
        return reference_to(key)

    def _mapping(self, mapping: Mapping[object, object], path: str) -> Json:
        items: dict[str, Json] = {}
        for key, each in mapping.items():
            text, inside = self._key(key, path), f"{path}[{key!r}]"
            if text in items:
                _refuse(each, inside, f"another key of this dict is {text!r} in JSON too")
            items[text] = self.value(each, inside)
        return {"$literal": items} if any(key.startswith("$") for key in items) else items

    def _key(self, key: object, path: str) -> str:
        if isinstance(key, str):
            text = _utf8(str.__str__(key), f"a key of {path}")
            if self._read_text(text) != text:
                raise UntraceableInput(None, f"the key of a dict, in {path}, holds the output of a step")
            return text
        if isinstance(key, bool | int | float) and math.isfinite(key):
            return json.dumps(key)
        raise UnserialisableInput(
            f"a key of {path}", type(key).__name__, "JSON has text as keys; numbers and booleans are written as text"
        )

    def _object(self, value: object, path: str) -> Json:
        own = getattr(type(value), "__orchestra_template__", None)
        if own is not None:
            return own(value)
        key = self._key_of(value)
        if key is not None:
            return reference_to(key)
        if isinstance(value, Set):
            _refuse(cast(object, value), path, "a set has no order; make it a list, with sorted(…)")
        if isinstance(value, Iterator):
            _refuse(cast(object, value), path, "it can be read only once; make it a list, with list(…)")
        modelled = hasattr(type(value), "__pydantic_serializer__")
        if is_dataclass(value) and not isinstance(value, type) and not modelled:
            return self._dataclass(value, path)
        if modelled:
            self._refuse_steps_inside(value, path)
        try:
            plain = to_jsonable_python(value)
        except (ValueError, TypeError) as error:
            _refuse(value, path, str(error))
        return self.value(plain, path)

    def _dataclass(self, value: object, path: str) -> Json:
        # Not by pydantic: fields may hold references, which it would take for text.
        names = [each.name for each in fields(cast(Any, value))]
        return {name: self.value(getattr(value, name), f"{path}.{name}") for name in names}

    def _refuse_steps_inside(self, value: object, path: str) -> None:
        """A model says itself how it becomes JSON, and would take a reference for text."""
        if isinstance(value, Reference):
            raise UntraceableInput(value.step, f"{path} has it inside a pydantic model; give a dict instead")
        match value:
            case None | bool() | int() | float() | str():
                return
            case list() | tuple() | deque() | Set():
                inside = list(cast(list[object], value))
            case Mapping():
                inside = list(cast(Mapping[object, object], value).values())
            case _ if self._key_of(value) is not None:
                raise UntraceableInput(step_name(value), f"{path} has it inside a pydantic model; give a dict instead")
            case _:
                inside = list(getattr(value, "__dict__", {}).values()) if _is_record(value) else []
        for each in inside:
            self._refuse_steps_inside(each, path)


def _is_record(value: object) -> bool:
    return is_dataclass(value) or hasattr(type(value), "__pydantic_serializer__")


def _refuse(value: object, path: str, reason: str) -> NoReturn:
    raise UnserialisableInput(path, type(value).__name__, reason)


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        _refuse(value, path, f"JSON has no {float(value)!r}")
    return float(value)


def _utf8(text: str, path: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            _refuse(text, path, f"it holds half of a surrogate pair, at position {error.start}, which UTF-8 cannot")
    return text


def _itself(text: str) -> str:
    return text


def _marker(template: object) -> tuple[str, object] | None:
    """Return name and content if the template is a marker."""
    if isinstance(template, dict) and len(cast(dict[str, object], template)) == 1:
        name, content = next(iter(cast(dict[str, object], template).items()))
        return (name, content) if name.startswith("$") else None
    return None


def _each(template: object, change: Callable[[object], object]) -> object:
    """Return a template that is no marker, with what it contains changed."""
    match template:
        case dict():
            return {key: change(each) for key, each in cast(dict[str, object], template).items()}
        case list():
            return [change(each) for each in cast(list[object], template)]
        case _:
            return template


def _keys(template: object) -> Iterator[Key]:
    match _marker(template):
        case "$ref", key:
            yield cast(Key, key)
        case (("$text" | "$literal"), content):
            yield from _inner_keys(content)
        case None:
            yield from _inner_keys(template)
        case _:
            return


def _inner_keys(content: object) -> Iterator[Key]:
    inside: list[object] = []
    match content:
        case dict():
            inside = list(cast(dict[str, object], content).values())
        case list():
            inside = cast(list[object], content)
        case _:
            pass
    for each in inside:
        yield from _keys(each)


def _rewritten(template: object, *, key: Callable[[Key], Key], text: Callable[[str], Json]) -> Json:
    def change(each: object) -> object:
        return _rewritten(each, key=key, text=text)

    match _marker(template):
        case "$ref", old:
            return reference_to(key(cast(Key, old)))
        case ("$text" | "$literal") as name, content:
            return {name: cast(Json, _each(content, change))}
        case None:
            return text(template) if isinstance(template, str) else cast(Json, _each(template, change))
        case _:
            return cast(Json, template)
