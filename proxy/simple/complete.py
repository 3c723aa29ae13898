"""Whether an HTML page has come whole, when the end of the connection was the only sign of its end.

A page that closes its ``html`` or ``body`` is whole.  HTML lets authors leave these out, and some generators do.  Such a page
is taken for whole when it ends outside of a tag, a comment and an entity; when every element that needs an end tag has one, the
last link included; and when that link is followed by the tag that ends the entries of all others, as ``<br>`` does.  A page
without any link is not: nobody can tell whether it lost them all.  What cannot be told is a cut exactly between two entries.
"""

from __future__ import annotations

import re
from collections import Counter

from proxy.expressions import expression

_END = expression(r"</(?:html|body)\s*>", re.IGNORECASE)
#: How far from its end, in characters, a page is looked at for what closes it.
_TAIL = 4096
_TAG = expression(r"<(/?[a-z][^\s/>]*)[^>]*>", re.IGNORECASE)
#: How an entity begins, and how long one is at the most (characters).
_CUT_ENTITY, _LONGEST_ENTITY = expression(r"&#?\w*$"), 64
#: The most tags that are looked at: a page has not so many.
_MOST_TAGS = 1_000_000
_END_ENTRIES = ("/", "br", "hr")
_NEED_NO_END = frozenset(
    {
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
        *("html", "head", "body", "p", "li", "dt", "dd", "option", "colgroup", "thead", "tbody", "tfoot", "tr", "td", "th"),
    }
)


def is_closed(text: str) -> bool:
    """Whether the HTML *text* closes its ``html`` or ``body``."""
    return _END.search(text[-_TAIL:]) is not None


def is_complete(text: str) -> bool:
    """Whether the HTML *text* ends as a page does."""
    if is_closed(text):
        return True
    if text.count("<") > _MOST_TAGS:
        return False
    first, *others = text.split("<!--")
    if any("-->" not in each for each in others):
        return False
    text = first + "".join(each.partition("-->")[2] for each in others)
    end = text.rfind(">") + 1  # with a ">" ahead of every "<", the expression's time is linear
    rest = text[end:].rstrip()
    if "<" in rest or _CUT_ENTITY.search(rest[-_LONGEST_ENTITY:]) is not None:
        return False
    tags = [match[1].lower() for match in _TAG.finditer(text, 0, end)]
    count = Counter(tags)
    if not count["/a"] or any(count[tag] > count["/" + tag] for tag in count if tag[0] != "/" and tag not in _NEED_NO_END):
        return False
    *before, last = (following for tag, following in zip(tags, [*tags[1:], ""], strict=True) if tag == "/a")
    return len(set(before)) != 1 or before[0] == last or not before[0].startswith(_END_ENTRIES)
