"""The short form of a line in the access log: one request on some 120 characters.

``TIME CLIENT METHOD PATH STATUS SIZE DURATION CACHE [cut off] AGENT [id=ID]``.  Fields contain no space.  The id of a request
is shown where its client has reason to complain.  Text from clients is
printable ASCII when it arrives here; spaces in it are escaped, so that it cannot pass itself off as other fields.

What requests have in common is remembered: such a line is written for each of some ten thousand requests per second.
"""

from __future__ import annotations

import re
from functools import lru_cache

from proxy.core.amounts import duration, size

#: Characters on a line, unless the address of the client is a long one, or the line has an id.
WIDTH = 120
#: The shortest a path is made, and the longest an agent and a method may be.
_LEAST_PATH, _MOST_AGENT, _MOST_METHOD = 24, 24, 8
#: What is read of an agent, and the longest target that is remembered (characters).
_MOST_READ = 1024

#: A digest in the URL of a file; the name behind it tells people more.
_DIGEST = re.compile(r"/(?:md5|sha1|sha224|sha256|sha384|sha512|blake2b)-[0-9a-f]{32,128}(?=/)")
_PRODUCT = re.compile(r"[A-Za-z][\w.+~-]*(?:/[\w.+~!-]+)?", re.ASCII)
#: How installers state the Python that they run on: as JSON (with its quotes escaped), or as a product.  An expression that
#: begins with text is looked for much faster than one that begins with a choice.
_PYTHON_IN_JSON = re.compile(r"\\x22python\\x22: ?\\x22(\d+\.\d+)", re.ASCII)
_PYTHON_AS_PRODUCT = re.compile(r"\b[CcPp][Pp]?y[Tt]hon/(\d+\.\d+)", re.ASCII)


def short(
    time: str,
    client: str,
    method: str,
    target: str,
    status: int,
    sent: int,
    seconds: float,
    cache: str,
    shown: str,
    cut: str,
    request_id: str,
) -> str:
    """The line, without its end.  *shown* is what `short_agent` says of the client.

    *cut* is empty, or `` cut off`` for an answer whose client did not get all of it.
    """
    if len(method) > _MOST_METHOD:
        method = method[: _MOST_METHOD - 1] + "…"
    if " " in method:
        method = method.replace(" ", "_")
    before = f"{time} {client} {method} "
    after = f" {status} {_size(sent)} {_duration(round(seconds, 4))} {cache}{cut} {shown}"
    if status >= 400 or cut:
        after = f"{after} id={request_id}"
    room = max(_LEAST_PATH, WIDTH - len(before) - len(after))
    # What is longer would make what is remembered large.
    path = short_path(target, room) if len(target) <= _MOST_READ else short_path.__wrapped__(target, room)
    return before + path + after


@lru_cache(maxsize=2048)
def short_path(target: str, most: int) -> str:
    """The path of *target* on at most *most* characters: without query and, if need be, without digest, folders and middle."""
    path, query, _ = target.partition("?")
    path = f"{path}?…" if query else path
    if " " in path:
        path = path.replace(" ", "\\x20")
    if len(path) > most:
        path = _DIGEST.sub("/…", path)
    if len(path) > most and (name := path.rpartition("/")[2]):
        path = f"…/{name}"
    if len(path) > most:
        head = most * 2 // 3
        path = f"{path[:head]}…{path[head + 1 - most :]}"
    return path


def short_agent(agent: str) -> str:
    """The first product of *agent*, and the Python that it names: ``pip/26.3 py3.11``."""
    agent = agent[:_MOST_READ]
    product = _PRODUCT.match(agent)
    if product is None:
        return "-" if agent.partition(" ")[0] in ("", "-") else "?"
    python = _PYTHON_IN_JSON.search(agent) or ("hon/" in agent and _PYTHON_AS_PRODUCT.search(agent))
    shown = product[0] if len(product[0]) <= _MOST_AGENT else product[0][: _MOST_AGENT - 1] + "…"
    return shown if not python or shown.lower().startswith("python/") else f"{shown} py{python[1]}"


@lru_cache(maxsize=1024)
def _size(count: int) -> str:
    return size(count).replace(" ", "")


@lru_cache(maxsize=1024)
def _duration(seconds: float) -> str:
    return duration(seconds).replace(" ", "")
