"""What is here: the page at ``/`` and at the root of each index, and the list of indexes; as HTML for people, else as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from twisted.web.template import Tag, tags

from proxy import __version__
from proxy.core.bypasses import cautions
from proxy.core.clients import CLIENTS, Address, settings
from proxy.core.roots import index_root
from proxy.core.troubles import Trouble
from proxy.interfaces import IOffload
from proxy.web.answers import Answer, Ask
from proxy.web.hypertext import html, hyperlink, main_element
from proxy.web.operations import Health, as_json
from proxy.web.origin import origin
from proxy.web.visitors import wants_html

#: The clients whose settings are unfolded.
_OPEN = ("pip", "uv")


class Overview:
    """The pages about *indexes*, given with their kinds, of which the one named *default* is also at the root."""

    def __init__(self, indexes: Mapping[str, str], default: str | None, health: Health, offload: IOffload) -> None:
        self._kinds = indexes
        # The default one first.
        self._indexes = sorted(indexes, key=lambda name: (name != default, name))
        self._default = default
        self._health = health
        self._offload = offload

    async def of(self, index: str | None, root: str, ask: Ask) -> Answer:
        """Answer a request for *root*, the path of *index*; ``None`` is a host without an index at its root."""
        troubles = await self._health.look()
        if not wants_html(ask):
            return self._as_json(ask, troubles)
        up = "" if root == "/" else "../../"
        title = "pypiproxy" if root == "/" else f"{index} on pypiproxy"
        return await html(
            self._offload,
            title,
            tags.header(
                tags.h1(title),
                tags.p(
                    "A caching proxy for Python package indexes. It fetches pages and files from the index behind it once, "
                    "and serves them from its cache while that index is slow or down."
                ),
                self._in_words(troubles),
            ),
            main_element(
                *self.client_setup(index, root, ask),
                tags.h2("Indexes"),
                self.listed(up),
            ),
            tags.footer(f"pypiproxy {__version__} · ", hyperlink(f"{up}-/", "health and metrics")),
        )

    def listed(self, up: str) -> Tag:
        """The list of indexes; *up* is the relative URL of ``/``."""
        return tags.ul([self._entry(name, f"{up}{index_root(name)[1:]}") for name in self._indexes])

    def client_setup(self, index: str | None, root: str, ask: Ask) -> list[Tag]:
        """The exact settings of each client for *index* at *root*, for the host that *ask* names."""
        return self._settings(None if index is None else _address(ask, None if root == "/" else index))

    async def indexes(self, ask: Ask) -> Answer:
        """Answer a request for the list of indexes at ``/index/``."""
        if not wants_html(ask):
            return self._as_json(ask, await self._health.look())
        return await html(
            self._offload,
            "Indexes on pypiproxy",
            main_element(tags.h1("Indexes"), tags.ul([self._entry(name, f"{quote(name)}/") for name in self._indexes])),
            tags.footer(hyperlink("../", "pypiproxy")),
        )

    def _as_json(self, ask: Ask, troubles: Sequence[Trouble]) -> Answer:
        indexes = [
            {
                "name": name,
                "kind": self._kinds[name],
                "default": name == self._default,
                "url": _address(ask, self._in_url(name)).index,
            }
            for name in self._indexes
        ]
        body = {
            "service": "pypiproxy",
            "version": __version__,
            "ready": self._health.is_ready(),
            "degraded": [each.reason.value for each in troubles],
            "indexes": indexes,
        }
        return as_json(body)

    def _in_url(self, index: str) -> str | None:
        """The name of *index* if its URL has to have it."""
        return None if index == self._default else index

    def _in_words(self, troubles: Sequence[Trouble]) -> Tag:
        if not self._health.is_ready():
            return tags.p("Stopping: no new requests should be sent here.", class_="bad")
        if not troubles:
            return tags.p("Ready: everything works.", class_="good")
        # What it is in detail is for those who may ask for /-/ready.
        found = tags.ul([tags.li(each.reason.value.replace("-", " ")) for each in troubles])
        words = "Degraded: builds are served, but something needs attention. /-/ready says what it is."
        return tags.div(tags.p(words, class_="bad"), found)

    def _entry(self, name: str, root: str) -> Tag:
        default = " (the default index)" if name == self._default else ""
        return tags.li(hyperlink(root, name), f"{default}: ", hyperlink(f"{root}simple/", "cached projects"))

    def _settings(self, address: Address | None) -> list[Tag]:
        if address is None:
            return [tags.p("No index is served at the root of this host: select one below for its URL and the settings.")]
        return [
            tags.h2("Index URL"),
            _block(address.index),
            tags.h2("Set up a client"),
            tags.p("Where several forms are shown (environment, file), use one of them."),
            *[_client(name, address) for name in CLIENTS],
            tags.p(
                "If the certificate of this proxy is signed by your own authority, ",
                tags.code("pypiproxy client-config CLIENT --ca-file FILE"),
                " prints the settings with that authority.",
                class_="dim",
            ),
        ]


def _address(ask: Ask, index: str | None) -> Address:
    """Where the client finds *index*; ``None`` is the default one."""
    return Address.of(origin(ask), index)


def _block(text: str) -> Tag:
    """*text* to be copied.  It may be wider than a narrow screen, and then scrolls, with the keyboard too."""
    return tags.pre(text, tabindex="0")


def _client(name: str, address: Address) -> Tag:
    try:
        blocks = [
            [tags.p(tags.strong(each.where), f": {each.about}"), _block(each.text.rstrip())] for each in settings(name, address)
        ]
    except ValueError as error:
        blocks = [[tags.p(f"{error}.")]]
    notes = [tags.p(each, class_="dim") for each in cautions(name)]
    unfolded = {"open": "open"} if name in _OPEN else {}
    return tags.details(tags.summary(name), *[tag for block in blocks for tag in block], *notes, **unfolded)
