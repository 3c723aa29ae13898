"""Links on a page, resolved to what an HTTP client can fetch (RFC 3986 section 5)."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

_SAFE_IN_PATH = "/%:@!$&'()*+,;=~"
_SAFE_IN_QUERY = _SAFE_IN_PATH + "?"
_NETLOC = re.compile(r"""[^\s\x00-\x20\x7f/?#\\<>"^`{|}]+""")

# The two shapes that nearly all links of large pages have are resolved without urllib, which takes many times as long.
_SEGMENT = r"[\w~!$&'()*+,=@%-][\w.~!$&'()*+,=@%-]*+"
_PATH = rf"{_SEGMENT}(?:/{_SEGMENT})*+"
_ABSOLUTE = re.compile(rf"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[1-5]?[0-9]{{1,4}})?/{_PATH}", re.ASCII)
_RELATIVE = re.compile(rf"((?:\.\./)*)({_PATH})", re.ASCII)


def resolve(base: str, href: str) -> tuple[str, str] | None:
    """The absolute http(s) URL that *href* means on the page at *base*, and its fragment; ``None`` when there is none.

    Characters that no URL may hold (spaces, non-ASCII) come out percent-encoded.
    """
    if _ABSOLUTE.fullmatch(href):
        return href, ""
    reference, _, fragment = href.strip().partition("#")
    if _ABSOLUTE.fullmatch(reference):
        return reference, fragment
    relative = _RELATIVE.fullmatch(reference)
    if relative is not None:
        folder = join(base, relative[1] or ".")
        if folder is not None and folder.endswith("/"):
            return folder + relative[2], fragment
    url = join_anew(base, reference) if reference else None
    return None if url is None else (url, fragment)


def beside(url: str, companion: str) -> str:
    """The URL of a file's companion (PEP 658): the file's own with the companion's suffix on its path."""
    url = url.partition("#")[0]
    path, mark, query = url.partition("?")
    return path + companion + mark + query


def join_anew(base: str, reference: str) -> str | None:
    """*reference* against *base* by the book; ``None`` when that is no http(s) URL with a host."""
    try:
        parts = urlsplit(urljoin(base, reference))
        if parts.scheme not in ("http", "https") or not parts.hostname or not _NETLOC.fullmatch(parts.netloc):
            return None
        _ = parts.port  # raises when it is none
        path, query = quote(parts.path, safe=_SAFE_IN_PATH), quote(parts.query, safe=_SAFE_IN_QUERY)
        return urlunsplit((parts.scheme, parts.netloc, path, query, ""))
    except ValueError:
        return None


#: The folders that the relative links of a page start from are few.
join = lru_cache(maxsize=256)(join_anew)
