"""The picture of the import graph: the most connected modules on a ring, imports as curves through it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from orchestra.cli.demo.records import ImportGraph, Node

MEMBERS = 42
_SIZE = 800
_RADIUS = 238
# How far a curve is drawn to the centre: bundles of imports become visible, short ones stay near the rim.
_PULL = 0.22


def ring(graph: ImportGraph) -> str:
    """Draw the most connected modules in the order of their layers, foundations first, clockwise from the top."""
    chosen = most_connected(graph["nodes"])
    place = {node["name"]: index for index, node in enumerate(chosen)}
    links = _links(graph, place)
    deepest = max((node["layer"] for node in chosen), default=0) or 1
    curves = [_curve(source, target, len(chosen), chosen[source]["layer"] / deepest) for source, target in links]
    dots = [_dot(index, node, len(chosen), deepest) for index, node in enumerate(chosen)]
    spoken = f"Import graph of the {len(chosen)} most connected modules with {len(links)} imports among them"
    return (
        f"<style>{_highlights(len(chosen))}</style>"
        f'<svg class="chart ring" role="img" aria-label="{spoken}" viewBox="0 0 {_SIZE} {_SIZE}">'
        f'<g class="curves">{"".join(curves)}</g>{"".join(dots)}</svg>'
    )


def most_connected(nodes: Sequence[Node], count: int = MEMBERS) -> list[Node]:
    """Return the modules with the most imports in both directions, ordered by layer."""
    ranked = sorted(nodes, key=lambda node: (-node["imports"] - node["imported_by"], node["name"]))[:count]
    return sorted(ranked, key=lambda node: (node["layer"], node["name"]))


def _links(graph: ImportGraph, place: Mapping[str, int]) -> list[tuple[int, int]]:
    names = [node["name"] for node in graph["nodes"]]
    pairs = [(names[source], names[target]) for source, target in graph["edges"] + graph["deferred"]]
    return [(place[source], place[target]) for source, target in pairs if source in place and target in place]


def _spot(index: int, count: int, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * index / count - math.pi / 2
    return _SIZE / 2 + radius * math.cos(angle), _SIZE / 2 + radius * math.sin(angle)


def _curve(source: int, target: int, count: int, depth: float) -> str:
    (x1, y1), (x2, y2) = _spot(source, count, _RADIUS), _spot(target, count, _RADIUS)
    middle_x, middle_y = ((x1 + x2) / 2 - _SIZE / 2) * _PULL, ((y1 + y2) / 2 - _SIZE / 2) * _PULL
    return (
        f'<path d="M{x1:.0f} {y1:.0f}Q{_SIZE / 2 + middle_x:.0f} {_SIZE / 2 + middle_y:.0f} {x2:.0f} {y2:.0f}" '
        f'class="s{source} t{target}" style="--depth:{depth:.0%}"/>'
    )


def _dot(index: int, node: Node, count: int, deepest: int) -> str:
    x, y = _spot(index, count, _RADIUS)
    angle = 360 * index / count - 90
    # Names on the left half are turned round, so that none stands on its head.
    flipped = angle > 90
    radius = 3.5 + math.sqrt(node["imported_by"]) * 0.55
    text_x, text_y = _spot(index, count, _RADIUS + radius + 7)
    name = escape(node["name"])
    shown = name if len(name) <= 18 else f"{name[:7]}…{name[-10:]}"
    about = f"{name}: imports {node['imports']}, imported by {node['imported_by']}, layer {node['layer']}"
    return (
        f'<g class="node" id="n{index}" tabindex="0" style="--depth:{node["layer"] / deepest:.0%}">'
        f"<title>{about}</title>"
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<text x="{text_x:.1f}" y="{text_y:.1f}" dy=".35em" text-anchor="{"end" if flipped else "start"}" '
        f'transform="rotate({angle + 180 * flipped:.1f} {text_x:.1f} {text_y:.1f})">{shown}</text></g>'
    )


def _highlights(count: int) -> str:
    """Let a module under the pointer or the keyboard's focus show its own imports; no script needed."""
    return "".join(
        f".ring:has(#n{index}:is(:hover,:focus)) :is(.s{index},.t{index}){{opacity:1;stroke-width:1.8}}"
        for index in range(count)
    )
