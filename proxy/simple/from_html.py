"""Project pages out of HTML (PEP 503, 592, 629, 658, 714, 740, 792).

Anybody can answer 200 with some HTML: a sign-in form, an error page, a captive portal.  A body is believed when

- it states a repository version (PEP 629), as all large indexes do; or
- it links to at least one wheel, egg or source archive that is called ``<name>-<version>``; or
- its title or heading is that of a project page (*Links for x*) and names this very project, and it holds no form, script or
  frame: an empty project.

A web server's own listing of a folder (*Index of /simple/x/*, *Directory listing for …*) is believed for its distribution files
alone.  Without any it says nothing of the project: the folder of a static mirror also has this listing when only its
``index.html`` is called otherwise, is broken or is not there yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from proxy.model import EMPTY, File, Page
from proxy.names import is_distribution, is_filename, normalize
from proxy.settings import MIB
from proxy.simple import mend
from proxy.simple.attributes import others
from proxy.simple.links import join_anew, resolve
from proxy.simple.malformed import Malformed

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

#: A file that only an index links to, ``<name>-<version>`` and such an ending: a portal offers ``setup.exe`` too.
_NUMBERED = re.compile(r".-v?[0-9]", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(?:whl|egg|zip|tgz|tbz|txz|tar(?:\.\w+)?)\Z", re.IGNORECASE)
_LINKS_FOR = re.compile(r"\blinks for\b(.*)", re.IGNORECASE | re.DOTALL)
#: The titles and headings of listings by nginx, Apache, lighttpd, Caddy, IIS, Jetty, Tomcat, Python and Node.
_LISTING = re.compile(
    r"\b(?:index of|directory(?: listing)?(?: for| of|:)|listing (?:for|of|directory))|^\s*(?:\S+ - )?/\S*\s*$", re.IGNORECASE
)
_NAMES = re.compile(r"[A-Z0-9._-]+", re.IGNORECASE | re.ASCII)
#: The headings of a document that are looked at, and how much of each (characters).
_HEADINGS, _LONGEST_HEADING = 2, 1000
_NO_PAGE_HAS = "form, input, script, iframe, frameset"

_VERSION = re.compile(r"\s*([0-9]{1,9})\.([0-9]{1,9})\s*")
#: Where an HTML page states its serial.
SERIAL = re.compile(r"<!--\s*SERIAL\s+([0-9]{1,18})\s*-->", re.IGNORECASE)
#: How far from its end, in characters, a document is looked at for its serial.
_TAIL = 4096
#: Tags of other kinds than an index needs, from which on they are taken out before parsing.
_DENSE = 2000
_OTHER_TAG = re.compile(r"</?(?!(?:a|base|br|meta|script|style|textarea|title|html|head|body)[\s/>])[a-z][^>]*>", re.IGNORECASE)
#: Larger documents are parsed piece by piece, cut after links (characters): in one call the parser takes the square of the
#: number of a tag's attributes, and holds the interpreter's lock.  A link may be as long as the longest URL and more; what is
#: longer is cut anywhere, which is done to so many pieces of a page.
_PIECE, _LONGEST_PIECE, _MOST_LONG = 8192, 24 * 1024, 64
#: The most tags, and the longest document (characters): such a page has 200,000 files.
_MOST_TAGS, _LARGEST = 1_000_000, 64 * MIB
_ANCHOR_END = re.compile(r"</a\s*>", re.IGNORECASE)
#: What goes on until it is ended, whatever comes in between.
_LASTING = (("<!--", "-->"), ("<script", "</script"), ("<style", "</style"), ("<textarea", "</textarea"))


def tree_of(html: str) -> LexborHTMLParser:
    """The elements of *html*."""
    from selectolax.lexbor import LexborHTMLParser  # two megabytes, which an upstream that has JSON spares

    return LexborHTMLParser(html)


def parse_html(text: str, url: str, project: str) -> Page:
    """The page in *text*.  Raises Malformed."""
    if len(text) > _LARGEST:
        raise Malformed(f"the HTML has more than {_LARGEST:,} characters")
    found = _Found()
    for piece in _pieces(text):
        found.add(tree_of(_flat(piece)))
    stated = _states_version(found.metas)
    base = url if found.base is None else join_anew(url, found.base) or url
    linked = [file for link in found.links if (file := _file(link, base)) is not None]
    if not stated and not any(_is_release(file.filename) for file in linked) and not found.is_empty_page(project):
        what = "is a web server's listing of a folder" if found.is_listing() else "is no project page"
        raise Malformed(f"the HTML {what}: it links to no distribution file")
    serial = SERIAL.search(text[-_TAIL:])
    files, unverifiable = mend.told_apart(linked)
    return Page(
        project=normalize(project),
        files=files,
        status=_status(found.metas),
        meta_extra=EMPTY if serial is None else {"_last-serial": int(serial[1])},
        unverifiable=unverifiable,
    )


def _pieces(text: str) -> Iterator[str]:
    """*text* in parts that are parsed one by one.  Raises Malformed for what is too large to be a page."""
    if text.count("<") > _MOST_TAGS:
        raise Malformed(f"the HTML has more than {_MOST_TAGS:,} tags")
    start, inside, long = 0, "", 0
    while len(text) - start > _LONGEST_PIECE:
        end = _ANCHOR_END.search(text, start + _PIECE, start + _LONGEST_PIECE)
        stop = start + _LONGEST_PIECE if end is None else end.end()
        long += end is None
        if long > _MOST_LONG:
            raise Malformed("the HTML is no project page: most of it is no links")
        piece = inside + text[start:stop]
        yield piece
        inside, start = _goes_on(piece), stop
    yield inside + text[start:]


def _goes_on(piece: str) -> str:
    """The beginning of what *piece* leaves open."""
    lower = piece.lower()
    return next(
        (begin + (">" if begin[1] != "!" else "") for begin, end in _LASTING if lower.rfind(begin) > lower.rfind(end)), ""
    )


class _Found:
    """What the pieces of a document hold."""

    def __init__(self) -> None:
        self.metas: dict[str, str] = {}
        #: The first ``<base href>``.
        self.base: str | None = None
        #: The attributes of every anchor that links to something.
        self.links: list[Mapping[str, str | None]] = []
        self._headings: list[str] = []
        self._forbidden = False

    def add(self, tree: LexborHTMLParser) -> None:
        self.metas = {**_metas(tree), **self.metas}
        base = tree.css_first("base[href]", default=None) if self.base is None else None
        if base is not None:
            self.base = (base.attributes.get("href") or "").strip()
        self.links += [anchor.attributes for anchor in tree.css("a[href]")]
        if len(self._headings) < _HEADINGS:
            found = tree.css("title, h1")[: _HEADINGS - len(self._headings)]
            self._headings += [node.text()[:_LONGEST_HEADING] for node in found]
        self._forbidden = self._forbidden or tree.css_first(_NO_PAGE_HAS, default=None) is not None

    def is_empty_page(self, project: str) -> bool:
        """Whether the page says that it is *project*'s, of which there is no file."""
        if self._forbidden or self.is_listing():
            return False
        pages = [match[1] for heading in self._headings if (match := _LINKS_FOR.search(heading)) is not None]
        return any(normalize(name) == normalize(project) for page in pages for name in _NAMES.findall(page))

    def is_listing(self) -> bool:
        """Whether a web server says that it lists a folder there."""
        return any(_LISTING.search(heading) is not None for heading in self._headings)


def _is_release(filename: str) -> bool:
    """Whether *filename* is that of a wheel, an egg or a source archive, with a version in it."""
    archive = _ARCHIVE.search(filename)
    return archive is not None and _NUMBERED.search(filename, 0, archive.start()) is not None


def states_version(start: str) -> bool:
    """Whether a document that begins with *start* states a repository version.  Raises Malformed as :func:`parse_html`."""
    return _states_version(_metas(tree_of(start)))


def _flat(text: str) -> str:
    """*text* without tags that could nest, when it has very many of them.

    An HTML5 parser looks up all open elements at each block element, so that 200 kB of nothing but ``<ul><li>`` take ten
    seconds.  Each such tag becomes a space, so that what stands around it cannot become a tag.
    """
    harmless = sum(text.count(tag) for tag in ("<a ", "</a>", "<br>", "<br/>", "<br />"))
    if text.count("<") - harmless < _DENSE:
        return text
    text = text[: text.rfind(">") + 1]  # with a ">" ahead of every "<", the expression's time is linear
    kept, position = [], 0
    for match in _OTHER_TAG.finditer(text):
        kept.append(text[position : match.start()])
        position = match.end()
    return " ".join([*kept, text[position:]])


def _metas(tree: LexborHTMLParser) -> dict[str, str]:
    return {
        name: meta.attributes.get("content") or ""
        for meta in tree.css("meta[name]")
        if (name := (meta.attributes.get("name") or "").lower()).startswith("pypi:")
    }


def _states_version(metas: Mapping[str, str]) -> bool:
    """Whether the page states a repository version.  Raises Malformed when it is one of another major version (PEP 629)."""
    match = _VERSION.fullmatch(metas.get("pypi:repository-version", ""))
    if match is not None and int(match[1]) != 1:
        raise Malformed(f"the page is of repository version {match[0].strip()}, which this proxy does not know")
    return match is not None


def _status(metas: Mapping[str, str]) -> dict[str, str] | None:
    status, reason = metas.get("pypi:project-status"), metas.get("pypi:project-status-reason")
    if not status:
        return None
    return {"status": status, "reason": reason} if reason else {"status": status}


def _file(attributes: Mapping[str, str | None], base: str) -> File | None:
    """The file that an anchor with *attributes* links to, ``None`` when it links to something else."""
    found = resolve(base, attributes.get("href") or "")
    if found is None:
        return None
    url, fragment = found
    filename = unquote(url.partition("?")[0].rpartition("/")[2])
    if not is_distribution(filename) or not is_filename(filename):
        return None
    return File(
        filename=filename,
        url=url,
        hashes=mend.digests(mend.fragment(fragment)),
        requires_python=mend.requires_python(attributes.get("data-requires-python")),
        size=mend.stated_size(attributes.get("data-size")),
        upload_time=mend.upload_time(attributes.get("data-upload-time")),
        yanked=(attributes["data-yanked"] or True) if "data-yanked" in attributes else False,
        core_metadata=_core_metadata(attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))),
        provenance=mend.provenance(attributes.get("data-provenance")),
        extra=others(attributes),
    )


def _core_metadata(text: str | None) -> bool | Mapping[str, str] | None:
    """``true``, ``false`` or ``<algorithm>=<hex>`` (PEP 658)."""
    algorithm, equals, value = (text or "").strip().partition("=")
    if equals:
        return mend.core_metadata({algorithm: value})
    return {"true": True, "false": False}.get(algorithm.lower())
