"""Conditions: an expression over an output, walked and never executed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.errors import InvalidOption
from orchestra.model.condition import check, holds

ANSWER = {"score": 0.8, "labels": ["urgent", "Legal"], "author": {"name": "Ada"}, "empty": [], "none": None, "n": 3}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("when", [
    "output",
    "output.score > 0.5",
    "0.5 < output.score <= 0.8",
    "output['score'] == 0.8",
    "'urgent' in output.labels",
    "'spam' not in output.labels",
    "output.labels[0] == 'urgent' and output.labels[-1] == 'Legal'",
    "lower(output.labels[1]) == 'legal'",
    "upper(output.author.name) == 'ADA'",
    "len(output.labels) == 2",
    "output.author.name[0] == 'A'",
    "not output.empty",
    "output.none is None",
    "output.absent is None",
    "output.absent.deeper[3] is None",
    "output.labels[7] is None",
    "output.n in [1, 2, 3]",
    "output.n in (1, 2, 3)",
    "output.n % 2 == 1",
    "output.n * 2 - 1 == 5",
    "output.n / 2 + 0.5 == 2",
    "-output.n < 0",
    "output.score > 5 or output.n == 3",
    "output.score != 'text'",
    " output.n == 3 ",
])  # fmt: skip
def test_a_condition_that_holds(when: str) -> None:
    assert check(when) == when
    assert holds(when, ANSWER)


@pytest.mark.parametrize("when", [
    "output.score > 'text'",
    "output.absent > 1",
    "output.absent < 1",
    "output.n / 0 == 1",
    "output.labels[output.labels]",
    "len(output.n) == 1",
    "output.author[0]",
    "output + 1 == 1",
    "'x' in output.n",
    "-output.labels == 1",
    "output.labels * 2 == ['urgent', 'Legal', 'urgent', 'Legal']",
    "'%s' % output.n == '3'",
])  # fmt: skip
def test_what_makes_no_sense_for_an_output_does_not_hold_and_raises_nothing(when: str) -> None:
    check(when)
    assert not holds(when, ANSWER)


@pytest.mark.parametrize("when", [
    "",
    "   ",
    "output >",
    "score > 1",
    "__import__('os')",
    "open('/etc/passwd')",
    "output.keys()",
    "len(output, 1)",
    "len(*output)",
    "len(obj=output)",
    "len",
    "output if output else 1",
    "[x for x in output]",
    "lambda: output",
    "{'a': output}",
    "output ** 2",
    "output // 2",
    "output << 2",
    "~output",
    "f'{output}'",
    "output[1:2]",
    "(x := 1)",
    "output; output",
    "x = 1",
    "a\0b",
])  # fmt: skip
def test_what_is_not_part_of_the_grammar_is_refused_and_the_error_says_so(when: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        check(when)
    assert caught.value.value == when
    assert "over output" in str(caught.value)


@pytest.mark.parametrize("when", ["-" * 20_000 + "1", "(" * 5000, "not " * 5000 + "output", "output" + ".a" * 5000])
def test_a_condition_that_nests_without_end_is_refused(when: str) -> None:
    with pytest.raises(InvalidOption):
        check(when)


@pytest.mark.parametrize("when", [3, None, b"output", ["output"]])
def test_a_condition_is_text(when: object) -> None:
    with pytest.raises(InvalidOption):
        check(when)  # type: ignore[arg-type]


def test_a_condition_cannot_ask_for_more_memory_than_there_is() -> None:
    for when in ("'x' * 1000000000000", "[0] * 1000000000000", "'%1000000000000d' % 1"):
        check(when)
        assert not holds(when, None)


def test_an_output_that_nests_deeply_is_no_reason_to_raise() -> None:
    deep: object = []
    other: object = []
    for _ in range(20_000):
        deep, other = [deep], [other]
    assert not holds("output.a == output.b", {"a": deep, "b": other})


@given(JSON)
def test_a_condition_always_has_an_answer(output: object) -> None:
    for when in ("output.a > 1", "output[0] < output[1]", "len(output) > 2", "'a' in output", "output + 1 > output"):
        assert holds(when, output) in (True, False)
