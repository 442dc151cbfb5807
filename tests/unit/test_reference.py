"""Inputs built from outputs that do not exist yet: references, tracing, and the templates that travel."""

import copy
import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.errors import DefinitionError, OrchestraError, UnserialisableInput, UntraceableInput
from orchestra.model import reference
from orchestra.model.reference import Reference
from orchestra.model.template import encode, fill, reference_to, references, remap, substitute
from orchestra.model.tracing import trace_template

HINT = "a step of its own: a function marked @task"


class Step:
    """What a Task is here: a name, a real value, and an output that may be traced."""

    def __init__(self, name: str, value: Any = None) -> None:
        self.name, self.value = name, value

    @property
    def output(self) -> Any:
        traced = reference.current(self)
        return self.value if traced is None else traced


GATHER, RATE, STRANGER = Step("Gather", "notes"), Step("Rate", 7), Step("Stranger", "not in the workflow")
STEPS = [GATHER, RATE]


def key_of(value: object) -> int | None:
    return next((n for n, step in enumerate(STEPS) if step is value), None)


def no_steps(_value: object) -> None:
    return None


def refusal(function: Callable[[], object]) -> UntraceableInput:
    with pytest.raises(UntraceableInput) as caught:
        trace_template(function, key_of)
    assert HINT in str(caught.value)
    return caught.value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["$ref", "$text", "$literal", "$item", "$"]), inner, max_size=3)
    ),
    max_leaves=20,
)


class TestTemplatesOfValues:
    @given(json_values)
    def test_what_is_encoded_and_filled_is_what_it_was(self, value: object):
        encoded = encode(value, no_steps)
        assert fill(encoded, {}) == value
        assert fill(json.loads(json.dumps(encoded)), {}) == value
        assert references(encoded) == []

    def test_markers_are_small_and_dicts_that_look_like_one_are_escaped(self):
        assert encode([GATHER, "x"], key_of) == [{"$ref": 0}, "x"]
        assert encode({"$ref": [RATE]}, key_of) == {"$literal": {"$ref": [{"$ref": 1}]}}
        assert reference_to(3) == {"$ref": 3}

    def test_a_reference_and_the_handle_of_a_step_encode_alike(self):
        assert encode((Reference(RATE, "?"), {"a": RATE}), key_of) == [{"$ref": 1}, {"a": {"$ref": 1}}]

    def test_a_reference_to_a_step_of_another_workflow_is_refused(self):
        with pytest.raises(UntraceableInput, match=r"'Stranger'.*input\['a'\] refers to it"):
            encode({"a": Reference(STRANGER, "?")}, key_of)

    def test_an_object_may_bring_its_own_marker_whose_value_is_given_when_filled(self):
        class Item:
            def __orchestra_template__(self) -> object:
                return {"$item": True}

        encoded = encode([Item(), GATHER], key_of)
        assert encoded == [{"$item": True}, {"$ref": 0}]
        assert references(encoded) == [0]
        assert remap(encoded, {0: 5}) == [{"$item": True}, {"$ref": 5}]
        assert fill(encoded, {0: "a"}, {"$item": [1]}) == [[1], "a"]
        with pytest.raises(ValueError, match=r"'\$item'"):
            fill(encoded, {0: "a"})

    def test_tuples_become_lists_and_usual_types_what_pydantic_makes_of_them(self):
        class Colour(Enum):
            RED = "red"

        class Size(StrEnum):
            BIG = "big"

        class Level(IntEnum):
            HIGH = 3

        class Model(pydantic.BaseModel):
            at: datetime
            tags: set[str]

        at = datetime(2030, 1, 2, tzinfo=UTC)
        value = (Colour.RED, Size.BIG, Level.HIGH, at, UUID(int=1), Decimal("1.50"), Path("/a"), b"bytes")
        assert encode(value, no_steps) == [
            *("red", "big", 3, "2030-01-02T00:00:00Z", str(UUID(int=1)), "1.50", "/a", "bytes")
        ]
        assert encode(Model(at=at, tags={"a"}), no_steps) == {"at": "2030-01-02T00:00:00Z", "tags": ["a"]}
        assert encode(MappingProxyType({"a": ()}), no_steps) == {"a": []}
        assert [type(each) for each in encode([Size.BIG, Level.HIGH], no_steps)] == [str, int]  # type: ignore[union-attr]

    def test_dataclasses_may_hold_references(self):
        @dataclass
        class Query:
            text: object
            limit: int

        assert encode(Query(GATHER, 3), key_of) == {"text": {"$ref": 0}, "limit": 3}

    def test_steps_inside_pydantic_models_are_refused_since_the_model_would_take_them_for_text(self):
        class Query(pydantic.BaseModel):
            model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
            inside: Any

        for held in (GATHER, Reference(GATHER, "?"), [{"a": GATHER}], Query(inside=GATHER)):
            with pytest.raises(UntraceableInput, match=r"'Gather'.*inside a pydantic model"):
                encode(Query(inside=held), key_of)

    def test_keys_become_text_as_json_writes_them(self):
        value = {True: "a", 1.5: "b", 2: "c", -3: "d"}
        assert encode(value, no_steps) == json.loads(json.dumps(value))
        assert encode({False: 0}, no_steps) == {"false": 0}

    @pytest.mark.parametrize("key", [None, (1, 2), float("nan"), b"k", datetime(2030, 1, 1, tzinfo=UTC)])
    def test_other_keys_are_refused(self, key: object):
        with pytest.raises(UnserialisableInput) as caught:
            encode([{key: 1}], no_steps)
        assert caught.value.path == "a key of input[0]"

    def test_two_keys_that_json_writes_alike_are_refused(self):
        with pytest.raises(UnserialisableInput, match="another key of this dict is '1'"):
            encode({1: "a", "1": "b"}, no_steps)

    @pytest.mark.parametrize(
        ("value", "type_name"),
        [
            (object(), "object"),
            ({1, 2}, "set"),
            (frozenset("a"), "frozenset"),
            (b"\xff", "bytes"),
            (float("nan"), "float"),
            (float("-inf"), "float"),
            ((n for n in [1]), "generator"),
            (len, "builtin_function_or_method"),
            (Step, "type"),
        ],
    )
    def test_what_json_cannot_hold_is_refused_with_its_path_and_type(self, value: object, type_name: str):
        with pytest.raises(UnserialisableInput) as caught:
            encode({"a": [0, 1, 2, value]}, no_steps)
        assert (caught.value.path, caught.value.type_name) == ("input['a'][3]", type_name)
        assert str(caught.value).startswith(f"input['a'][3] is a {type_name} that cannot be sent as JSON: ")

    def test_a_value_inside_itself_is_refused(self):
        value: list[object] = []
        value.append(value)
        with pytest.raises(UnserialisableInput, match="contains itself"):
            encode(value, no_steps)

    def test_references_are_listed_once_in_order_of_appearance(self):
        template = [{"$text": ["a", {"$ref": 4}]}, {"$literal": {"$x": {"$ref": 2}}}, {"k": {"$ref": 4}}, {"$ref": 0}]
        assert references(template) == [4, 2, 0]

    def test_names_are_replaced_by_numbers_everywhere(self):
        named = [{"$text": ["a", {"$ref": "A"}]}, {"$literal": {"$x": {"$ref": "B"}}}, {"$literal": {"$ref": "A"}}]
        assert remap(named, {"A": 0, "B": 1}) == [
            {"$text": ["a", {"$ref": 0}]},
            {"$literal": {"$x": {"$ref": 1}}},
            {"$literal": {"$ref": "A"}},
        ]
        with pytest.raises(KeyError, match="C"):
            remap({"$ref": "C"}, {"A": 0})

    def test_filling_without_an_output_that_is_needed_is_an_error(self):
        with pytest.raises(KeyError):
            fill({"$ref": 1}, {0: "x"})


class TestSubstitution:
    def test_only_known_names_in_braces_are_replaced(self):
        text = 'at {when}: {"json": {n}, "list": [{when}]} {other} { when } f"{{when}}" {when!r} {} {{'
        assert substitute(text, {"when": "noon", "n": 3}) == (
            'at noon: {"json": 3, "list": [noon]} {other} { when } f"{{when}}" {when!r} {} {{'
        )

    def test_what_was_put_in_is_not_looked_at_again(self):
        assert substitute("{a}{b}", {"a": "{b}", "b": "{a}"}) == "{b}{a}"

    def test_text_stays_text(self):
        assert substitute("{n}", {"n": 3}) == "3"

    def test_it_applies_at_any_depth_but_not_to_keys_references_or_markers(self):
        template = [{"{n}": ["{n}"]}, {"$ref": "{n}"}, {"$text": ["{n}", {"$ref": 1}]}, {"$literal": {"$a": "{n}"}}]
        assert substitute([*template, {"$item": "{n}"}], {"n": 1}) == [
            {"{n}": ["1"]},
            {"$ref": "{n}"},
            {"$text": ["1", {"$ref": 1}]},
            {"$literal": {"$a": "1"}},
            {"$item": "{n}"},
        ]

    @given(json_values)
    def test_nothing_known_changes_nothing(self, value: object):
        assert substitute(encode(value, no_steps), {}) == encode(value, no_steps)

    @given(st.text(alphabet="{}ab$\\"), st.text(alphabet="{}ab\\1"))
    def test_names_are_found_as_a_scanner_would_find_them(self, text: str, replacement: str):
        out, n = "", 0
        while n < len(text):
            hit = text.startswith("{a}", n) and not text[:n].endswith("{")
            out, n = (out + replacement, n + 3) if hit else (out + text[n], n + 1)
        assert substitute(text, {"a": replacement}) == out


texts = st.text(max_size=8) | st.sampled_from(["{}", "%s", "%", "{{", "\n", " ", "\U000f0000"])
parts = st.lists(texts | st.integers(0, 1).map(lambda n: STEPS[n]), max_size=4)
compositions = st.sampled_from(["fstring", "plus", "percent", "format", "join"])
pieces = st.tuples(compositions, parts) | st.sampled_from(STEPS) | st.text(max_size=5) | st.integers()
recipes = st.recursive(
    pieces, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=10
)


def compose(how: str, some: list[str | Step]) -> str:
    """Write text from parts in one of the ways that are allowed."""
    values = [each.output if isinstance(each, Step) else each for each in some]
    match how, values:
        case _, []:
            return ""
        case "fstring", [only]:
            return f"{only}"
        case "fstring", [first, *_]:
            return f"{first}{compose(how, some[1:])}"
        case "plus", _:
            text = ""
            for each in values:
                text = text + (each if isinstance(each, str) else str(each))
            return text
        case "percent", _:
            return "%s" * len(values) % tuple(values)
        case "format", _:
            return ("{}" * len(values)).format(*values)
        case _:
            return "".join([each if isinstance(each, str) else str(each) for each in values])


def cook(recipe: Any) -> Any:
    match recipe:
        case Step():
            return recipe.output
        case (str(how), list(some)):
            return compose(how, some)
        case list():
            return [cook(each) for each in recipe]
        case dict():
            return {key: cook(each) for key, each in recipe.items()}
        case _:
            return recipe


class TestTracing:
    @settings(max_examples=400)
    @given(recipes, json_values, json_values)
    def test_filling_gives_the_same_as_evaluating_with_the_real_outputs(self, recipe: Any, first: Any, second: Any):
        template = trace_template(lambda: cook(recipe), key_of)
        GATHER.value, RATE.value = first, second
        try:
            assert fill(json.loads(json.dumps(template)), {0: first, 1: second}) == cook(recipe)
        finally:
            GATHER.value, RATE.value = "notes", 7

    @pytest.mark.parametrize(
        ("function", "template"),
        [
            (lambda: GATHER.output, {"$ref": 0}),
            (lambda: f"{GATHER.output}", {"$text": [{"$ref": 0}]}),
            (lambda: f"{GATHER.output!s}", {"$text": [{"$ref": 0}]}),
            (lambda: f"Analyze: {GATHER.output}.", {"$text": ["Analyze: ", {"$ref": 0}, "."]}),
            (lambda: f"{GATHER.output}{RATE.output}", {"$text": [{"$ref": 0}, {"$ref": 1}]}),
            (lambda: f"{RATE.output}{RATE.output}", {"$text": [{"$ref": 1}, {"$ref": 1}]}),
            (lambda: "a" + GATHER.output, {"$text": ["a", {"$ref": 0}]}),
            (lambda: GATHER.output + "a" + RATE.output, {"$text": [{"$ref": 0}, "a", {"$ref": 1}]}),
            (lambda: GATHER.output + RATE.output, {"$text": [{"$ref": 0}, {"$ref": 1}]}),
            (lambda: "a %s" % GATHER.output, {"$text": ["a ", {"$ref": 0}]}),  # noqa: UP031
            (lambda: "%s, %s" % (GATHER.output, 3), {"$text": [{"$ref": 0}, ", 3"]}),  # noqa: UP031
            (lambda: "{} {x}".format(GATHER.output, x=RATE.output), {"$text": [{"$ref": 0}, " ", {"$ref": 1}]}),  # noqa: UP032
            (lambda: ", ".join([GATHER.output, "b"]), {"$text": [{"$ref": 0}, ", b"]}),
            (lambda: "".join([GATHER.output]), {"$text": [{"$ref": 0}]}),
            (lambda: f" {GATHER.output} ".strip() + "!", None),
            (lambda: f"  a {GATHER.output} b\n".strip(), {"$text": ["a ", {"$ref": 0}, " b"]}),
            (lambda: {"a": [(GATHER.output,)]}, {"a": [[{"$ref": 0}]]}),
            (lambda: {"$ref": GATHER.output}, {"$literal": {"$ref": {"$ref": 0}}}),
            (lambda: [GATHER, RATE.output], [{"$ref": 0}, {"$ref": 1}]),
            (lambda: f"a {GATHER.output}".encode(), {"$text": ["a ", {"$ref": 0}]}),
            (lambda: {"plain": 1}, {"plain": 1}),
            (lambda step=RATE: step.output, {"$ref": 1}),
            (lambda: STRANGER.output.upper(), "NOT IN THE WORKFLOW"),
        ],
    )
    def test_outputs_may_be_placed_into_text_and_structures(self, function: Callable[[], object], template: object):
        if template is None:
            assert refusal(function).step == "Gather"
        else:
            assert trace_template(function, key_of) == template

    def test_text_that_looks_like_a_marker_or_a_private_character_stays_text(self):
        assert trace_template(lambda: '{"$ref": 0} \U00100000', key_of) == '{"$ref": 0} \U00100000'

    def test_outside_a_trace_the_output_is_the_real_one(self):
        trace_template(lambda: GATHER.output, key_of)
        assert GATHER.output == "notes"
        assert reference.current_trace() is None

    REFUSED: ClassVar[list[tuple[Callable[[], object], str]]] = [
        (lambda: GATHER.output[:5], "indexed or sliced"),
        (lambda: GATHER.output[0], "indexed or sliced"),
        (lambda: GATHER.output["key"], "indexed or sliced"),
        (lambda: "{0[key]}".format(GATHER.output), "indexed or sliced"),  # noqa: UP030, UP032
        (lambda: GATHER.output.upper(), ".upper"),
        (lambda: GATHER.output.strip(), ".strip"),
        (lambda: GATHER.output.split(), ".split"),
        (lambda: GATHER.output.field, ".field"),
        (lambda: getattr(GATHER.output, "field", "default"), ".field"),
        (lambda: GATHER.output.token, "attribute .token"),
        (lambda: GATHER.output.step, "attribute .step"),
        (lambda: "{0.name}".format(GATHER.output), ".name"),  # noqa: UP030, UP032
        (lambda: len(GATHER.output), "len()"),
        (lambda: [*GATHER.output], "iterated"),
        (lambda: list(reversed(GATHER.output)), "iterated"),
        (lambda: {**GATHER.output}, ".keys"),
        (lambda: "yes" if "x" in GATHER.output else GATHER.output, "`in`"),
        (lambda: GATHER.output == "x", "compared"),
        (lambda: "x" != GATHER.output, "compared"),  # noqa: SIM300
        (lambda: GATHER.output < "x", "compared"),
        (lambda: sorted([GATHER.output, RATE.output]), "compared"),
        (lambda: GATHER.output in ["x"], "compared"),
        (lambda: GATHER.output or "default", "condition"),
        (lambda: not GATHER.output, "condition"),
        (lambda: f"{GATHER.output}" or "default", "condition"),
        (lambda: f"{GATHER.output}" and "x", "condition"),
        (lambda: {GATHER.output: 1}, "dict key"),
        (lambda: {GATHER.output}, "in a set"),
        (lambda: {f"a {GATHER.output}": GATHER.output}, "key of a dict"),
        (lambda: GATHER.output + 1, "arithmetic"),
        (lambda: 1 + GATHER.output, "arithmetic"),
        (lambda: [1] + GATHER.output, "arithmetic"),  # noqa: RUF005
        (lambda: GATHER.output * 2, "arithmetic"),
        (lambda: "-" * GATHER.output, "arithmetic"),
        (lambda: GATHER.output % 2, "arithmetic"),
        (lambda: 2 % GATHER.output, "arithmetic"),
        (lambda: -GATHER.output, "arithmetic"),
        (lambda: 2**GATHER.output, "arithmetic"),
        (lambda: round(GATHER.output), "arithmetic"),
        (lambda: int(GATHER.output), "number"),
        (lambda: float(GATHER.output), "number"),
        (lambda: "%d" % GATHER.output, "number"),  # noqa: UP031
        (lambda: range(GATHER.output), "number"),
        (lambda: f"{GATHER.output:>10}", "format '>10'"),
        (lambda: f"{GATHER.output:.2f}", "format '.2f'"),
        (lambda: f"{GATHER.output!r}", "!r"),
        (lambda: f"{GATHER.output!a}", "!r"),
        (lambda: "%r" % GATHER.output, "!r"),  # noqa: UP031
        (lambda: f"{[GATHER.output]}", "!r"),
        (lambda: GATHER.output if isinstance(GATHER.output, list) else [GATHER.output], "__class__"),
        (lambda: copy.deepcopy(GATHER.output), "__"),
        (lambda: f"{GATHER.output}".upper(), ".upper"),
        (lambda: f"{GATHER.output}"[:5], "sliced"),
        (lambda: len(f"{GATHER.output}"), "len()"),
        (lambda: str(len(f"{GATHER.output}")), "len()"),
        (lambda: str(GATHER.output)[0], "indexed"),
        (lambda: ("a" + GATHER.output).title(), ".title"),
    ]

    @pytest.mark.parametrize(("function", "seen"), REFUSED, ids=[seen + str(n) for n, (_, seen) in enumerate(REFUSED)])
    def test_looking_at_an_output_is_refused_with_a_hint(self, function: Callable[[], object], seen: str):
        assert seen in refusal(function).seen

    MANGLED: ClassVar[list[Callable[[], object]]] = [
        lambda: f"a {GATHER.output}".upper(),
        lambda: f"a {GATHER.output}".lower(),
        lambda: f"a {GATHER.output}".swapcase(),
        lambda: f"a {GATHER.output}"[:5],
        lambda: f"a {GATHER.output}"[::-1],
        lambda: f"a {GATHER.output}".strip(),
        lambda: f"a {GATHER.output}".split(),
        lambda: f"a {GATHER.output}, b".split(", "),
        lambda: f"a {GATHER.output}".splitlines(),
        lambda: f"a {GATHER.output}".replace("error", "problem"),
        lambda: f"a {GATHER.output} {{}}".format(1),
        lambda: f"a {GATHER.output} %s" % 1,
        lambda: f"a {GATHER.output}".ljust(40),
        lambda: "%10s" % GATHER.output,  # noqa: UP031
        lambda: "%.2s" % GATHER.output,  # noqa: UP031
        lambda: str(len(f"a {GATHER.output}")),
        lambda: f"a {GATHER.output}, {len(f'a {GATHER.output}')}",
        lambda: GATHER.output if "x" in f"a {GATHER.output}" else "no",
        lambda: GATHER.output if "error" in f"a {GATHER.output}" else [GATHER.output],
        lambda: json.dumps({"a": GATHER.output}),
        lambda: f"a {GATHER.output}" and "x",
        lambda: [each.output for each in STEPS][0],  # noqa: RUF015
    ]

    @pytest.mark.parametrize("function", MANGLED, ids=range(len(MANGLED)))
    def test_text_composed_around_an_output_is_refused_when_it_was_handled_by_content_or_length(
        self, function: Callable[[], object]
    ):
        refusal(function)

    def test_the_error_names_the_task_and_what_was_seen(self):
        error = refusal(lambda: f"{GATHER.output}" and [RATE.output, "x"])
        assert str(error).startswith("the output of 'Gather' cannot be traced: it was used as a condition. ")
        error = refusal(lambda: [GATHER.output, f"a {RATE.output}" and "x"])
        assert error.step == "Rate"
        assert "missing or changed in the result, ['{Gather.output}', 'x']" in error.seen

    def test_a_function_that_gives_different_results_is_refused(self):
        error = refusal(lambda: random.random())
        assert error.step is None
        assert "two runs of the function gave different results" in error.seen
        toggle = iter([1, True])
        refusal(lambda: next(toggle))

    def test_a_refusal_that_the_function_catches_is_still_a_refusal(self):
        def build() -> object:
            try:
                return GATHER.output[0]
            except Exception:
                return f"all of {GATHER.output}"

        assert "indexed" in refusal(build).seen

    def test_what_the_function_raises_is_named_and_chained(self):
        error = refusal(lambda: {}[f"a {GATHER.output}"])
        assert error.seen.startswith("the function raised KeyError: ")
        assert isinstance(error.__cause__, KeyError)
        assert "a {Gather.output}" in refusal(lambda: open(f"a {GATHER.output}")).seen  # noqa: SIM115, PTH123

    def test_functions_that_need_arguments_or_are_async_are_refused(self):
        async def later() -> str:
            return "x"

        assert "arguments" in refusal(lambda x: x).seen  # type: ignore[misc]
        assert "async" in refusal(later).seen

    def test_a_result_that_json_cannot_hold_is_refused(self):
        with pytest.raises(UnserialisableInput, match=r"input\[1\] is a set"):
            trace_template(lambda: [GATHER.output, {1}], key_of)

    def test_a_reference_outside_a_trace_refuses_too_but_can_be_shown(self):
        handle = Reference(GATHER, "token")
        assert repr(handle) == "<output of 'Gather'>"
        assert (handle.target, handle.token, handle.step, type(handle.token)) == (GATHER, "token", "Gather", str)
        for look in (
            len,
            bool,
            hash,
            list,
            int,
            float,
            lambda ref: ref[0],
            lambda ref: ref.upper,
            lambda ref: ref == 1,
        ):
            with pytest.raises(UntraceableInput, match=HINT):
                look(handle)

    def test_both_errors_are_definition_errors_and_survive_pickle(self):
        for error in (UntraceableInput("Gather", "len()"), UnserialisableInput("input[0]", "set", "no order")):
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
            assert isinstance(again, DefinitionError | OrchestraError)
