"""The readers of :mod:`proxy.config.tables`: what each kind of setting may be, and how to say what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from proxy.access import forwarded
from proxy.access.principals import AUTHENTICATED, EVERYBODY, PARTS, is_user_name
from proxy.access.roles import is_pattern
from proxy.config import quantities, tables
from proxy.config.tables import Reader, Spelled, Unacceptable
from proxy.expressions import expression
from proxy.simple.links import shown

T = TypeVar("T")

#: The name by which the public index is known without being configured.
PUBLIC = "pypi"

_NAME = expression(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.ASCII)
#: Of an index or upstream (characters).
_LONGEST_NAME = 100
_HOST = expression(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)
_CONTACT = expression(r"[!-'*-~]([ -'*-~]*[!-'*-~])?")
_DEFAULT_INDEX = expression(r"^DEFAULT_INDEX = '(https?://[^']+)'$", re.MULTILINE)
_NUMBER = expression(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_TOKEN_ID = expression(r"[a-z0-9]{1,32}", re.ASCII)


@cache
def public_url() -> str:
    """The simple index of the public one.  distlib states the root of its old API; the simple index stands beside that.

    The statement is read: to import it takes 25 ms and a megabyte, at each start.
    """
    found = find_spec("distlib")
    for place in (found and found.submodule_search_locations) or ():
        with suppress(OSError):
            if stated := _DEFAULT_INDEX.search(Path(place, "index.py").read_text("utf-8")):
                return urljoin(stated[1], "/simple/")
    from distlib.index import DEFAULT_INDEX

    url: str = urljoin(DEFAULT_INDEX, "/simple/")
    return url


def text(value: Any) -> str:
    """A string with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise Unacceptable('text in quotes, such as "example"')
    return str(value)


def name(value: Any) -> str:
    """The name of an index or upstream, as it stands in URLs."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAME or not _NAME.fullmatch(value):
        raise Unacceptable(f"a name of a-z, 0-9 and, inside, any of . _ -, of at most {_LONGEST_NAME} characters")
    return value


def project(value: Any) -> str:
    """The name of a project, in any spelling; normalised."""
    from proxy.names import is_project_name, normalize  # few configurations name projects, and it takes a while to load

    if not isinstance(value, str) or not is_project_name(value):
        raise Unacceptable('the name of a project, such as "acme-tools"')
    return normalize(value)


def project_pattern(value: Any) -> str:
    """A pattern of names of projects, in any spelling; normalised."""
    from proxy.names import normalize  # see above

    if not isinstance(value, str) or not is_pattern(value):
        raise Unacceptable("the name of a project, in which * stands for any characters and ? for one")
    return normalize(value)


def user_name(value: Any) -> str:
    """The name of a user."""
    if not isinstance(value, str) or not is_user_name(value):
        raise Unacceptable("the name of a user: letters, digits and, inside, any of . _ @ + -")
    return value


def principal(value: Any) -> str:
    """A principal as grants name it; whether it exists is another question."""
    kind, colon, named = value.partition(":") if isinstance(value, str) else ("", "", "")
    known = {
        EVERYBODY: not colon,
        AUTHENTICATED: not colon,
        "user": is_user_name(named),
        "group": _NAME.fullmatch(named) is not None,
        "token": _TOKEN_ID.fullmatch(named) is not None,
        "part": named in {each.name for each in PARTS},
        "ci": _NAME.fullmatch(named) is not None,
    }
    if not known.get(kind, False):
        raise Unacceptable('"user:NAME", "group:NAME", "token:ID", "ci:NAME", "authenticated" or "anonymous"')
    return str(value)


def flag(value: Any) -> bool:
    """``true`` or ``false``."""
    if isinstance(value, Spelled) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise Unacceptable("true or false, without quotes")
    return value


def choice(*choices: str) -> Reader[str]:
    """One of *choices*."""

    def read(value: Any) -> str:
        if value not in choices:
            raise Unacceptable(" or ".join(f'"{each}"' for each in choices))
        return str(value)

    return read


def whole_number(least: int) -> Reader[int]:
    """A whole number of at least *least*."""

    def read(value: Any) -> int:
        value = _number(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise Unacceptable(f"a whole number, at least {least}, without quotes")
        return value

    return read


def _number(value: Any) -> Any:
    """*value* as TOML has numbers, if it is a variable that has one."""
    if isinstance(value, Spelled) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return value


def rate(value: Any) -> float:
    """A number above 0, per second."""
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise Unacceptable("a number above 0 (requests per second), without quotes")
    return float(value)


def time_span(*, zero: bool = False) -> Reader[float]:
    """A duration in seconds; with *zero*, it may be nothing."""

    def read(value: Any) -> float:
        expected = 'a duration in quotes, such as "500ms", "10s", "10m", "2h" or "1d"' + ("" if zero else ", above 0")
        if not isinstance(value, str):
            raise Unacceptable(expected)
        try:
            seconds = quantities.seconds_in(value)
        except ValueError:
            raise Unacceptable(expected) from None
        if seconds == 0 and not zero:
            raise Unacceptable(expected)
        return seconds

    return read


def at_least(least: float, reader: Reader[float]) -> Reader[float]:
    """What *reader* reads, if it is no less than *least* seconds."""

    def read(value: Any) -> float:
        found = reader(value)
        if found < least:
            raise Unacceptable(f"at least {least:g}s")
        return found

    return read


def requirement(value: Any) -> str:
    """A requirement (PEP 508) that an index can meet."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(text(value))
    except InvalidRequirement:
        found = None
    if found is None or found.url is not None:
        raise Unacceptable('a requirement such as "six" or "django>=5,<6", without a URL')
    return str(found)


def byte_size(value: Any) -> int:
    """A size in bytes."""
    try:
        return quantities.bytes_in(text(value))
    except ValueError:
        raise Unacceptable('a size in quotes, such as "512MB" (powers of 1000) or "1GiB" (powers of 1024)') from None


def room(value: Any) -> int:
    """A size in bytes, above 0."""
    read = byte_size(value)
    if read == 0:
        raise Unacceptable('a size above 0 in quotes, such as "200GB"')
    return read


def unless(word: str, reader: Reader[T]) -> Callable[[Any], T | None]:
    """What *reader* reads, or ``None`` for *word* (such as ``unlimited``)."""

    def read(value: Any) -> T | None:
        if value == word:
            return None
        try:
            return reader(value)
        except Unacceptable as problem:
            raise Unacceptable(f'{problem.expected}, or "{word}"', problem.shown) from None

    return read


def several(reader: Reader[T]) -> Callable[[Any], tuple[T, ...]]:
    """A list of at least one of what *reader* reads, without repetition; in a variable, separated by commas."""

    def read(value: Any) -> tuple[T, ...]:
        if isinstance(value, Spelled):
            value = [Spelled(each.strip()) for each in value.split(",")]
        if not isinstance(value, list) or not value:
            raise Unacceptable('a list in brackets, such as ["…", "…"]')
        items = tuple(reader(item) for item in value)
        if len(set(items)) < len(items):
            raise Unacceptable("each only once: remove the repetition")
        return items

    return read


def contact(value: Any) -> str:
    """Something that fits a comment in a ``User-Agent`` header (RFC 9110 section 5.6.5)."""
    if not isinstance(value, str) or not _CONTACT.fullmatch(value):
        raise Unacceptable("a mail address or URL in plain ASCII, without parentheses")
    return str(value)


def file_host(value: Any) -> str:
    """A host name, or ``*.`` and a host name for all below it."""
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise Unacceptable('lower-case host names, such as "files.example" or "*.files.example"')
    return value


# -- addresses ----------------------------------------------------------------------------------------------------------------


def network(value: Any) -> str:
    """An IP address or a network."""
    expected = 'IP addresses or networks, such as "127.0.0.1" or "10.0.0.0/8"'
    if not isinstance(value, str):
        raise Unacceptable(expected)
    try:
        return str(forwarded.network_of(value))
    except ValueError:
        raise Unacceptable(f"{expected}; {tables.shown_value(value)} is {_no_network(value)}") from None


def _no_network(text: str) -> str:
    """Why *text* is no address or network, as the rest of a clause."""
    try:
        inside = forwarded.network_around(text)
    except ValueError:
        return "neither"
    return f'an address with the prefix of a network: write "{inside}" for the network (host bits set)'


def redacted(url: str) -> str:
    """*url* without what may be a secret in it: user information, query and fragment."""
    return f'"{shown(url)}"'


def index_url(value: Any) -> str:
    """The root of a simple index, ending in a slash; ``pypi`` stands for the public one."""
    if value == PUBLIC:
        return public_url()
    url = text(value)
    expected = f'the http or https URL of a simple index, such as "https://pypi.example/simple/", or "{PUBLIC}"'
    _check_url(url, expected, schemes=("http", "https"))
    if "@" in urlsplit(url).netloc:
        instead = "username with password_file or password_env, or token_file or token_env"
        raise Unacceptable(f"{expected}, without credentials: they go into {instead}", redacted(url))
    if "?" in url or "#" in url:
        raise Unacceptable(f"{expected}, without a query or fragment", redacted(url))
    return url.rstrip("/") + "/"


def plain_url(value: Any, expected: str) -> str:
    """An http or https URL as it is, without credentials, query and fragment."""
    url = text(value)
    _check_url(url, expected, schemes=("http", "https"))
    if "@" in urlsplit(url).netloc or "?" in url or "#" in url:
        raise Unacceptable(expected, redacted(url))
    return url


def outbound_proxy(value: Any) -> str:
    """``http://[user:password@]host:port``."""
    url = text(value)
    expected = 'an http URL with host and port, such as "http://proxy.example:3128"'
    _check_url(url, expected, schemes=("http",))
    parts = urlsplit(url)
    if parts.port is None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise Unacceptable(expected, redacted(url))
    return url.rstrip("/")


def _check_url(url: str, expected: str, *, schemes: Sequence[str]) -> None:
    """Raise `Unacceptable`, without showing secrets, unless *url* is absolute and well-formed, with one of *schemes*."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote a password
        sound = False
    if not sound or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise Unacceptable(expected, redacted(url))
