"""Which modules of the standard library a module imports, absolute and relative ones resolved."""

from __future__ import annotations

import ast
from collections.abc import Set


def script_only(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes under `if __name__ == "__main__"`: what they import is not imported with the module."""
    guards = (each for each in tree.body if isinstance(each, ast.If) and _names_main(each.test))
    return {node for guard in guards for statement in guard.body for node in ast.walk(statement)}


def _names_main(test: ast.expr) -> bool:
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]):
            return True
        case _:
            return False


class Importer:
    """Gathers the imports of one module as names of known modules.

    `import a.b` means `a.b`; `from a import b` means the module `a.b` where there is one, else `a`. That the import
    of a submodule runs its package first is not counted: the reader of the graph looks for what was asked for.
    """

    def __init__(self, module: str, is_package: bool, known: Set[str]) -> None:
        self.at_import: set[str] = set()
        self.deferred: set[str] = set()
        self._module = module
        self._package = module if is_package else module.rpartition(".")[0]
        self._known = known
        self._ignored: Set[ast.AST] = frozenset()

    def ignore(self, nodes: Set[ast.AST]) -> None:
        """Leave these statements out."""
        self._ignored = nodes

    def add(self, node: ast.Import | ast.ImportFrom, *, deferred: bool) -> None:
        """Take in one import statement; `deferred` when it stands in a function and so runs only when called."""
        for name in () if node in self._ignored else self._meant(node):
            target = self._resolve(name)
            if target is not None and target != self._module:
                (self.deferred if deferred else self.at_import).add(target)

    def _meant(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = self._base(node)
        return [base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names] if base else []

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self._package.split(".")
        # One dot is the package itself; every further one its parent. Beyond the top there is nothing to name.
        parts = package[: len(package) - (node.level - 1)] if node.level <= len(package) else []
        return ".".join([*parts, *([node.module] if node.module and parts else [])])

    def _resolve(self, name: str) -> str | None:
        """Return the longest known module that `name` starts with."""
        while name and name not in self._known:
            name = name.rpartition(".")[0]
        return name or None
