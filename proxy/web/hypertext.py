"""Pages for people: HTML that is complete in itself, with no script and nothing from elsewhere.

They are built with `twisted.web.template`, which is there already: it escapes every text and every attribute, and a page is
an expression that the type checker reads.  Writing a tag takes 50 µs or so: pages are bounded, and written in a worker thread.
"""

from __future__ import annotations

import base64
import hashlib

from twisted.web.template import Tag, flattenString, tags

from proxy.interfaces import IOffload
from proxy.mechanism.offload import completed
from proxy.web.answers import Answer, Headers

#: Without the characters that HTML escapes: an element ``style`` knows no escapes.
STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --dim: #4a525c; --back: #fff; --block: #f1f3f6; --line: #b9c0c9;
  --link: #0a4fb5; --good: #14602b; --bad: #9a3300 }
@media (prefers-color-scheme: dark) { :root { --text: #e8ebef; --dim: #b4bcc6; --back: #14171b; --block: #20252b;
  --line: #505963; --link: #8cbcff; --good: #7ad694; --bad: #ffb27a } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 52rem; padding: 1rem 1.2rem 3rem; color: var(--text); background: var(--back);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin: .4rem 0 }
h2 { font-size: 1.2rem; margin: 2rem 0 .4rem }
p, ul { margin: .4rem 0 }
a { color: var(--link) }
pre, code { font-family: ui-monospace, monospace; font-size: .92rem }
pre { margin: .2rem 0 .8rem; padding: .6rem .8rem; overflow-x: auto; overflow-wrap: normal; background: var(--block);
  border: 1px solid var(--line); border-radius: .3rem; user-select: all }
details { border-bottom: 1px solid var(--line); padding: .15rem 0 }
summary { cursor: pointer; font-weight: 600; padding: .35rem 0 }
label { display: block; font-weight: 600 }
input, button { font: inherit; color: inherit; padding: .4rem .6rem; border: 1px solid var(--dim); border-radius: .3rem;
  background: var(--block) }
input { width: 20rem; max-width: 100% }
.columns { columns: 14rem; padding-left: 1.2rem }
.good { color: var(--good); font-weight: 600 }
.bad { color: var(--bad); font-weight: 600 }
.dim, footer { color: var(--dim) }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .6rem }
"""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Headers = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Vary", "Accept"),
]


async def html(offload: IOffload, title: str, *content: Tag) -> Answer:
    """The answer with a page that is called *title* and has this *content*."""
    return Answer(200, _HEADERS, await offload.run(document_bytes, _document(title, content)))


def instead_of(plain: Answer, title: str, *content: Tag) -> Answer:
    """*plain* with a page that is called *title* and has this *content* in place of its body, which is written at once.

    It is for pages of few tags that must not depend on a thread.
    """
    replaced = {name for name, _ in _HEADERS}
    headers = [*_HEADERS, *(each for each in plain.headers if each[0] not in replaced)]
    return Answer(plain.status, headers, document_bytes(_document(title, content)), plain.reason, plain.word)


def hyperlink(target: str, text: str) -> Tag:
    """A link to the URL *target*, relative to the page that it is on."""
    return tags.a(text, href=target)


def main_element(*content: Tag) -> Tag:
    """What a page is about; twisted does not know the element."""
    return Tag("main")(*content)


def _document(title: str, content: tuple[Tag, ...]) -> Tag:
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
        tags.meta(name="robots", content="noindex"),
        tags.title(title),
        tags.style(STYLE),
    )
    return tags.html(head, tags.body(*content), lang="en")


def document_bytes(document: Tag) -> bytes:
    """*document* as bytes.  Nothing in it has to be waited for."""
    return b"<!DOCTYPE html>\n" + markup_bytes(document)


def markup_bytes(*content: Tag | str) -> bytes:
    """*content* as a part of a page."""
    return completed(flattenString(None, list(content)))
