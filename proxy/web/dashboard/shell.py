"""What all pages of the dashboard have around them: head, navigation, footer, and the headers of their answers.

They load a stylesheet and a script from this host and nothing else; the script only keeps the page live.
"""

from __future__ import annotations

from msgspec import Struct
from twisted.web.template import Tag, tags

from proxy import __version__
from proxy.interfaces import IOffload
from proxy.web.answers import Answer, Headers
from proxy.web.dashboard.assets import Assets
from proxy.web.dashboard.markup import element
from proxy.web.hypertext import document_bytes, hyperlink, main_element

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Headers = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Vary", "Accept"),
]


class Frame(Struct, frozen=True):
    """Where a page is: *up* is the relative URL of ``/``; *events* is that of its stream, ``None`` for a page that has none.

    *who* is what stands for the viewer at its end.
    """

    up: str
    events: str | None = None
    who: tuple[Tag | str, ...] = ()


class Shell:
    """Makes pages, in a thread of *offload*, with the stylesheet and the script of *assets*.

    *apart*: indexes, settings for clients and health checks are at other addresses, and not linked.
    """

    def __init__(self, offload: IOffload, assets: Assets, *, apart: bool) -> None:
        self._apart = apart
        self._offload = offload
        self._assets = assets

    async def page(self, title: str, frame: Frame, *content: Tag, status: int = 200) -> Answer:
        """The answer with the page called *title*: its *content* is what is in ``<main>``, after its heading."""
        return Answer(status, HEADERS, await self._offload.run(document_bytes, self._document(title, frame, content)))

    def _document(self, title: str, frame: Frame, content: tuple[Tag, ...]) -> Tag:
        up = frame.up
        named = title if title == "pypiproxy" else f"{title} · pypiproxy"
        head = tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="robots", content="noindex"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.title(named),
            tags.link(rel="stylesheet", href=f"{up}{self._assets.path('dashboard.css')}"),
            tags.script(src=f"{up}{self._assets.path('dashboard.js')}", defer="defer"),
        )
        navigation = element(
            "nav",
            hyperlink(up or "./", "Dashboard"),
            hyperlink(f"{up}-/search", "Projects"),
            *([] if self._apart else [hyperlink(f"{up}-/setup", "Set up a client"), hyperlink(f"{up}index/", "Indexes")]),
            **{"aria-label": "Pages"},
        )
        others = () if self._apart else (" · ", hyperlink(f"{up}-/", "health and metrics"))
        footer = tags.footer(f"pypiproxy {__version__}", *others, *frame.who)
        live = {} if frame.events is None else {"data-events": f"{up}{frame.events}"}
        body = tags.body(
            tags.a("Skip to the content", href="#content", class_="skip"),
            tags.header(navigation),
            main_element(tags.h1(title), *content)(id="content", tabindex="-1"),
            footer,
            **live,
        )
        return tags.html(head, body, lang="en")
