"""A page as a browser reads it: its text, its links, its forms, and whether it is all that its policy lets it be."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit

from msgspec import Struct

from tests.support.wire import Reply

#: What a browser accepts.
ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BROWSER = {"Accept": ACCEPT, "User_Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}

_VOID = frozenset({"meta", "input", "br", "link", "img", "hr"})


class Element(Struct):
    """One element with its attributes; *text* is what it and all in it says."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


class Page(HTMLParser):
    """The page that *reply* is, at the path *path*."""

    def __init__(self, reply: Reply, path: str) -> None:
        super().__init__(convert_charrefs=True)
        self.reply = reply
        self.path = path
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(self.reply.body.decode("utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert tag in _VOID, tag

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for each in self._open:
            each.text += data

    def all(self, tag: str) -> list[Element]:
        return [each for each in self.elements if each.tag == tag]

    @property
    def text(self) -> str:
        (body,) = self.all("body")
        return body.text

    @property
    def links(self) -> dict[str, str]:
        """The path that each link leads to, by its text."""
        return {each.text: urldefrag(urljoin(self.path, each.attributes["href"])).url for each in self.all("a")}

    def _is_own_asset(self, element: Element) -> bool:
        """Whether *element* loads the stylesheet or the script of the dashboard."""
        where = element.attributes.get("href" if element.tag == "link" else "src", "")
        return element.tag in ("link", "script") and urljoin(self.path, where).startswith("/-/static/")

    def faults(self) -> Iterator[str]:
        """What is wrong with a page that everybody can read, and that nothing else can be smuggled into."""
        headers = self.reply.headers
        if headers["content-type"] != "text/html; charset=utf-8" or not self.reply.body.startswith(b"<!DOCTYPE html>"):
            yield "it does not say that it is HTML"
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        own = [each for each in self.elements if self._is_own_asset(each)]
        if own:
            expected = {"style-src": "'self'", "script-src": "'self'", "connect-src": "'self'"}
            if self.all("style"):
                yield "it has a stylesheet of its own and one inside"
        else:
            (style,) = self.all("style")
            digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
            expected = {"style-src": f"'sha256-{digest}'"}
        expected |= {"default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'", "form-action": "'self'"}
        if policy != {**expected, "img-src": "'self'"}:
            yield f"its policy is {policy}"
        if headers.get("x-content-type-options") != "nosniff":
            yield "its type is guessed"
        foreign = [each for each in self.elements if each not in own]
        if [each.tag for each in foreign if each.tag in ("script", "img", "link", "iframe", "object", "base")]:
            yield "it needs more than itself"
        if [each for each in self.all("script") if each.text]:
            yield "a script is inside"
        for each in foreign:
            if [name for name in each.attributes if name.startswith("on") or name in ("style", "src", "srcset")]:
                yield f"{each} brings something along"
            for name in ("href", "action"):
                if urlsplit(each.attributes.get(name, "")).scheme or each.attributes.get(name, "").startswith("/"):
                    yield f"{each} is not relative"
        if self.all("html")[0].attributes.get("lang") != "en" or not self.all("title")[0].text:
            yield "it says neither its language nor its title"
        if len(self.all("h1")) != 1 or len(self.all("main")) != 1 or "viewport" not in str(self.all("meta")):
            yield "its structure is not plain"
        labels = {each.attributes["for"] for each in self.all("label")}
        fields = [each.attributes for each in self.all("input") if each.attributes.get("type") != "hidden"]
        if {each.get("id") for each in fields} - labels:
            yield "a field has no label"
