"""The import graph of all modules: who imports whom, in which layers, with which cycles. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from orchestra.cli.demo.records import Bucket, ImportGraph, Measure, Node, Ranked

TOP = 12

Edges = Mapping[str, Sequence[str]]


def build_graph(measures: Sequence[Measure]) -> ImportGraph:
    """Join the modules' imports into one graph.

    Layers and `cycles` follow what runs when a module is imported; `cycles_with_deferred` also follows imports inside
    functions, which is how the library breaks the others.
    """
    measured = {each["module"] for each in measures}
    at_import = {each["module"]: each["imports"] for each in measures}
    deferred = {each["module"]: each["deferred"] for each in measures}
    every = {name: [*at_import[name], *deferred[name]] for name in at_import}
    names = sorted(measured.union(*every.values()))
    components = strong_components(names, at_import)
    layer, popular = layers(components, at_import), Counter(target for each in every.values() for target in each)
    position = {name: index for index, name in enumerate(names)}
    return ImportGraph(
        nodes=[
            Node(
                name=name,
                measured=name in measured,
                layer=layer[name],
                imports=len(every.get(name, ())),
                imported_by=popular[name],
            )
            for name in names
        ],
        edges=_pairs(at_import, position),
        deferred=_pairs(deferred, position),
        cycles=_cycles(components),
        cycles_with_deferred=_cycles(strong_components(names, every)),
        most_imported=[
            Ranked(name=name, value=count, note=f"layer {layer[name]}")
            for name, count in sorted(popular.items(), key=lambda item: (-item[1], item[0]))[:TOP]
        ],
        layers=_layer_sizes(layer),
    )


def strong_components(names: Sequence[str], edges: Edges) -> list[list[str]]:
    """Return the strongly connected components, each before those that import it.

    R. Tarjan, "Depth-First Search and Linear Graph Algorithms", SIAM Journal on Computing 1(2), 1972; with a stack of
    its own in place of recursion, since a chain of imports may be deeper than Python recurses.
    """
    search = _Tarjan(edges)
    for name in names:
        if name not in search.index:
            search.visit(name)
    return search.components


class _Tarjan:
    """The state of one search."""

    def __init__(self, edges: Edges) -> None:
        self.components: list[list[str]] = []
        self.index: dict[str, int] = {}
        self._edges = edges
        self._low: dict[str, int] = {}
        self._open: list[str] = []
        self._is_open: set[str] = set()

    def visit(self, root: str) -> None:
        """Search from `root`, depth first."""
        path = [(root, iter(self._enter(root)))]
        while path:
            name, targets = path[-1]
            target = next(targets, None)
            if target is None:
                path.pop()
                self._leave(name)
                if path:
                    self._lower(path[-1][0], self._low[name])
            elif target not in self.index:
                path.append((target, iter(self._enter(target))))
            elif target in self._is_open:
                self._lower(name, self.index[target])

    def _enter(self, name: str) -> Sequence[str]:
        self.index[name] = self._low[name] = len(self.index)
        self._open.append(name)
        self._is_open.add(name)
        return self._edges.get(name, ())

    def _lower(self, name: str, low: int) -> None:
        self._low[name] = min(self._low[name], low)

    def _leave(self, name: str) -> None:
        """Close the component of which `name` is the first node that the search met."""
        if self._low[name] != self.index[name]:
            return
        cut = self._open.index(name)
        component = self._open[cut:]
        del self._open[cut:]
        self._is_open.difference_update(component)
        self.components.append(sorted(component))


def layers(components: Sequence[Sequence[str]], edges: Edges) -> dict[str, int]:
    """Return each module's layer: 0 imports nothing, every other one more than the deepest it imports.

    The modules of a cycle share a layer. `components` come in the order of `strong_components`, imported ones first.
    """
    layer: dict[str, int] = {}
    for component in components:
        inside = set(component)
        below = [layer[target] for name in component for target in edges.get(name, ()) if target not in inside]
        layer.update(dict.fromkeys(component, max(below, default=-1) + 1))
    return layer


def _cycles(components: Sequence[list[str]]) -> list[list[str]]:
    return sorted((each for each in components if len(each) > 1), key=lambda each: (-len(each), each))


def _pairs(edges: Edges, position: Mapping[str, int]) -> list[tuple[int, int]]:
    return [(position[name], position[target]) for name, targets in edges.items() for target in targets]


def _layer_sizes(layer: Mapping[str, int]) -> list[Bucket]:
    counts = Counter(layer.values())
    return [Bucket(label=str(depth), count=counts[depth]) for depth in range(max(counts, default=-1) + 1)]
