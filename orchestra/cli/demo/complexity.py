"""Cyclomatic complexity of one function, counted on its syntax tree.

T. J. McCabe, "A Complexity Measure", IEEE Transactions on Software Engineering SE-2(4), 1976: for a structured
program the cyclomatic number is the number of its predicates plus one, where a compound predicate counts once
for each condition in it. In Python that is one, plus one for each

* `if`, `elif`, conditional expression, `while`, `for`, and `for` and `if` of a comprehension,
* `except` clause,
* `case` that can fail to match, and the guard of a `case`,
* operand of `and` and `or` after the first.

`else`, `finally`, `with`, `assert` and `case _` add no path that a test has to take. A lambda belongs to the
function that holds it; a nested function or class counts for itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_PREDICATES = frozenset({ast.If, ast.IfExp, ast.While, ast.For, ast.AsyncFor, ast.ExceptHandler})


def complexity(function: Function) -> int:
    """Return the cyclomatic complexity of a function, without the functions defined inside it."""
    return 1 + sum(predicates(node) for node in own_nodes(function))


def predicates(node: ast.AST) -> int:
    """Return how many predicates this one node adds."""
    kind = type(node)
    if kind in _PREDICATES:
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return int(not _always_matches(node.pattern)) + int(node.guard is not None)
    return 0


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below `scope` that are not inside a function or class nested in it."""
    stack: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _SCOPES):
            stack.extend(ast.iter_child_nodes(node))


def _always_matches(pattern: ast.pattern) -> bool:
    """Say whether a pattern is `_` or a bare name, the two that every value matches."""
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None
