"""Project pages out of HTML (PEP 503, 592, 629, 658, 714, 740, 792).

Anybody can answer 200 with some HTML: a sign-in form, an error page, a captive portal.  A body is believed when

- it states a repository version (PEP 629), as all large indexes do; or
- it links to at least one wheel, egg or source archive that is called ``<name>-<version>``; or
- its title or heading is that of a listing (*Links for x*, *Index of /simple/x/*, *Directory listing for …*) and names this
  very project, and it holds no form, script or frame: an empty project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from selectolax.lexbor import LexborHTMLParser, LexborNode

from proxy.model import EMPTY, File, Page
from proxy.names import is_filename, normalize
from proxy.simple import mend
from proxy.simple.links import join_anew, resolve
from proxy.simple.malformed import Malformed

#: Endings of what indexes hold, the oldest kinds included; everything else that a page links to is no file.
_SUFFIXES = (
    *(".whl", ".egg", ".zip", ".tgz", ".tbz", ".txz"),
    *(".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.z", ".tar.lz", ".tar.lzma", ".tar.zst"),
    *(".exe", ".msi", ".rpm", ".deb", ".dmg"),
)
#: A file that only an index links to: a portal offers ``setup.exe`` too.
_RELEASE = re.compile(r".+-v?[0-9].*\.(?:whl|egg|zip|tgz|tbz|txz|tar(?:\.\w+)?)", re.IGNORECASE)
_LISTING = re.compile(r"\b(?:links for|index of|directory listing (?:for|of))\b(.*)", re.IGNORECASE | re.DOTALL)
_NAMES = re.compile(r"[A-Z0-9._-]+", re.IGNORECASE | re.ASCII)
_NO_LISTING_HAS = "form, input, script, iframe, frameset"

_VERSION = re.compile(r"\s*([0-9]{1,9})\.([0-9]{1,9})\s*")
#: Where an HTML page states its serial.
SERIAL = re.compile(r"<!--\s*SERIAL\s+([0-9]{1,18})\s*-->", re.IGNORECASE)
_END = re.compile(rb"</(?:html|body)\s*>", re.IGNORECASE)
#: How far from its end, in bytes, a document is looked at for what stands there.
_TAIL = 4096
#: Tags of other kinds than an index needs, from which on they are taken out before parsing.
_DENSE = 2000
_OTHER_TAG = re.compile(r"</?(?!(?:a|base|br|meta|script|style|textarea|title|html|head|body)[\s/>])[a-z][^>]*>", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE | re.ASCII)


def html_is_complete(body: bytes) -> bool:
    """Whether *body* ends as a document does: all that can be known of one whose length nobody stated."""
    return _END.search(body[-_TAIL:]) is not None


def parse_html(body: bytes, content_type: str, url: str, project: str) -> Page:
    """The page in *body*.  Raises Malformed."""
    text = _decode(body, content_type)
    tree = LexborHTMLParser(_flat(text))
    metas = _metas(tree)
    stated = _states_version(metas)
    base = _base(tree, url)
    linked = [file for anchor in tree.css("a[href]") if (file := _file(anchor, base)) is not None]
    if not stated and not any(_RELEASE.fullmatch(file.filename) for file in linked) and not _is_empty_listing(tree, project):
        raise Malformed("the HTML is no project page: it links to no distribution file")
    serial = SERIAL.search(text[-_TAIL:])
    files, unverifiable = mend.told_apart(linked)
    return Page(
        project=normalize(project),
        files=files,
        status=_status(metas),
        meta_extra=EMPTY if serial is None else {"_last-serial": int(serial[1])},
        unverifiable=unverifiable,
    )


def states_version(start: str) -> bool:
    """Whether a document that begins with *start* states a repository version.  Raises Malformed as :func:`parse_html`."""
    return _states_version(_metas(LexborHTMLParser(start)))


def _decode(body: bytes, content_type: str) -> str:
    """*body* as text in the charset of its Content-Type, else the one it states itself, else UTF-8."""
    stated = _CHARSET.search(content_type) or _CHARSET.search(body[:1024].decode("latin-1"))
    try:
        return body.decode("utf-8-sig" if stated is None else stated[1], "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8-sig", "replace")


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


def _base(tree: LexborHTMLParser, url: str) -> str:
    """What links are relative to: the first ``<base href>`` when it can be one, else the page itself."""
    base = tree.css_first("base[href]", default=None)
    return url if base is None else join_anew(url, (base.attributes.get("href") or "").strip()) or url


def _is_empty_listing(tree: LexborHTMLParser, project: str) -> bool:
    if tree.css_first(_NO_LISTING_HAS, default=None) is not None:
        return False
    headings = [node.text() for node in tree.css("title, h1")[:2]]
    listings = [match[1] for heading in headings if (match := _LISTING.search(heading)) is not None]
    return any(normalize(name) == normalize(project) for listing in listings for name in _NAMES.findall(listing))


def _file(anchor: LexborNode, base: str) -> File | None:
    """The file that *anchor* links to, ``None`` when it links to something else."""
    attributes = anchor.attributes
    found = resolve(base, attributes.get("href") or "")
    if found is None:
        return None
    url, fragment = found
    filename = unquote(url.partition("?")[0].rpartition("/")[2])
    if not filename.lower().endswith(_SUFFIXES) or not is_filename(filename):
        return None
    return File(
        filename=filename,
        url=url,
        hashes=mend.digests(mend.fragment(fragment)),
        requires_python=mend.requires_python(attributes.get("data-requires-python")),
        yanked=(attributes["data-yanked"] or True) if "data-yanked" in attributes else False,
        core_metadata=_core_metadata(attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))),
        provenance=mend.provenance(attributes.get("data-provenance")),
    )


def _core_metadata(text: str | None) -> bool | Mapping[str, str] | None:
    """``true``, ``false`` or ``<algorithm>=<hex>`` (PEP 658)."""
    algorithm, equals, value = (text or "").strip().partition("=")
    if equals:
        return mend.core_metadata({algorithm: value})
    return {"true": True, "false": False}.get(algorithm.lower())
