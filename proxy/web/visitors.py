"""What kind of program sends a request: an installer, a browser, or something else.  Only what people read depends on it."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from proxy.simple.media import names, prefers_html
from proxy.web.answers import Ask

#: What only clients of the Simple API accept by name (PEP 691).
_SIMPLE_API = "application/vnd.pypi.simple"
#: How installers begin their ``User-Agent``; setuptools, which buildout installs with, may name itself last.
_AGENT = re.compile(r"(?:^| )(bandersnatch|distlib|pdm|pip|poetry|pypi-simple|setuptools|unearth|uv|zc\.buildout)/")


def installer(ask: Ask) -> str | None:
    """The client of the Simple API that sends *ask*, by name, or ``an installer`` for one without; ``None`` for all others."""
    accept = ask.header("accept") or ""
    if is_browser(ask):
        return None
    found = _AGENT.search(ask.header("user-agent") or "")
    if found is not None:
        return found[1]
    return "an installer" if _SIMPLE_API in accept.lower() else None


def is_browser(ask: Ask) -> bool:
    """Whether *ask* is sent by a browser: no installer accepts ``application/xhtml+xml``."""
    return names(ask.header("accept") or "", "application/xhtml+xml")


def wants_html(ask: Ask) -> bool:
    """Whether *ask* is for people who read HTML: of no installer, and of no program that names JSON first."""
    return installer(ask) is None and prefers_html(ask.header("accept") or "")


def is_browsing(ask: Ask) -> bool:
    """Whether *ask*, for a list of projects, wants it as a page for people."""
    return is_browser(ask) and "format" not in parse_qs(ask.query, keep_blank_values=True)
