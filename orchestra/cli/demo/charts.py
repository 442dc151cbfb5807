"""Small charts as inline SVG.

Charts whose shape may stretch have no `viewBox`: across they are laid out in percent and down in pixels, so their
text keeps its size on a phone. Colours come from the page's style sheet by class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from orchestra.cli.demo.records import Bucket, Ranked

_ROW = 44
_PLOT = 190


@dataclass(frozen=True, slots=True)
class Point:
    """One mark of the scatter plot. `shade` is the colour class: 0, 1 or 2."""

    name: str
    x: float
    y: float
    shade: int
    note: str


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of work in the run: which worker, from when, for how long (seconds)."""

    name: str
    worker: str
    start: float
    seconds: float


def number(value: float) -> str:
    """Return a figure as people write it: thousands separated, whole where it is whole."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def percent(value: float) -> str:
    """Return a share as a percentage."""
    return f"{value:.0%}"


def frame(content: str, *, label: str, height: int, kind: str) -> str:
    """Return an SVG that fills the width, with a label for those who do not see it."""
    return (
        f'<svg class="chart {kind}" role="img" aria-label="{escape(label)}" width="100%" height="{height}">'
        f"{content}</svg>"
    )


def bars(items: Sequence[Ranked], label: str, show: Callable[[float], str] = number) -> str:
    """Draw a ranking: a name and a figure per row, and a bar below them."""
    if not items:
        return "<p>None.</p>"
    top = max(item["value"] for item in items) or 1
    rows: list[str] = []
    for index, item in enumerate(items):
        y, name = index * _ROW, escape(item["name"])
        rows.append(
            f"<g><title>{name}: {show(item['value'])} ({escape(item['note'])})</title>"
            f'<text x="0" y="{y + 15}" class="name">{escape(_short(item["name"]))}</text>'
            f'<text x="100%" y="{y + 15}" class="value end">{show(item["value"])}</text>'
            f'<rect x="0" y="{y + 23}" width="100%" height="8" rx="4" class="track"/>'
            f'<rect x="0" y="{y + 23}" width="{_pct(item["value"] / top)}" height="8" rx="4" class="bar"/></g>'
        )
    spoken = "; ".join(f"{item['name']} {show(item['value'])}" for item in items[:5])
    return frame("".join(rows), label=f"{label}: {spoken}", height=len(items) * _ROW - 8, kind="bars")


def columns(buckets: Sequence[Bucket], label: str, *, every: int = 1, highlight: int | None = None) -> str:
    """Draw a histogram. `every` thins the labels; columns from `highlight` on stand out."""
    top, step = max((each["count"] for each in buckets), default=0) or 1, 1 / max(len(buckets), 1)
    parts = [f'<line x1="0" x2="100%" y1="{_PLOT + 20.5}" y2="{_PLOT + 20.5}" class="axis"/>']
    for index, each in enumerate(buckets):
        # A bucket with one module in it must not look empty.
        height = max(_PLOT * each["count"] / top, 2 if each["count"] else 0)
        middle, kind = (
            _pct((index + 0.5) * step),
            "bar strong" if highlight is not None and index >= highlight else "bar",
        )
        parts.append(
            f"<g><title>{escape(each['label'])}: {each['count']:,}</title>"
            f'<rect x="{_pct((index + 0.08) * step)}" y="{_PLOT + 20 - height:.1f}" width="{_pct(0.84 * step)}" '
            f'height="{height:.1f}" rx="2" class="{kind}"/>'
        )
        if index % every == 0:
            parts.append(f'<text x="{middle}" y="{_PLOT + 38}" class="tick middle">{escape(each["label"])}</text>')
        if every == 1:
            parts.append(
                f'<text x="{middle}" y="{_PLOT + 13 - height:.1f}" class="value middle">{each["count"]:,}</text>'
            )
        parts.append("</g>")
    spoken = "; ".join(f"{each['label']}: {each['count']}" for each in buckets)
    return frame("".join(parts), label=f"{label}. {spoken}", height=_PLOT + 46, kind="columns")


def scatter(points: Sequence[Point], label: str, x_title: str, y_title: str, height: int = 460) -> str:
    """Draw points on two logarithmic axes; the outermost ones are named."""
    x_scale = _Log([point.x for point in points], 0.04, 1.0)
    y_scale = _Log([point.y for point in points], height - 40.0, 26.0)
    parts = [_vertical_grid(x_scale, height), _horizontal_grid(y_scale)]
    for point in points:
        x, y = _pct(x_scale.at(point.x)), f"{y_scale.at(point.y):.1f}"
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="4" class="dot shade{point.shade}">'
            f"<title>{escape(point.name)}: {escape(point.note)}</title></circle>"
        )
    parts.extend(_named(points, x_scale, y_scale))
    parts.append(f'<text x="100%" y="{height - 2}" class="title end">{escape(x_title)} →</text>')
    parts.append(f'<text x="0" y="11" class="title">↑ {escape(y_title)}</text>')
    return frame("".join(parts), label=label, height=height, kind="scatter")


def strip(spans: Sequence[Span], label: str) -> str:
    """Draw the run itself: a lane per worker, a block per step; the slowest steps stand out."""
    begin = min((span.start for span in spans), default=0.0)
    length = max((span.start + span.seconds for span in spans), default=1.0) - begin or 1.0
    slow = sorted((span.seconds for span in spans), reverse=True)[:8][-1:]
    lanes = sorted({span.worker for span in spans}, key=_natural)
    parts = [_ticks(length, len(lanes) * 50)]
    for lane, worker in enumerate(lanes):
        mine, y = [span for span in spans if span.worker == worker], lane * 50
        busy = sum(span.seconds for span in mine)
        parts.append(
            f'<text x="0" y="{y + 14}" class="name">{escape(worker)}</text>'
            f'<text x="100%" y="{y + 14}" class="value end">{len(mine):,} steps, {busy:.1f} s busy</text>'
            f'<rect x="0" y="{y + 21}" width="100%" height="20" class="track"/>'
        )
        for span in mine:
            kind = "slow" if slow and span.seconds >= slow[0] else "step"
            parts.append(
                f'<rect x="{_pct((span.start - begin) / length)}" y="{y + 21}" height="20" class="{kind}" '
                f'width="{_pct(max(span.seconds / length, 0.0005))}">'
                f"<title>{escape(span.name)}: {span.seconds * 1000:.1f} ms</title></rect>"
            )
    return frame("".join(parts), label=label, height=len(lanes) * 50 + 22, kind="strip")


class _Log:
    """A logarithmic scale over values of at least 1, with a little air at both ends."""

    def __init__(self, values: Sequence[float], low: float, high: float) -> None:
        self._from = math.log10(max(min(values, default=1), 1) * 0.85)
        self._decades = math.log10(max(values, default=1) * 1.2) - self._from
        self._low, self._high = low, high

    def at(self, value: float) -> float:
        return self._low + (self._high - self._low) * (math.log10(max(value, 1)) - self._from) / self._decades

    def ticks(self) -> list[int]:
        """Return the round values on the scale: 1, 2 and 5 of each decade when there are few decades."""
        bases = (1,) if self._decades > 2 else (1, 2, 5)
        every = [base * 10**power for power in range(10) for base in bases]
        return [value for value in every if self._from <= math.log10(value) <= self._from + self._decades]


def _vertical_grid(scale: _Log, height: int) -> str:
    return "".join(
        f'<line x1="{_pct(scale.at(tick))}" x2="{_pct(scale.at(tick))}" y1="22" y2="{height - 34}" class="grid"/>'
        f'<text x="{_pct(scale.at(tick))}" y="{height - 18}" class="tick middle">{tick:,}</text>'
        for tick in scale.ticks()
    )


def _horizontal_grid(scale: _Log) -> str:
    return "".join(
        f'<line x1="0" x2="100%" y1="{scale.at(tick):.1f}" y2="{scale.at(tick):.1f}" class="grid"/>'
        f'<text x="0" y="{scale.at(tick) - 4:.1f}" class="tick">{tick:,}</text>'
        for tick in scale.ticks()
    )


def _named(points: Sequence[Point], x_scale: _Log, y_scale: _Log) -> list[str]:
    """Name the outermost points, as far as the names do not cover one another."""
    outermost = sorted(points, key=lambda point: -point.y)[:10] + sorted(points, key=lambda point: -point.x)[:4]
    # The most and the least complex for their size stand out of the cloud, though not at its ends.
    outermost += sorted(points, key=lambda point: -point.y / (point.x + 40))[:6]
    outermost += sorted(points, key=lambda point: -point.x / (point.y + 5))[:6]
    placed: list[tuple[float, float]] = []
    texts: list[str] = []
    for point in outermost:
        x, y = x_scale.at(point.x), y_scale.at(point.y)
        if any(abs(x - other_x) < 0.16 and abs(y - other_y) < 16 for other_x, other_y in placed):
            continue
        placed.append((x, y))
        side, shift = ("end", -8) if x > 0.5 else ("start", 8)
        kind = "label" if len(placed) <= 4 else "label minor"
        texts.append(
            f'<text x="{_pct(x)}" y="{y + 4:.1f}" dx="{shift}" text-anchor="{side}" class="{kind}">'
            f"{escape(_short(point.name))}</text>"
        )
    return texts


def _ticks(length: float, height: int) -> str:
    """Draw a time axis with about five marks at round seconds."""
    step = next(
        (base * 10.0**power for power in range(-3, 6) for base in (1, 2, 5) if length / (base * 10.0**power) <= 6),
        length,
    )
    marks = [index * step for index in range(int(length / step) + 1)]
    return "".join(
        f'<line x1="{_pct(mark / length)}" x2="{_pct(mark / length)}" y1="20" y2="{height}" class="grid"/>'
        f'<text x="{_pct(mark / length)}" y="{height + 16}" '
        f'class="tick {"middle" if 0 < mark < length * 0.97 else "end" if mark else ""}">{mark:g} s</text>'
        for mark in marks
    )


def _natural(text: str) -> list[tuple[int, str]]:
    """Order `worker 10` after `worker 9`."""
    words = "".join(char if char.isdigit() else f" {char} " for char in text).split()
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def _short(name: str, width: int = 30) -> str:
    return name if len(name) <= width else f"{name[: width // 2 - 1]}…{name[-width // 2 :]}"


def _pct(share: float) -> str:
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Explain colour classes in words."""
    return (
        '<p class="legend">'
        + "".join(f'<span><i class="{kind}"></i>{escape(text)}</span>' for kind, text in entries)
        + "</p>"
    )
