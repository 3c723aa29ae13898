"""Small pieces of pages: elements that Twisted does not know, tables, and what stands for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.template import Tag, tags


def element(name: str, *content: Tag | str, **attributes: str) -> Tag:
    """The element *name*; ``class_`` stands for ``class``."""
    return Tag(name)(*content, **attributes)


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Tag | str]], numbers: Sequence[int] = ()) -> Tag:
    """A table called *caption*; the columns *numbers* are aligned as numbers.  The first column names its row."""
    head = tags.tr([tags.th(each, scope="col", **_aligned(place, numbers)) for place, each in enumerate(heads)])
    body = [
        tags.tr(
            tags.th(row[0], scope="row"),
            [tags.td(cell, **_aligned(place, numbers)) for place, cell in enumerate(row[1:], 1)],
        )
        for row in rows
    ]
    made = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    # It may be wider than a narrow screen: it scrolls by itself, with the keyboard too.
    return tags.div(made, class_="wide", tabindex="0", role="region", **{"aria-label": caption})


def _aligned(place: int, numbers: Sequence[int]) -> dict[str, str]:
    return {"class_": "number"} if place in numbers else {}


def nothing(words: str) -> Tag:
    """What is shown in the place of a table without rows."""
    return tags.p(words, class_="dim")
