"""Links on a page, resolved to what an HTTP client can fetch (RFC 3986 section 5)."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from proxy.expressions import expression

#: The longest URL that is followed (characters), and what people are shown of one.
LONGEST, _SHOWN = 8192, 300

_REST = expression(r"[?#].*", re.DOTALL)
_USER = expression(r"(\s*(?:https?:)?//)[^/\\]*@", re.IGNORECASE)
#: What stands before the last ``@`` wherever it is: a password that nobody quoted may hold slashes and question marks.
_SCHEME = expression(r"(?:https?:)?(?://)?", re.IGNORECASE)
_USER_OR_QUERY = expression(r"[?#][^@]*@")
_ANY_USER = expression(r"^((?:[a-z0-9+.-]*:)?[/\\]*).*@", re.IGNORECASE | re.DOTALL)
_IS_URL = expression(r"\s*(?:https?:)?//", re.IGNORECASE)
_URL = expression(r"\bhttps?:[/\\][^\s'\"<>]+", re.IGNORECASE)

_SAFE_IN_PATH = "/%:@!$&'()*,;=~"
_SAFE_IN_QUERY = _SAFE_IN_PATH + "+?"
_NETLOC = expression(r"""[^\s\x00-\x20\x7f/?#\\<>"^`{|}]+""")

# The two shapes that nearly all links of large pages have are resolved without urllib, which takes many times as long.
_SEGMENT = r"[\w~!$&'()*+,=@%-][\w.~!$&'()*+,=@%-]*+"
_PATH = rf"{_SEGMENT}(?:/{_SEGMENT})*+"
_ABSOLUTE = expression(rf"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[1-5]?[0-9]{{1,4}})?/{_PATH}", re.ASCII)
_RELATIVE = expression(rf"((?:\.\./)*)({_PATH})", re.ASCII)
#: As ``_ABSOLUTE``, if no segment of the path is empty or begins with a dot.
_CLEAN_ROOT = r"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[1-5]?[0-9]{1,4})?/"
_CLEAN_URL = rf"{_CLEAN_ROOT}[A-Za-z0-9_~!$&'()*+,=@%/.-]+"
_CLEAN = expression(_CLEAN_URL)
#: Lines of such, how the first of them begins, and all that may follow there, line ends included.
_ALL_CLEAN = expression(rf"(?:{_CLEAN_URL}\n)*+")
_ROOT = expression(_CLEAN_ROOT)
_AFTER_ROOT = (string.ascii_letters + string.digits + "_~!$&'()*+,=@%/.-\n").encode("ascii")


def resolve(base: str, href: str) -> tuple[str, str] | None:
    """The absolute http(s) URL that *href* means on the page at *base*, and its fragment; ``None`` when there is none.

    Characters that no URL may hold (spaces, non-ASCII) come out percent-encoded, and so does a ``+`` in the path: object stores
    take it for a space, and pip encodes it.
    """
    if len(href) > LONGEST:
        return None
    if _ABSOLUTE.fullmatch(href):
        return without_plus(href), ""
    reference, _, fragment = href.strip().partition("#")
    if _ABSOLUTE.fullmatch(reference):
        return without_plus(reference), fragment
    relative = _RELATIVE.fullmatch(reference)
    if relative is not None:
        folder = join(base, relative[1] or ".")
        if folder is not None and folder.endswith("/"):
            return folder + without_plus(relative[2]), fragment
    url = join_anew(base, reference) if reference else None
    return None if url is None else (url, fragment)


def resolves_to_itself(url: str) -> bool:
    """Whether :func:`resolve` makes nothing else of *url*, an absolute one with a path, but for each ``+``."""
    return (
        len(url) <= LONGEST
        and _CLEAN.fullmatch(url) is not None
        and "/." not in url
        and url.rfind("//") < len("https://")
        and not url.endswith("/")
    )


def resolve_to_themselves(urls: Sequence[str]) -> bool:
    """Whether each of *urls* does so (:func:`resolves_to_itself`).  One look at all of them takes a fraction of the time."""
    lines = "\n".join(urls) + "\n"
    return (
        max(map(len, urls), default=0) <= LONGEST
        and "/." not in lines
        and "/\n" not in lines
        and lines.count("//") == len(urls)
        and (_are_clean_below_one_root(urls, lines) or _ALL_CLEAN.fullmatch(lines) is not None)
    )


def _are_clean_below_one_root(urls: Sequence[str], lines: str) -> bool:
    """Whether all of *urls*, which are the *lines* and have ``//`` once each, are on one host, as on most pages, and clean.

    An expression looks at each character ten times as long.
    """
    found = _ROOT.match(lines)
    if found is None or not lines.isascii() or lines.count("\n") != len(urls):
        return False
    root, lines = f"\n{found[0]}", f"\n{lines}"
    rest = lines.replace(root, "\n")
    return lines.count(root) == len(urls) and "\n\n" not in rest and not rest.encode("ascii").translate(None, _AFTER_ROOT)


def without_plus(path: str) -> str:
    """*path* with each ``+`` as pip requests it."""
    return path.replace("+", "%2B") if "+" in path else path


def beside(url: str, companion: str) -> str:
    """The URL of a file's companion (PEP 658): the file's own with the companion's suffix on its path."""
    url = url.partition("#")[0]
    path, mark, query = url.partition("?")
    return path + companion + mark + query


def bare(url: str) -> str:
    """*url* without what may be a secret in it: user information, query and fragment.  What is absolute stays so."""
    if "@" not in url and "?" not in url and "#" not in url:
        return url
    path = _REST.sub("", url)
    found = _USER.match(path)
    return path if found is None else found[1] + path[found.end() :]


def shown(url: str) -> str:
    """*url* as people may see it, in messages and logs: what may be a secret in it is starred out, and it fits on a line.

    Of ``?`` before ``@`` nobody can tell whether it is a part of the user information or the ``@`` one of the query.
    """
    if _USER_OR_QUERY.search(url):
        return f"{_SCHEME.match(url)[0]}***"  # type: ignore[index]  # it matches anything
    text = _REST.sub("?***", _ANY_USER.sub(r"\1***@", url))
    return text[:_SHOWN].encode("unicode_escape").decode("ascii")


def shown_in(text: str) -> str:
    """*text* in which every URL is one that people may see."""
    return _URL.sub(lambda found: shown(found[0]), text)


def without_secrets(value: Any) -> Any:
    """*value*, as JSON has them, in which no URL has user information, a query or a fragment."""
    return _changed(value, bare)


def without_users(value: Any) -> Any:
    """*value*, as JSON has them, in which no URL has user information: of those that a project names for its readers."""
    return _changed(value, lambda url: _USER.sub(r"\1", url, count=1))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """*value* with what *change* makes of each text in it that is a URL."""
    if isinstance(value, str):
        return change(value) if _IS_URL.match(value) else value
    if isinstance(value, Mapping):
        return {key: _changed(each, change) for key, each in value.items()}
    return [_changed(each, change) for each in value] if isinstance(value, list) else value


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
