"""``Requires-Python`` values (PEP 345): read by the book, else repaired to what clients take them for.

uv repairs common mistakes and drops a file whose value it cannot repair; pip ignores an invalid value and takes the file.  So a
value that uv repairs is replaced by the valid one that uv reads in its place: both clients then choose the same files, and uv
chooses those that it chooses without a proxy.  What uv does not repair but can only mean one thing is repaired as well.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache

#: Values that are longer (characters) are not read: nobody writes them in earnest, and the verdicts are cached.
LONGEST = 500

_RELEASE = r"[0-9]+(?:\.[0-9]+)*"
_END = r"(?=\s*(?:,|$))"

#: Expressions and what replaces them.  Each is applied to the result of those before it, until the value is valid.  The first
#: seven are those of uv, in its order.
_REPAIRS = (
    (r"([0-9])([<>=~^!])", r"\1,\2"),  # >=3.6<4
    (r"!=~((?:[0-9]\.)*[0-9])", r"!=\1.*"),  # !=~3.0
    (rf"(<=|>=|<|>)(\s*{_RELEASE})\.\*", r"\1\2"),  # >=3.6.*
    (r"([0-9]\.[0-9])\*", r"\1.*"),  # !=3.0*
    (r">dev", ">0.0.0dev"),
    (r"([0-9]+(?:\.[0-9])*(?:a|b|rc|post|dev)[0-9]+)\.0", r"\1"),  # >=3.9.0a1.0
    (r"['\"]", ""),  # >= '3.6'
    (r"[()\[\]]", ""),  # (>=3.6)
    (r"([<>!~=])\s+=", r"\1="),  # > = 3.6
    (r"=([<>])(?!=)", r"\1="),  # =>3.6
    (r"\s*;\s*(?=[<>=~!])", ","),  # >=3.6;<4
    (r"\s*;.*", ""),  # >=3.6; extra == 'x'
    (r"([0-9*])\s+(?=[<>=~!])", r"\1,"),  # >=3.6 <4
    (rf"(<=|>=|<|>)(\s*{_RELEASE})\.?\*", r"\1\2"),  # >=3.6*
    (rf"((?:==|!=)\s*{_RELEASE})\*", r"\1.*"),  # !=3.10*
    (rf"([0-9])\.{_END}", r"\1"),  # >=3.6.
    (rf"~=\s*([0-9]+){_END}", r"~=\1.0"),  # ~=3
)


@lru_cache(maxsize=1024)
def repaired(text: str) -> str | None:
    """*text* as a specifier that pip and uv read alike; ``None`` when nobody can tell what it means."""
    if len(text) > LONGEST or not text.strip():
        return None
    text = _without_gaps(html.unescape(text))  # some generators escape twice
    if _is_valid(text):
        return text
    for expression, replacement in _REPAIRS:
        changed = _without_gaps(re.sub(expression, replacement, text, flags=re.ASCII))
        if changed != text and _is_valid(changed):
            return changed
        text = changed
    return None


def _without_gaps(text: str) -> str:
    """*text* without clauses that are empty (``>=3.6,``): pip skips them."""
    clauses = text.split(",")
    return text if all(map(str.strip, clauses)) else ",".join(clause for clause in clauses if clause.strip())


def _is_valid(text: str) -> bool:
    from packaging.specifiers import SpecifierSet  # loaded by the first page that states one

    try:
        SpecifierSet(text)
    except ValueError:
        return False
    return bool(text)
