"""Pages in the forms that indexes have, and the test data of clients: pip and uv read the same through the proxy."""

from __future__ import annotations

import email.message
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from proxy.simple.media import MediaType
from proxy.simple.parse import parse_page
from proxy.simple.render import render
from tests.inprocess import Running, Start
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import Distribution, wheel

if TYPE_CHECKING:
    from pip._internal.models.link import Link

HTML = "text/html"
JSON = "application/vnd.pypi.simple.v1+json"


class Made:
    """Three versions of *project*, whose page is to be written: the newest needs a Python that there will never be."""

    def __init__(self, project: str, host: str = "https://files.example") -> None:
        self.project = project
        self.host = host
        self.wheels = [wheel(project, version) for version in ("1.0", "2.0", "3.0")]

    def python(self, each: Distribution) -> str:
        return ">=99" if each is self.wheels[-1] else ">=3.8"

    def html(self, head: str, link: str, tail: str) -> str:
        """A page of *head*, a *link* for each file, and *tail*, their fields filled in."""
        names = {"project": self.project, "host": self.host}
        return head.format_map(names) + "\n".join(link.format_map(names | self._fields(each)) for each in self.wheels) + tail

    def _fields(self, each: Distribution) -> dict[str, str]:
        number = self.wheels.index(each)
        return {
            "file": each.filename,
            "coded": each.filename.replace("-", "%2D"),
            "entity": each.filename.replace("-", "&#x2D;"),
            "sha256": each.sha256,
            "md5": hashlib.md5(each.data, usedforsecurity=False).hexdigest(),
            "metadata": "sha256=" + hashlib.sha256(each.metadata).hexdigest(),
            "size": str(len(each.data)),
            "time": f"2024-0{number + 1}-01T00:00:00Z",
            "python": self.python(each),
            "entities": "".join(f"&#{ord(character)};" for character in self.python(each)),
            "escaped": html.escape(self.python(each)),
            "yanked": ("", 'data-yanked="a &lt;b&gt; &amp; c"', 'data-yanked=""')[number],
        }

    def entries(self, **keys: Any) -> list[dict[str, Any]]:
        """Entries of a JSON page, with *keys* besides."""
        return [
            {
                "filename": each.filename,
                "url": f"../../f/{each.filename}",
                "hashes": {"sha256": each.sha256},
                "requires-python": self.python(each),
                **keys,
            }
            for each in self.wheels
        ]


TITLED = "<!DOCTYPE html><html><head><title>Links for {project}</title></head><body><h1>Links for {project}</h1>"
SEEN_OFTEN = '<a href="../../f/{file}#sha256={sha256}" data-requires-python="{escaped}">{file}</a><br/>'
PLAIN = '<a href="/f/{file}#sha256={sha256}" data-requires-python="{python}">x</a>'

#: HTML pages: what comes first, what is there for each file, what comes last.
IN_HTML = {
    "warehouse": (
        '<!DOCTYPE html>\n<html>\n  <head>\n    <meta name="pypi:repository-version" content="1.4">\n'
        "    <title>Links for {project}"
        "</title>\n  </head>\n  <body>\n    <h1>Links for {project}</h1>\n",
        '<a href="{host}/f/{file}#sha256={sha256}" data-requires-python="{escaped}" data-dist-info-metadata="{metadata}"'
        ' data-core-metadata="{metadata}">{file}</a><br />',
        "\n  </body>\n</html>\n<!--SERIAL 123-->",
    ),
    "bandersnatch": (TITLED, SEEN_OFTEN, "</body></html>\n<!--SERIAL 123-->"),
    "devpi": (
        "<html><head><title>root/pypi: links for {project}</title></head><body><h1>root/pypi: links for {project}</h1>",
        f"root/pypi {SEEN_OFTEN}",
        '</body></html><a href="https://home.example/">home</a>',
    ),
    "dated": (
        "<!DOCTYPE html>\n<html>\n  <body>\n    <h1>Links</h1>\n",
        PLAIN.replace(" data", ' data-upload-time="{time}" data-size="{size}" data', 1),
        "\n  </body>\n</html>\n<!--TIMESTAMP 1700000000-->",
    ),
    "yanked": ("", '<a {yanked} href="/f/{file}#sha256={sha256}">x</a>', ""),
    "shouting": ("<HTML><BODY>", "<A HREF=/f/{file}#sha256={sha256} DATA-REQUIRES-PYTHON='{python}'>{file}</A><BR>", ""),
    "based": (
        '<html><head><base target="_top"><base href="{host}/f/"><base href="https://other.example/"></head><body>',
        '<a href="{file}#sha256={sha256}" data-requires-python="{escaped}">x</a>',
        "</body></html>",
    ),
    "untidy": (
        '<!-- <a href="no-1.0.zip">no</a> --><a name="top"><a href="">here</a><a>there</a><a href="mailto:a@b.example">m</a>',
        '<p><a\n  href="/f/{file}#sha256={sha256}"\n\tdata-requires-python = "{python}"\n>{file}\n</a>',
        '<a href="../">up</a><a href="README.txt">readme</a>',
    ),
    "MD5": (TITLED, '<a href="/f/{file}#md5={md5}" data-requires-python="{escaped}" rel="internal">x</a>', ""),
    "unknown attributes": (
        TITLED,
        PLAIN.replace(" data", ' data-gpg-sig="false" data-license="MIT" class="a b" onclick="x()" data', 1),
        "",
    ),
    "not UTF-16": ("<html><head><meta charset=utf-16></head><body>", PLAIN, "</body></html>"),
    "signed": ("", '<a href="/f/{coded}?sig=a%2Fb&amp;e=1#sha256={sha256}" data-requires-python="{python}">x</a>', ""),
    "entities": (
        "",
        '<a href="&#47;f/{entity}#sha256={sha256}" data-requires-python="{entities}">x</a>',
        "",
    ),
    "metadata without a digest": (TITLED, PLAIN.replace(" data", ' data-dist-info-metadata="true" data', 1), ""),
    "listing": (
        "<html><head><title>Index of /simple/{project}/</title></head><body><h1>Index of /simple/{project}/</h1><hr><pre>"
        '<a href="../">../</a>\n',
        '<a href="/f/{file}">{file:.9}..&gt;</a>   01-Jan-2024 10:00   512',
        "</pre><hr></body></html>",
    ),
}


def full(made: Made) -> str:
    files = made.entries(
        size=9, yanked=False, provenance=None, **{"upload-time": "2024-01-02T03:04:05.678900Z", "gpg-sig": False}
    )
    for file, each in zip(files, made.wheels, strict=True):
        file["size"] = len(each.data)
        file["hashes"] |= {"md5": hashlib.md5(each.data, usedforsecurity=False).hexdigest()}
        file["core-metadata"] = {"sha256": hashlib.sha256(each.metadata).hexdigest()}
    meta = {"api-version": "1.4", "_last-serial": 7}
    status = {"status": "active"}
    return json.dumps(
        {"meta": meta, "name": made.project, "versions": ["1.0", "2.0", "3.0"], "project-status": status, "files": files}
    )


def minimal(made: Made) -> str:
    return json.dumps({"meta": {"api-version": "1.0"}, "name": made.project, "files": made.entries()})


def bare(made: Made) -> str:
    return json.dumps({"files": made.entries()})


def older_keys(made: Made) -> str:
    return json.dumps(
        {"meta": {"api-version": 1.0}, "name": made.project, "files": made.entries(**{"dist-info-metadata": True})}
    )


def reasons(made: Made) -> str:
    files = made.entries()
    for file, reason in zip(files, (False, "broken", True), strict=True):
        file["yanked"] = reason
        file["_unknown"] = {"a": [1, None]}
    return json.dumps({"meta": {"api-version": "1.99", "_x": 1}, "name": made.project.upper(), "x": 1, "files": files})


def escaped(made: Made) -> str:
    return json.dumps({"meta": {}, "name": None, "files": made.entries(**{"core-metadata": False})}).replace("/", "\\/")


IN_JSON: dict[str, Callable[[Made], str]] = {
    "full": full,
    "minimal": minimal,
    "bare": bare,
    "older keys": older_keys,
    "reasons": reasons,
    "escaped": escaped,
}
#: The Content-Type that a form comes with, where it is another than that of its kind.
TYPES = {
    "bandersnatch": "text/html; charset=utf-8",
    "MD5": "application/vnd.pypi.simple.v1+html",
    "shouting": "Text/HTML",
    "signed": "text/html, text/html",
    "minimal": JSON + "; charset=utf-8",
}
FORMS = [*IN_HTML, *IN_JSON]


def written(form: str, made: Made) -> tuple[str, bytes]:
    """The Content-Type and the body of the page of *made* in a *form*."""
    if form in IN_JSON:
        return TYPES.get(form, JSON), IN_JSON[form](made).encode()
    return TYPES.get(form, HTML), made.html(*IN_HTML[form]).encode()


#: What uv itself refuses: a Content-Type in capitals or sent twice; or misreads: more than one ``<base>``.
NOT_FOR_UV = ("shouting", "based", "signed")


def links(body: bytes, content_type: str, url: str) -> list[Link]:
    """The distributions on a page, as pip reads it."""
    message = email.message.Message()
    message["content-type"] = content_type
    charset = message.get_param("charset")
    # They take a while to load, and no other test needs them.
    from pip._internal.index.collector import IndexContent, parse_links

    page = IndexContent(body, content_type, str(charset) if charset else None, url, cache_link_parsing=False)
    return [link for link in parse_links(page) if link.filename.endswith(".whl")]


def facts(made: Made, link: Link) -> tuple[Any, ...]:
    """What pip goes by."""
    from pip._internal.utils.hashes import Hashes

    data = {each.filename: each.data for each in made.wheels}[link.filename]
    digests = {name: hashlib.new(name, data, usedforsecurity=False).hexdigest() for name in ("sha256", "md5")}
    stated = [name for name, value in digests.items() if link.is_hash_allowed(Hashes({name: [value]}))]
    metadata = link.metadata_file_data
    return (
        link.filename,
        link.url_without_fragment,
        stated[:1],  # HTML says one
        link.requires_python,
        link.yanked_reason,
        None if metadata is None else metadata.hashes or "some",
    )


@pytest.mark.parametrize("form", FORMS)
def test_pip_reads_the_same_from_what_is_made_of_a_page(form: str) -> None:
    made = Made("demo")
    url = "https://index.example/simple/demo/"
    content_type, body = written(form, made)
    direct = links(body, content_type, url)
    assert len(direct) == 3
    page = parse_page(body, content_type, url, "demo")
    for media in MediaType:
        through = links(render(page, media, lambda file: file.url), media.value, url)
        assert [facts(made, link) for link in through] == [facts(made, link) for link in direct], media
        if media is MediaType.JSON:
            assert [after.upload_time for before, after in zip(direct, through, strict=True) if before.upload_time] == [
                before.upload_time for before in direct if before.upload_time
            ]


class Published:
    """An upstream with a project for each of the forms."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.projects = {f"f{number:03}": form for number, form in enumerate(FORMS)}
        for project, form in self.projects.items():
            made = Made(project, upstream.base)
            upstream.project(project).raw = written(form, made)
            for each in made.wheels:
                upstream.add_path(f"/f/{each.filename}", each.data, "application/octet-stream", ranges=True)
                upstream.add_path(f"/f/{each.filename}.metadata", each.metadata, "application/octet-stream")

    def named(self, *forms: str) -> list[str]:
        return [project for project, form in self.projects.items() if form in forms]


async def chosen(scratch: Scratch, index: str, projects: list[str], *options: str) -> dict[str, str]:
    """The version of each of *projects* that uv chooses."""
    wanted = scratch.folder / "requirements.in"
    wanted.write_text("\n".join(projects), "utf-8")
    ended = await scratch.uv_compile(index, str(wanted), "--no-annotate", "--no-header", *options)
    assert ended.status == 0, ended.output
    return dict(re.findall(r"^(f\d+)==([\d.]+)$", ended.output, re.MULTILINE))


def url_of(proxy: Running) -> str:
    return f"http://127.0.0.1:{proxy.port}/simple/"


@pytest_twisted.ensureDeferred
async def test_pip_reads_the_same_from_the_running_proxy(upstream: FakeUpstream, serve: Start) -> None:
    published = Published(upstream)
    proxy = await serve(upstream)

    def read(project: str, body: bytes, content_type: str, url: str) -> list[tuple[Any, ...]]:
        """All that pip goes by but the URLs, which are the proxy's own, and that there is metadata, which there always is."""
        made = Made(project, upstream.base)
        return [(name, *rest[1:-1]) for name, *rest in (facts(made, link) for link in links(body, content_type, url))]

    for project, form in published.projects.items():
        content_type, body = written(form, Made(project, upstream.base))
        direct = read(project, body, content_type, f"{upstream.url}{project}/")
        assert len(direct) == 3
        for media in MediaType:
            reply = await proxy.get(f"/simple/{project}/", Accept=media.value)
            through = read(project, reply.body, reply.headers["content-type"], f"{url_of(proxy)}{project}/")
            assert through == direct, (form, media)


@pytest_twisted.ensureDeferred
async def test_uv_chooses_the_same_through_the_proxy(upstream: FakeUpstream, serve: Start, tmp_path: Path) -> None:
    published = Published(upstream)
    proxy = await serve(upstream)
    scratch = Scratch(tmp_path)
    through = await chosen(scratch, url_of(proxy), list(published.projects))
    assert set(through) == set(published.projects)
    readable = [project for project, form in published.projects.items() if form not in NOT_FOR_UV]
    assert {name: through[name] for name in readable} == await chosen(scratch, upstream.url, readable)
    assert {through[name] for name in published.named(*NOT_FOR_UV)} == {"2.0"}


@pytest_twisted.ensureDeferred
async def test_uv_excludes_what_is_newer_on_html_pages_that_say_when(
    upstream: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    published = Published(upstream)
    proxy = await serve(upstream)
    scratch = Scratch(tmp_path)
    dated_only = published.named("dated")
    for index in (upstream.url, url_of(proxy)):
        assert await chosen(scratch, index, dated_only, "--exclude-newer", "2024-01-15") == {dated_only[0]: "1.0"}
        assert await chosen(scratch, index, dated_only, "--exclude-newer", "2024-02-15") == {dated_only[0]: "2.0"}
    page = (await proxy.get(f"/simple/{dated_only[0]}/", Accept="text/html")).body
    assert page.count(b'data-upload-time="2024-0') == page.count(b'data-size="') == 3
    assert (await proxy.page(dated_only[0]))["meta"]["api-version"] == "1.1", "all sizes are stated"
