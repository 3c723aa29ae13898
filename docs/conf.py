"""The documentation as a site: ``make docs`` builds it into build/site.

The source directory is that of the project, so a link such as ``../conf/pypiproxy.toml`` means the same here and in a checkout.
The navigation is the index in README.md: what is not listed there is a warning, and a warning fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

project = "pypiproxy"
author = "pypiproxy maintainers"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*/*.md"]
exclude_patterns = [".*", "bench", "build", "conf", "dist", "proxy", "tests", "twisted"]
nitpicky = True

#: Links to headings, down to the third level, as in a checkout (``page.md#heading``).
myst_heading_anchors = 3

#: It brings its own style sheets and uses the fonts of the reader's system: nothing is loaded from the network.
html_theme = "furo"
html_title = "pypiproxy"
html_show_sphinx = False
html_copy_source = False

_INDEX = re.compile(r"^## Documentation\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_PAGE = re.compile(r"\]\(([\w./-]+)\.md\)")
_START = (
    '<!DOCTYPE html><meta charset="utf-8"><title>pypiproxy</title><meta http-equiv="refresh" content="0; url=README.html">\n'
)


def _navigation(app: Any, page: str, source: list[str]) -> None:
    """Make the index in README.md the table of contents."""
    if page == root_doc:
        found = _INDEX.search(source[0])
        pages = dict.fromkeys(_PAGE.findall(found[1])) if found else {}
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def _start(app: Any, exception: Exception | None) -> None:
    if exception is None:
        Path(app.outdir, "index.html").write_text(_START, "utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _navigation)
    app.connect("build-finished", _start)
