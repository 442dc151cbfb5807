"""Conditions on edges: a pure expression over the output of a step, such as ``output.score > 0.5``.

The grammar is a part of Python's: ``output``, literals, ``.name`` and ``[…]`` into dicts and lists, comparisons,
``in``, ``and``/``or``/``not``, ``+ - * / %`` of numbers (``+`` of texts and lists as well), and ``len()``, ``lower()``,
``upper()``. Nothing is executed: the text is parsed to a tree, and the tree is walked. What is not there is None, and
values that do not compare are unequal, so a condition that was accepted always has an answer.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

from orchestra.errors import InvalidOption

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "len": len,
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
}
_EXPECTED = 'an expression over output, such as "output.score > 0.5" or "\'urgent\' in output"'
_DEEPEST = 50
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.BinOp, ast.Constant,
    ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Call, *_COMPARE, *_ARITHMETIC,
)  # fmt: skip


def check(when: str) -> str:
    """Return the condition, or raise InvalidOption that says what in it is not possible."""
    if not isinstance(when, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidOption("when", when, _EXPECTED)
    _parsed(when)
    return when


def holds(when: str, output: object) -> bool:
    """Whether a condition holds for an output. Pure, and never raises for a condition that was checked."""
    try:
        return bool(_value(_parsed(when), output))
    except RecursionError:  # two outputs that nest as deeply as each other
        return False


@lru_cache(maxsize=1024)
def _parsed(when: str) -> ast.expr:
    expected = _EXPECTED
    try:
        tree = ast.parse(when.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidOption("when", when, f"{expected} ({error})") from None
    if _nests_deeper(tree, _DEEPEST):
        raise InvalidOption("when", when, f"{expected}; it nests too deeply")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise InvalidOption("when", when, f"{expected}; {type(node).__name__} is not part of it")
        if isinstance(node, ast.Name) and node.id != "output" and id(node) not in called:
            raise InvalidOption("when", when, f"{expected}; the name {node.id!r} is not known")
        if isinstance(node, ast.Call) and not (_is_function(node.func) and len(node.args) == 1 and not node.keywords):
            raise InvalidOption("when", when, f"{expected}; only len(), lower() and upper() of one value can be called")
    return tree.body


def _nests_deeper(tree: ast.AST, levels: int) -> bool:
    level = [tree]
    while level and levels >= 0:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        levels -= 1
    return bool(level)


def _is_function(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in _FUNCTIONS


def _value(node: ast.expr, output: object) -> Any:
    try:
        return _walk(node, output)
    except (TypeError, ZeroDivisionError, OverflowError, ValueError):
        return None


def _walk(node: ast.expr, output: object) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name():
            return output
        case ast.Attribute(inner, name):
            return _item(_value(inner, output), name)
        case ast.Subscript(inner, key):
            return _item(_value(inner, output), _value(key, output))
        case ast.BoolOp(ast.And(), values):
            return all(_value(each, output) for each in values)
        case ast.BoolOp(_, values):
            return any(_value(each, output) for each in values)
        case ast.UnaryOp(ast.Not(), operand):
            return not _value(operand, output)
        case ast.UnaryOp(_, operand):
            return -_value(operand, output)
        case ast.BinOp(left, operation, right):
            return _calculated(operation, _value(left, output), _value(right, output))
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(each, output) for each in elements]
        case ast.Call(ast.Name(name), [argument]):
            return _FUNCTIONS[name](_value(argument, output))
        case ast.Compare(left, operations, rights):
            return _compared(_value(left, output), operations, [_value(each, output) for each in rights])
        case _:
            raise TypeError(type(node).__name__)


def _calculated(operation: ast.operator, left: Any, right: Any) -> Any:
    # Of text and lists only sums: a product, or a format, can be as large as its author likes.
    if not isinstance(operation, ast.Add) and not (isinstance(left, int | float) and isinstance(right, int | float)):
        raise TypeError(type(operation).__name__)
    return _ARITHMETIC[type(operation)](left, right)


def _compared(left: Any, operations: list[ast.cmpop], rights: list[Any]) -> bool:
    for operation, right in zip(operations, rights, strict=True):
        if not _COMPARE[type(operation)](left, right):
            return False
        left = right
    return True


def _item(container: object, key: object) -> Any:
    if isinstance(container, dict):
        return cast(dict[object, object], container).get(key)
    if isinstance(container, list | str) and isinstance(key, int):
        sequence = cast(list[object], container)
        return sequence[key] if -len(sequence) <= key < len(sequence) else None
    return None
