"""Plots as inline SVG: bars over time, with a table of the same numbers for those who cannot see them.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from twisted.web.template import Tag, tags

from proxy.web.dashboard.markup import element

_WIDTH, _HEIGHT, _GAP = 480, 120, 3


class PlotBar(Struct, frozen=True):
    """One bar: when it begins, its height as a share of the plot (0 to 1, ``None`` without any figure), and it in words."""

    label: str
    share: float | None
    words: str


def plot(title: str, summary: str, bars: Sequence[PlotBar]) -> Tag:
    """A figure called *title*, with what it comes to in *summary*."""
    drawn = [_rectangle(place, len(bars), each) for place, each in enumerate(bars)]
    svg = element(
        "svg",
        element("title", f"{title}: {summary}"),
        element("line", x1="0", y1=str(_HEIGHT), x2=str(_WIDTH), y2=str(_HEIGHT), class_="axis"),
        *drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + 1}",
        role="img",
        preserveAspectRatio="none",
    )
    ends = [tags.span(bars[0].label), tags.span(bars[-1].label)] if bars else []
    return element(
        "figure",
        element("figcaption", tags.strong(title), f" {summary}"),
        svg,
        tags.p(*ends, class_="axis-labels", **{"aria-hidden": "true"}),
        class_="plot",
    )


def _rectangle(place: int, count: int, bar: PlotBar) -> Tag:
    width = _WIDTH / count
    share = 0.0 if bar.share is None else min(1.0, max(0.0, bar.share))
    # What is there at all can be seen.
    height = 0.0 if not share else max(1.5, share * _HEIGHT)
    return element(
        "rect",
        element("title", f"{bar.label}: {bar.words}"),
        x=f"{place * width + _GAP / 2:.1f}",
        y=f"{_HEIGHT - height:.1f}",
        width=f"{width - _GAP:.1f}",
        height=f"{height:.1f}",
        class_="bar",
    )
