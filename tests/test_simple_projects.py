"""The list of all projects: out of JSON and HTML, into lines, into what clients get."""

from __future__ import annotations

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.names import normalize
from proxy.simple.malformed import Malformed
from proxy.simple.media import MediaType
from proxy.simple.project_list import write_lines
from proxy.simple.projects import lines_of, write_rendering

JSON = "application/vnd.pypi.simple.v1+json"
NAMES = st.lists(st.from_regex(r"\A[A-Za-z0-9](?:[A-Za-z0-9._-]{0,20}[A-Za-z0-9])?\Z"), unique=True, max_size=50)


def taken_in(body: bytes, content_type: str) -> tuple[list[bytes], int | None]:
    out = io.BytesIO()
    serial = write_lines(io.BytesIO(body), content_type, out.write)
    return out.getvalue().splitlines(keepends=True), serial


def rendered(lines: list[bytes], media: MediaType) -> bytes:
    out = io.BytesIO()
    write_rendering(lines, media, out.write)
    return out.getvalue()


def anchors(names: list[str]) -> str:
    return "\n".join(f'<a href="/simple/{normalize(name)}/">{name}</a>' for name in names)


@given(NAMES, st.integers(0, 10**9), st.booleans())
def test_json_comes_out_as_it_went_in(names: list[str], serial: int, meta_last: bool) -> None:
    meta = {"api-version": "1.4", "_last-serial": serial, "_other": {"deep": [1, 2.5]}}
    projects = [{"name": name, "_last-serial": number, "_note": {"a": None}} for number, name in enumerate(names)]
    document = {"projects": projects, "meta": meta} if meta_last else {"meta": meta, "projects": projects}
    lines, stated = taken_in(json.dumps(document).encode(), JSON)
    assert stated == serial
    assert json.loads(rendered(lines, MediaType.JSON)) == document


@given(NAMES)
def test_html_has_a_link_a_project(names: list[str]) -> None:
    page = f'<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head><body>{anchors(names)}</body>'
    lines, _ = taken_in(page.encode(), "text/html")
    found = re.findall(r'<a href="([^"]+)/">([^<]+)</a>', rendered(lines, MediaType.TEXT_HTML).decode())
    assert found == [(normalize(name), name) for name in names]
    assert json.loads(rendered(lines, MediaType.JSON)) == {
        "meta": {"api-version": "1.0"},
        "projects": [{"name": name} for name in names],
    }


def test_html_of_any_length_is_read_piece_by_piece() -> None:
    names = [f"project-{number}" for number in range(30_000)]
    lines, serial = taken_in(f"<html><body>{anchors(names)}</body></html><!--SERIAL 77-->".encode(), "text/html")
    assert (len(lines), serial) == (30_001, 77)
    assert rendered(lines, MediaType.TEXT_HTML).endswith(b"<!--SERIAL 77-->\n")


def test_what_only_other_indexes_promise_is_not_passed_on() -> None:
    document = {"meta": {"api-version": "1.9", "tracks": []}, "projects": []}
    lines, _ = taken_in(json.dumps(document).encode(), JSON)
    assert json.loads(rendered(lines, MediaType.JSON)) == {"meta": {"api-version": "1.4"}, "projects": []}


def test_names_that_no_project_can_have_are_left_out() -> None:
    document = {"meta": {"api-version": "1.0"}, "projects": [{"name": "../up"}, {"name": 7}, "six", {"name": "six"}]}
    lines, _ = taken_in(json.dumps(document).encode(), JSON)
    assert json.loads(rendered(lines, MediaType.JSON))["projects"] == [{"name": "six"}]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", JSON),
        (b'{"meta": {"api-version": "1.0"}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "projects": [{"name": "a"}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "name": "six", "files": []}', JSON),
        (b'{"meta": {"api-version": "2.0"}, "projects": []}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "projects": {}}', JSON),
        (b"[]", JSON),
        (b"<html><form></form></html>", "text/html"),
        (b'<html><a href="/help">Help</a><a href="/login">Sign in</a><a href="/x">y</a></html>', "text/html"),
        (b"<html>" + bytes(3_000_000), "text/html"),
        (b"anything", "text/plain"),
        (b"\x89PNG", ""),
        (b'{"projects": []}', "text/html"),
    ],
    ids=[
        "empty",
        "cut",
        "cut list",
        "a page",
        "another version",
        "no list",
        "no object",
        "form",
        "portal",
        "no end",
        "text",
        "image",
        "JSON as HTML",
    ],
)
def test_what_is_no_list_is_not_believed(body: bytes, content_type: str) -> None:
    with pytest.raises(Malformed):
        taken_in(body, content_type)


@pytest.mark.parametrize(
    ("href", "text", "name"),
    [
        ("blinker/index.html", "blinker", "blinker"),
        ("blinker/index.htm", "blinker", "blinker"),
        ("blinker/index.html", "blinker/index.html", "blinker"),
        ("blinker", "blinker", "blinker"),
        ("./blinker/", "blinker/", "blinker"),
        (" blinker/\n", "\n  blinker  \n", "blinker"),
        ("https://index.example/simple/blinker/", "Blinker", "Blinker"),
        ("//index.example/simple/blinker", "blinker", "blinker"),
        ("/simple/zope-interface/", "zope.interface", "zope.interface"),
        ("/simple/Zope.Interface/", "zope_interface", "zope_interface"),
        ("/simple/zope&#46;interface/", "zope&period;interface", "zope.interface"),
        ("zope%2Einterface/", "zope.interface", "zope.interface"),
        ("blinker/?from=list#top", "blinker", "blinker"),
        ("a-very-long-name-of-a-project/", "a-very-long-nam..&gt;", "a-very-long-name-of-a-project"),
    ],
)
def test_a_link_of_the_list_is_read_as_generators_write_it(href: str, text: str, name: str) -> None:
    for content_type in ("text/html", "", "text/html, text/html"):
        lines, _ = taken_in(f'<!DOCTYPE html><title>x</title><A HREF="{href}">{text}</A>'.encode(), content_type)
        assert json.loads(rendered(lines, MediaType.JSON))["projects"] == [{"name": name}]


def test_a_web_servers_listing_of_folders_is_a_list_of_projects() -> None:
    columns = "".join(f'<a href="?C={each};O=A">{each}</a>' for each in "NMSD")
    up = '<a href="../">../</a><a href="/">Parent Directory</a><a href="index.html">index.html</a>'
    lines, _ = taken_in(f'<h1>Index of /simple</h1>{columns}{up}<a href="six/">six/</a>'.encode(), "text/html")
    assert json.loads(rendered(lines, MediaType.JSON))["projects"] == [{"name": "six"}]


@pytest.mark.parametrize(
    "meta", [{}, {"meta": None}, {"meta": {}}, {"meta": {"api-version": 1}}, {"meta": {"api-version": 1.0}}]
)
@pytest.mark.parametrize("content_type", ["", JSON, "application/octet-stream", "application/json"])
def test_json_that_hardly_says_what_it_is(meta: dict[str, object], content_type: str) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({**meta, "projects": [None, 1, {"name": "six"}]}).encode()
    lines, _ = taken_in(body, content_type)
    assert json.loads(rendered(lines, MediaType.JSON)) == {"meta": {"api-version": "1.0"}, "projects": [{"name": "six"}]}


def test_a_list_of_names_alone() -> None:
    assert json.loads(rendered(lines_of(["a", "b"]).splitlines(keepends=True), MediaType.JSON)) == {
        "meta": {"api-version": "1.0"},
        "projects": [{"name": "a"}, {"name": "b"}],
    }
