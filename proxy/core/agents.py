"""What a client says of itself in ``User-Agent``: its name, its version, its Python, and whether it runs in CI.

pip and uv send a JSON object after their name (pip's ``user_agent()``, read by the public index's linehaul); others send
products (RFC 9110 section 10.1.5).  Nothing a client says is trusted: what does not look like a name or a version is left out,
so that what is counted by it stays small and can be shown anywhere.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from proxy.expressions import expression

#: What stands for a client, a version, a Python or an address that is not stated, or not in a way that anybody reads.
NOT_STATED = "-"

#: What is read of an agent (characters): pip sends some 600.
_MOST_READ = 4096
_PRODUCT = expression(r"([A-Za-z][A-Za-z0-9._-]{0,31})(?:/([0-9][A-Za-z0-9.+!_-]{0,31})(?![^ ]))?(?= |$)", re.ASCII)
_PYTHON = expression(r"(?:^| )[CcPp]?[Pp]?y[Tt]hon/(\d{1,2}\.\d{1,3})(?!\d)", re.ASCII)
_PYTHON_VERSION = expression(r"(\d{1,2}\.\d{1,3})(?!\d)", re.ASCII)
#: Clients that other clients are built on name themselves last; these are what people call them.
_LAST = expression(r" (setuptools|zc\.buildout)/([0-9][A-Za-z0-9.+!_-]{0,31})(?= |$)", re.ASCII)


class Agent(Struct, frozen=True, cache_hash=True):
    """A client: ``pip``, ``26.3``, on Python ``3.11``.  *ci* is ``None`` where the client does not say.

    It is hashed for each request, so its hash is remembered.
    """

    client: str
    version: str
    python: str
    ci: bool | None


class _Linehaul(msgspec.Struct):
    """The members that matter of what pip and uv send."""

    python: str | None = None
    ci: bool | None = None


_linehaul = msgspec.json.Decoder(_Linehaul)


def identified(agent: str) -> Agent:
    """Who *agent* is, a ``User-Agent`` that is fit for a log (its quotes are escaped); ``-`` for none."""
    agent = agent[:_MOST_READ]
    product = _LAST.search(agent) or _PRODUCT.match(agent)
    client, version = (NOT_STATED, NOT_STATED) if product is None else (product[1], product[2] or NOT_STATED)
    start, end = agent.find("{"), agent.rfind("}")
    if 0 <= start < end:
        try:
            said = _linehaul.decode(agent[start : end + 1].replace("\\x22", '"'))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = _Linehaul()
        stated = _PYTHON_VERSION.match(said.python or "")
        # pip sends ``"ci": true`` or ``null``: where it says nothing, it has looked and found none.
        return Agent(client, version, stated[1] if stated else NOT_STATED, bool(said.ci))
    python = _PYTHON.search(agent)
    return Agent(client, version, python[1] if python else NOT_STATED, None)
