"""Project pages as upstreams send them: what is believed, what is mended, what is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.model import DIGEST_LENGTHS, EMPTY, IMPOSSIBLE, File, Page
from proxy.simple import mend
from proxy.simple.parse import Malformed, is_whole, parse_page, settled_type

URL = "https://index.example/simple/foo/"
JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html; charset=utf-8"
SHA = "ab" * 32
META = '<meta name="pypi:repository-version" content="1.0">'


def from_json(*files: Any, **keys: Any) -> Page:
    document = {"meta": {"api-version": "1.1"}, "name": "foo", "files": list(files), **keys}
    return parse_page(json.dumps(document).encode(), JSON, URL, "foo")


def entry(**keys: Any) -> File:
    """The file that this entry parses to."""
    [file] = from_json({"filename": "foo-1.0.tar.gz", "url": "foo-1.0.tar.gz", "hashes": {}, **keys}).files
    return file


def from_html(text: str, content_type: str = HTML, project: str = "foo", url: str = URL) -> Page:
    return parse_page(text.encode(), content_type, url, project)


def anchor(attributes: str, href: str = "foo-1.0.tar.gz") -> File:
    [file] = from_html(f'<a href="{href}" {attributes}>foo-1.0.tar.gz</a>').files
    return file


#: Entries as most are, and values that make others of them.
PLAIN_ENTRY = {
    "filename": "foo-1.0-py3-none-any.whl",
    "url": "https://files.example/packages/ab/foo-1.0-py3-none-any.whl",
    "hashes": {"sha256": SHA},
    "requires-python": ">=3.8",
    "size": 10,
    "upload-time": "2024-01-02T03:04:05.678901Z",
    "yanked": False,
    "core-metadata": {"sha256": SHA},
    "provenance": None,
}
ABSENT = object()
_NAMES = (
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "foo-1.0+local.tar.gz",
    "foo 1.tar.gz",
    "fo\u00f6.whl",
    "f" * 255,
    "f" * 256,
    "a%2Fb",
    7,
)
_URLS = (
    *("https://h/a//foo", "https://h/./foo", "https://h/.foo", "https://h/foo/", "https://h", "ftp://h/foo", "HTTPS://h/foo"),
    *("https://h:99999/foo", "https://h:80/foo", "https://u:p@h/foo", "https://h/foo?x", "https://h/foo#sha256=" + SHA, "foo"),
    *("https://h/a b/foo", "https://h/a+b/foo", "https://h/%41/foo", "https://h/\u00f6/foo", "//h/foo", "https://h/foo\n"),
)
_DIGESTS: tuple[object, ...] = (
    *({}, None, [], True, False, {"sha256": ""}, {"sha256": SHA.upper()}, {"sha256": SHA[:-1]}, {"sha256": SHA[:-2] + " a"}),
    *({"sha256": "zz" * 32}, {"sha256": 7}, {"md5": "0" * 32}, {"sha256": SHA, "md5": "0" * 32}, {"SHA256": SHA}),
    *({"sha256": SHA + SHA}, {"sha256": "\u0661" * 64}, {"sha256": f" {SHA} "}),
)
_TIMES = (
    *("2024-01-02T03:04:05Z", "2024-01-02T03:04:05.6Z", "2024-02-30T03:04:05.678901Z", "2024-01-02T25:04:05.678901Z", "", 7),
    *(
        "2024-01-02 03:04:05.678901Z",
        "2024-01-02T03:04:05,678901Z",
        "2024-W01-1T03:04:05.678901Z",
        "2024-01-02T03:04:05.678901",
    ),
    *("2024-01-02T03:04:05.678901+00:00", "2024-01-02T03:04:05.67890\u0661Z", "20240102T030405.678901Z"),
)
_VALUES: dict[str, tuple[object, ...]] = {
    "hashes": _DIGESTS,
    "core-metadata": _DIGESTS,
    "dist-info-metadata": _DIGESTS,
    "data-dist-info-metadata": _DIGESTS,
    "requires-python": ("", ">=3.8, <4", ">=3.9.*", "nonsense", " ", None, 3, ">=3.8 "),
    "size": (0, -1, 10.0, 10.5, "10", True, None, 2**63 - 1, 2**63, 10**30),
    "upload-time": (*_TIMES, None),
    "yanked": (True, "", "broken", None, 0, 1, ["x"]),
    "provenance": ("", "https://index.example/p", "http://index.example/p", "https://" + "p" * 9000, 7),
    "gpg-sig": (True, False, "x"),
    "filename": _NAMES,
    "url": _URLS,
}


@st.composite
def nearly_plain(draw: st.DrawFn) -> dict[str, Any]:
    """An entry in which a few values are others, or missing."""
    made: dict[str, Any] = dict(PLAIN_ENTRY)
    for key in draw(st.lists(st.sampled_from(sorted(_VALUES)), max_size=3, unique=True)):
        made[key] = draw(st.sampled_from((*_VALUES[key], ABSENT)))
    if draw(st.booleans()) and isinstance(made["url"], str) and isinstance(made["filename"], str):
        made["url"] = f"{made['url'].rpartition('/')[0]}/{made['filename']}"
    return {key: value for key, value in made.items() if value is not ABSENT}


@given(st.lists(st.just(PLAIN_ENTRY) | nearly_plain(), max_size=5))
def test_an_entry_is_read_alike_whatever_stands_beside_it(entries: list[dict[str, Any]]) -> None:
    alone = [from_json(each) for each in entries]
    page = from_json(*entries)
    assert list(page.files) == [file for each in alone for file in each.files]
    assert list(page.unverifiable) == [file for each in alone for file in each.unverifiable]


def test_two_entries_do_not_make_up_for_each_other() -> None:
    longer = {**PLAIN_ENTRY, "hashes": {"sha256": SHA + "ab"}}
    shorter = {**PLAIN_ENTRY, "hashes": {"sha256": SHA[2:]}}
    two_lines = {**PLAIN_ENTRY, "url": f"https://a.example/b\n{PLAIN_ENTRY['url']}"}
    for entries in ([longer, shorter], [two_lines], [PLAIN_ENTRY, two_lines]):
        page, alone = from_json(*entries), [from_json(each) for each in entries]
        assert list(page.files) == [file for each in alone for file in each.files]


@given(nearly_plain())
@example(dict(PLAIN_ENTRY))
def test_an_entry_without_anything_to_mend_is_the_same_file_as_one_that_is_mended(stated: dict[str, Any]) -> None:
    # What nobody knows is passed on, and such an entry is looked at value by value.
    mended = from_json({**stated, "unknown": 1})
    plain = from_json(stated)
    assert [replace(file, extra=EMPTY) for file in mended.files] == list(plain.files)
    assert [replace(file, extra=EMPTY) for file in mended.unverifiable] == list(plain.unverifiable)


_AT_THE_TOP: dict[str, tuple[Any, ...]] = {
    "meta": (
        {"api-version": "1.4", "_last-serial": 7},
        {"api-version": "1.1", "future": [1]},
        {},
        None,
        "x",
        {"api-version": "2.0"},
    ),
    "name": ("foo", "Foo", "bar", None, 7),
    "versions": (["1.0"], [], ["1.0", "x" * 5000], [1], "1.0", None),
    "project-status": ({"status": "archived", "reason": 7}, {"reason": "x"}, "archived", None),
    "tracks": (["https://index.example/foo/"],),
}


def read_or_refused(document: dict[str, Any]) -> Page | str:
    try:
        return parse_page(json.dumps(document).encode(), JSON, URL, "foo")
    except Malformed as error:
        return str(error)


@given(
    st.lists(st.just(PLAIN_ENTRY) | nearly_plain(), max_size=4),
    st.lists(st.sampled_from([(key, value) for key, values in _AT_THE_TOP.items() for value in (*values, ABSENT)]), max_size=4),
)
def test_a_page_is_read_alike_whether_it_has_more_than_most_or_not(
    entries: list[dict[str, Any]], changes: list[tuple[str, Any]]
) -> None:
    document: dict[str, Any] = {
        "meta": {"api-version": "1.4"},
        "name": "foo",
        "files": entries,
        "versions": ["1.0"],
        **dict(changes),
    }
    document = {key: value for key, value in document.items() if value is not ABSENT}
    plain, other = read_or_refused(document), read_or_refused({**document, "unknown": 1})
    assert plain == (replace(other, extra=EMPTY) if isinstance(other, Page) else other)


# -- JSON -------------------------------------------------------------------------------------------------------------------


def test_a_json_page_keeps_all_that_it_says() -> None:
    page = from_json(
        {
            "filename": "Foo-1.0-py3-none-any.whl",
            "url": "https://files.example/x/Foo-1.0-py3-none-any.whl",
            "hashes": {"sha256": SHA.upper(), "md5": "0" * 32},
            "requires-python": ">=3.8",
            "size": 10,
            "upload-time": "2024-01-02T03:04:05.678900Z",
            "yanked": "broken",
            "core-metadata": {"sha256": SHA},
            "data-dist-info-metadata": {"sha256": SHA},
            "provenance": "https://index.example/p",
            "gpg-sig": True,
            "future": {"a": [1, 2.5, None]},
        },
        meta={"api-version": "1.4", "_last-serial": 7, "future": 1},
        name="Foo",
        versions=["1.0"],
        news=[{"a": 1}, "b"],
        **{"project-status": {"status": "archived", "reason": "old"}},
    )
    assert page == Page(
        "foo",
        (
            File(
                "Foo-1.0-py3-none-any.whl",
                "https://files.example/x/Foo-1.0-py3-none-any.whl",
                {"sha256": SHA, "md5": "0" * 32},
                ">=3.8",
                10,
                "2024-01-02T03:04:05.678900Z",
                "broken",
                {"sha256": SHA},
                "https://index.example/p",
                {"future": {"a": [1, 2.5, None]}},
            ),
        ),
        (1, 4),
        ("1.0",),
        {"status": "archived", "reason": "old"},
        {"news": [{"a": 1}, "b"]},
        {"_last-serial": 7, "future": 1},
    )


@pytest.mark.parametrize(
    ("key", "sent", "mended"),
    [
        ("size", None, None),
        ("size", "123", 123),
        ("size", "12 kB", None),
        ("size", "", None),
        ("size", -1, None),
        ("size", True, None),
        ("size", 1.5, None),
        ("size", 2**63, None),
        ("size", "9" * 5000, None),
        ("upload-time", "", None),
        ("upload-time", "yesterday", None),
        ("upload-time", "2024-02-30T00:00:00Z", None),
        ("upload-time", 5, None),
        ("upload-time", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("upload-time", "2024-01-02 03:04:05", "2024-01-02T03:04:05Z"),
        ("upload-time", "2024-01-02T03:04:05.5+02:00", "2024-01-02T01:04:05.500000Z"),
        ("upload-time", "0001-01-01T00:00:00+05:00", None),
        ("yanked", "", False),
        ("yanked", None, False),
        ("yanked", True, True),
        ("yanked", "why", "why"),
        ("requires-python", "", None),
        ("requires-python", ">=3.8,", ">=3.8"),
        ("requires-python", ">=3.8.*", ">=3.8"),
        ("requires-python", ">= three", None),
        ("requires-python", None, None),
        ("requires-python", ["3"], None),
        ("core-metadata", "yes", None),
        ("core-metadata", None, None),
        ("core-metadata", False, False),
        ("core-metadata", {}, True),
        ("core-metadata", {"sha256": "short"}, None),
        ("core-metadata", {"sha256": SHA[:40], "md5": "0" * 32}, {"md5": "0" * 32}),
        ("core-metadata", {"sha256": None}, None),
        ("core-metadata", {"blake3": "ab"}, {"blake3": "ab"}),
        ("core-metadata", "sha256=" + SHA, None),
        ("data-dist-info-metadata", {"sha256": SHA}, {"sha256": SHA}),
        ("dist-info-metadata", True, True),
        ("provenance", None, None),
        ("provenance", "/relative", None),
        ("provenance", "http://index.example/p", None),
        ("hashes", None, {}),
        ("hashes", {"sha256": SHA, "md5": SHA}, {"sha256": SHA}),
        ("hashes", {"sha256": SHA, "md5": None}, {"sha256": SHA}),
        ("hashes", {"SHA256": SHA.upper()}, {"sha256": SHA}),
        ("hashes", {"sha256": "ab", "sha512": 5, "md5": "z" * 32, "sha1": "A" * 40}, {"sha1": "a" * 40}),
        ("hashes", {"sha999": "abcd"}, {"sha999": "abcd"}),
    ],
)
def test_one_bad_value_is_mended_and_costs_nothing_else(key: str, sent: object, mended: object) -> None:
    names = {"data-dist-info-metadata": "core_metadata", "dist-info-metadata": "core_metadata"}
    assert getattr(entry(**{key: sent}), names.get(key, key.replace("-", "_"))) == mended


def test_core_metadata_goes_before_its_older_names_unless_it_says_nothing() -> None:
    assert entry(**{"core-metadata": False, "data-dist-info-metadata": True}).core_metadata is False
    assert entry(**{"core-metadata": None, "data-dist-info-metadata": True}).core_metadata is True


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"filename": "a.zip"},
        {"url": "a.zip"},
        {"filename": "../a", "url": "a"},
        {"filename": "", "url": "a"},
        {"filename": "a.zip", "url": ""},
        {"filename": 1, "url": "a"},
        {"filename": "a", "url": "javascript:1"},
    ],
)
def test_an_entry_that_no_client_could_use_is_dropped_and_the_rest_kept(bad: dict[str, Any]) -> None:
    assert [file.filename for file in from_json(bad, {"filename": "b.zip", "url": "x?f=1"}).files] == ["b.zip"]


def test_rejected_and_promised_keys_are_dropped() -> None:
    page = from_json(**{"alternate-locations": [], "namespaces": [], "meta": {"api-version": "1.2", "tracks": []}})
    assert (page.extra, page.meta_extra) == ({}, {})


@pytest.mark.parametrize(
    "keys",
    [
        {"meta": {"api-version": "2.0"}},
        {"meta": {"api-version": 2}},
        {"meta": {"api-version": 2.5}},
        {"meta": {"api-version": "0.9"}},
        {"name": "bar"},
        {"meta": None, "name": None},
        {"files": None},
        {"files": {}},
        {"files": ["a.zip"]},
        {"files": [None]},
    ],
)
def test_json_that_is_no_page_of_this_project_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        from_json(**keys)


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        (1, 0),
        (1.0, 0),
        (1.1, 1),
        (1.99, 99),
        ("1", 0),
        ("1.99", 99),
        (" 1.2 ", 2),
        ("1.0.0", 0),
        (None, 0),
        (True, 0),
        ("", 0),
        ({}, 0),
    ],
)
def test_a_version_is_read_however_it_is_written(stated: object, version: int) -> None:
    assert from_json(meta={"api-version": stated}).api_version == (1, version)


@pytest.mark.parametrize("keys", [{"meta": None}, {"meta": {}}, {"name": None}, {"name": 7}, {"meta": []}])
def test_a_page_need_not_say_what_clients_do_not_read(keys: dict[str, Any]) -> None:
    assert from_json(**keys).project == "foo"
    file = {"filename": "foo-1.0.zip", "url": "foo-1.0.zip"}
    assert len(from_json(file, **{"meta": None, "name": None, **keys}).files) == 1


@pytest.mark.parametrize("bad", [None, 7, 1.5, "foo-1.0.zip", True, [], ["foo-1.0.zip"]])
def test_an_entry_that_is_no_object_costs_no_other_its_place(bad: object) -> None:
    assert [file.filename for file in from_json(bad, {"filename": "b.zip", "url": "b.zip"}, bad).files] == ["b.zip"]


@pytest.mark.parametrize(
    "body", [b"", b" \n", b"{", b"[]", b"null", b"<html>", b'{"a": "\xff"}', b'{"a":' * 5000, b"[" * 10**5]
)
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_page(body, JSON, URL, "foo")


def test_a_json_page_cut_off_anywhere_is_refused() -> None:
    body = json.dumps({"meta": {"api-version": "1.0"}, "name": "foo", "files": [{"filename": "a", "url": "b"}]}).encode()
    assert parse_page(body, JSON, URL, "foo").files
    for length in range(len(body)):
        with pytest.raises(Malformed):
            parse_page(body[:length], JSON, URL, "foo")


UNCLEAR = ["", "application/octet-stream", "text/plain; charset=utf-8", "binary/octet-stream", "text/html, application/json"]


def test_a_static_mirror_that_knows_no_media_type_is_understood() -> None:
    body = b'{"meta": {"api-version": "1.0"}, "name": "foo", "files": []}'
    for content_type in (
        *UNCLEAR,
        "application/json",
        "application/vnd.pypi.simple.latest+json",
        "application/json, application/json",
    ):
        for mark in (b"", b"\xef\xbb\xbf", b" \n"):
            assert parse_page(mark + body, content_type, URL, "foo") == Page("foo", ())
        for wide in ("utf-16", "utf-16-be"):
            marked = body.decode().encode(wide) if wide == "utf-16" else b"\xfe\xff" + body.decode().encode(wide)
            assert parse_page(marked, content_type, URL, "foo") == Page("foo", ())
    for content_type in (*UNCLEAR, "text/html, text/html", 'TEXT/HTML;CHARSET="utf-8";'):
        assert from_html(META, content_type) == Page("foo", ())


@pytest.mark.parametrize(
    ("body", "content_type", "settled"),
    [
        (b"<p>", "", "text/html"),
        (b"\xef\xbb\xbf <p>", "text/plain", "text/html"),
        (b"{}", "application/octet-stream", "application/json"),
        (b"<p>", "text/html; charset=latin-1", "text/html; charset=latin-1"),
        (b"{}", JSON, JSON),
        (b"\x89PNG", "image/png", "image/png"),
    ],
)
def test_a_page_is_kept_under_the_type_that_it_is_of(body: bytes, content_type: str, settled: str) -> None:
    assert settled_type(body, content_type) == settled


def test_another_content_type_is_refused() -> None:
    for content_type in ("image/png", "application/vnd.pypi.simple.v2+json", "text/css"):
        with pytest.raises(Malformed):
            from_html(META, content_type)


def test_json_under_the_name_of_html_is_refused_and_the_other_way_round() -> None:
    with pytest.raises(Malformed):
        parse_page(b'{"meta": {"api-version": "1.0"}, "name": "foo", "files": []}', HTML, URL, "foo")
    with pytest.raises(Malformed):
        from_html(META, JSON)


# -- HTML -------------------------------------------------------------------------------------------------------------------


def test_an_html_page_keeps_all_that_it_says() -> None:
    page = from_html(
        f"""<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.4">
        <meta name="pypi:project-status" content="deprecated"><meta name="pypi:project-status-reason" content="a &lt; b">
        <title>Links for foo</title></head><body><h1>Links for foo</h1>
        <a href="https://files.example/foo-1.0-py3-none-any.whl#sha256={SHA.upper()}" data-requires-python="&gt;=3.8"
        data-yanked="broken &amp; bad" data-core-metadata="sha256={SHA}" data-dist-info-metadata="true" data-gpg-sig="false"
        data-provenance="https://index.example/p">foo-1.0-py3-none-any.whl</a><br></body></html><!--SERIAL 12-->"""
    )
    assert page == Page(
        "foo",
        (
            File(
                "foo-1.0-py3-none-any.whl",
                "https://files.example/foo-1.0-py3-none-any.whl",
                {"sha256": SHA},
                ">=3.8",
                yanked="broken & bad",
                core_metadata={"sha256": SHA},
                provenance="https://index.example/p",
            ),
        ),
        status={"status": "deprecated", "reason": "a < b"},
        meta_extra={"_last-serial": 12},
    )


@pytest.mark.parametrize(
    ("attributes", "name", "value"),
    [
        ("data-yanked", "yanked", True),
        ('data-yanked=""', "yanked", True),
        ("", "yanked", False),
        ('data-requires-python=""', "requires_python", None),
        ('data-core-metadata="true"', "core_metadata", True),
        ('data-core-metadata="false"', "core_metadata", False),
        ('data-core-metadata=""', "core_metadata", None),
        ('data-core-metadata="sha256=x"', "core_metadata", None),
        (f'data-core-metadata="md5={SHA}"', "core_metadata", None),
        ('data-core-metadata="sha256="', "core_metadata", None),
        (f'data-core-metadata="SHA256={SHA.upper()}"', "core_metadata", {"sha256": SHA}),
        ('data-dist-info-metadata="true"', "core_metadata", True),
        ("", "size", None),
        ('data-size="123"', "size", 123),
        ('data-size="1.2 kB"', "size", None),
        ("data-size", "size", None),
        ('data-upload-time="2024-01-02T03:04:05Z"', "upload_time", "2024-01-02T03:04:05Z"),
        ('data-upload-time="2024-01-02T03:04:05.5+00:00"', "upload_time", "2024-01-02T03:04:05.500000Z"),
        ('data-upload-time="2024-01-02 03:04"', "upload_time", "2024-01-02T03:04:00Z"),
        ('data-upload-time="yesterday"', "upload_time", None),
        ("data-upload-time", "upload_time", None),
        ('data-News="a &amp; b" data-empty onclick="x" data-yanked', "extra", {"data-news": "a & b", "data-empty": ""}),
        ('data-="x" data-é="y" DATA-A.B=z', "extra", {"data-a.b": "z"}),
        ("rel=internal class=x", "extra", {}),
        ('data-long="' + "x" * 1001 + '"', "extra", {}),
        (" ".join(f"data-n{number}=x" for number in range(99)), "extra", {f"data-n{number}": "x" for number in range(20)}),
    ],
)
def test_an_anchors_attributes_are_read(attributes: str, name: str, value: object) -> None:
    assert getattr(anchor(attributes), name) == value


@pytest.mark.parametrize(
    ("fragment", "hashes"),
    [
        ("", {}),
        ("#sha256=" + SHA, {"sha256": SHA}),
        ("#md5=" + "0" * 32, {"md5": "0" * 32}),
        ("#egg=foo&amp;sha1=" + "0" * 40, {"sha1": "0" * 40}),
        ("#sha256", {}),
        ("#egg=foo", {}),
        ("#blake3=" + SHA, {}),
        ("#sha256-" + SHA, {}),
        ("#SHA256=" + SHA.upper(), {"sha256": SHA}),
        ("#sha256%3D" + SHA, {"sha256": SHA}),
        ("#sha256=%61" + SHA[1:], {"sha256": SHA}),
        ("#egg=foo%26sha256%3d" + SHA, {"sha256": SHA}),
        ("#egg=foo#sha256=" + SHA, {"sha256": SHA}),
        ("# sha256 = " + SHA + " ", {"sha256": SHA}),
        (f"#sha256={SHA}&amp;sha256=short", {"sha256": SHA}),
        (f"#sha256={SHA[:40]}&amp;md5={'0' * 32}", {"md5": "0" * 32}),
        (f"#md5={'0' * 32}&amp;sha256={SHA[:40]}", {"md5": "0" * 32}),
        (f"#sha3_512={SHA}{SHA}", {"sha3_512": SHA + SHA}),
    ],
)
def test_digests_come_from_the_fragment(fragment: str, hashes: dict[str, str]) -> None:
    file = anchor("", "foo-1.0.tar.gz" + fragment)
    assert (file.hashes, file.url) == (hashes, URL + "foo-1.0.tar.gz")


NO_DIGESTS = [SHA[:40], SHA + "aa", "z" * 64, "", "0x" + SHA[2:], SHA[:63] + "\u0663"]


@pytest.mark.parametrize("digest", NO_DIGESTS)
@pytest.mark.parametrize("way", ["json", "html", "encoded", "json url"])
def test_a_file_whose_only_digest_cannot_be_one_is_told_apart(digest: str, way: str) -> None:
    name = "foo-1.0.tar.gz"
    page = {
        "json": lambda: from_json({"filename": name, "url": name, "hashes": {"sha256": digest}}),
        "json url": lambda: from_json({"filename": name, "url": f"{name}#sha256={digest}", "hashes": {}}),
        "html": lambda: from_html(f'<a href="{name}#sha256={digest}">{name}</a>'),
        "encoded": lambda: from_html(f'<a href="{name}#sha256%3D{digest}">{name}</a>'),
    }[way]()
    assert (page.files, [file.filename for file in page.unverifiable]) == ((), [name])


@pytest.mark.parametrize(
    "hashes", [{"md5": SHA}, {"sha256": 5}, {"sha256": [SHA]}, {"sha256": None}, {"sha256": " " + SHA}, [], [SHA], SHA, 5, True]
)
def test_hashes_that_are_none_are_not_taken_for_nothing(hashes: object) -> None:
    page = from_json({"filename": "foo-1.0.zip", "url": "foo-1.0.zip", "hashes": hashes}, {"filename": "b.zip", "url": "b.zip"})
    assert ([file.filename for file in page.files], len(page.unverifiable)) == (["b.zip"], 1)


def test_a_digest_in_the_url_of_a_json_entry_counts_as_for_pip() -> None:
    assert entry(url=f"foo-1.0.tar.gz#sha256={SHA}").hashes == {"sha256": SHA}
    assert entry(url=f"foo-1.0.tar.gz#md5={'0' * 32}", hashes={"sha256": SHA}).hashes == {"sha256": SHA, "md5": "0" * 32}


@given(st.dictionaries(st.sampled_from([*DIGEST_LENGTHS, "blake3", "SHA256", ""]), st.text("0aF%g", max_size=130), max_size=3))
def test_what_is_left_of_stated_digests_can_be_what_it_says_or_the_file_is_told_apart(hashes: dict[str, str]) -> None:
    name = "foo-1.0.zip"
    page = from_json({"filename": name, "url": name, "hashes": hashes})
    assert len(page.files) + len(page.unverifiable) == 1
    for file in page.files:
        known = {each.lower() for each in hashes} & DIGEST_LENGTHS.keys()
        assert (file.digest is None) == (not known)
        for algorithm, value in file.hashes.items():
            assert int(value, 16) >= 0
            assert len(value) == DIGEST_LENGTHS.get(algorithm, len(value))


@given(st.text(), st.sampled_from(["sha256", "md5", "sha3_256"]))
def test_a_fragment_is_a_digest_that_can_be_one_or_none_or_the_file_is_told_apart(text: str, algorithm: str) -> None:
    found = mend.digests(mend.fragment(f"{algorithm}={text}"))
    assert found is IMPOSSIBLE or len(found[algorithm]) == DIGEST_LENGTHS[algorithm]


def test_links_are_relative_to_the_base_that_the_page_states() -> None:
    page = from_html(
        '<base href="//files.example/f/"><a href="foo-1.zip">x</a><base href="/no/"><a href="../foo-2.zip?s=1">y</a>'
    )
    assert [file.url for file in page.files] == ["https://files.example/f/foo-1.zip", "https://files.example/foo-2.zip?s=1"]


def test_a_base_that_is_none_is_ignored() -> None:
    assert from_html('<base href="javascript:1"><a href="foo-1.zip">x</a>').files[0].url == URL + "foo-1.zip"


def test_a_file_name_is_decoded_from_the_url() -> None:
    assert anchor("", "https://files.example/whl/foo-1.0%2Bcpu-py3-none-any.whl").filename == "foo-1.0+cpu-py3-none-any.whl"


def test_what_hides_a_slash_in_a_file_name_is_dropped() -> None:
    assert from_html(META + '<a href="a%2F..%2Ffoo-1.zip">a</a>').files == ()


def test_a_directory_listing_is_read_without_its_other_links() -> None:
    page = from_html(
        '<title>Index of /simple/foo</title><a href="?C=N;O=D">Name</a><a href="../">Parent</a><a href="/">home</a>'
        '<a href="foo-1.0.tar.gz">f</a><a href="foo-1.0.tar.gz.asc">s</a><a name="x">n</a><a href="FOO-2.ZIP">g</a>'
        '<a href="https://foo.example/">home page</a><a href="foo-1.0-py3-none-any.whl.metadata">m</a>'
    )
    assert [file.filename for file in page.files] == ["foo-1.0.tar.gz", "FOO-2.ZIP"]


def test_another_charset_is_understood_and_an_unknown_one_does_no_harm() -> None:
    text = f'{META}<a href="foo-1.zip" data-yanked="é">x</a>'
    assert parse_page(text.encode("latin-1"), "text/html; charset=iso-8859-1", URL, "foo").files[0].yanked == "é"
    assert parse_page(('<meta charset="latin-1">' + text).encode("latin-1"), "text/html", URL, "foo").files[0].yanked == "é"
    for charset in ("nonsense", "zip", "idna", "undefined", "utf-8", "rot13", "utf-16", "utf-7", "cp037", "unicode_escape"):
        for page in (from_html(text, f"text/html; charset={charset}"), from_html(f'<meta charset="{charset}">' + text)):
            assert [(file.url, file.yanked) for file in page.files] == [(URL + "foo-1.zip", "é")], charset


@pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_byte_order_mark_says_the_charset_whatever_else_does(charset: str) -> None:
    text = f'<html>{META}<meta charset="iso-8859-1"><a href="foo-1.zip" data-yanked="é">x</a>'
    mark = "" if charset in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    for content_type in ("text/html", "", "text/html; charset=iso-8859-1"):
        assert parse_page((mark + text).encode(charset), content_type, URL, "foo").files[0].yanked == "é"
    if not mark:
        return
    assert parse_page(text.encode(charset), f"text/html; charset={charset}", URL, "foo").files[0].yanked == "é"


@pytest.mark.parametrize("charset", ["windows-1252", "shift_jis", "utf-16", "iso-8859-8", "charmap"])
def test_a_charset_that_most_of_the_bytes_contradict_is_passed_over(charset: str) -> None:
    body = f'{META}<a href="foo-1.zip" data-yanked="é">x</a>'.encode() + b"\x81\xff" * 20_000
    assert parse_page(body, f"text/html; charset={charset}", URL, "foo").files[0].yanked == "é"


def test_bytes_that_are_no_text_cost_only_themselves() -> None:
    body = f'{META}<a href="foo-1.zip" data-yanked="caf\xe9">x</a><a href="foo-2.zip">y</a>'.encode("latin-1")
    assert [file.yanked for file in parse_page(body, "text/html", URL, "foo").files] == ["caf\ufffd", False]


@pytest.mark.parametrize(
    "text",
    [
        "<A HREF=foo-1.zip DATA-YANKED=>x</A>",
        "<a\n href = 'foo-1.zip'\tdata-yanked>x</a>",
        '<a href=" foo-1.zip\n" data-yanked="">x</a>',
        '<a href="foo-\n1.zip" data-yanked>x</a>',
        "<a href='foo-1.zip' data-yanked><a href='foo-1.tar.bz3'>nested</a></a>",
        "<!-- <a href='no-1.zip'>x</a> --><a href=foo-1.zip data-yanked>x</a><!-- <base href='/no/'> -->",
        "<body><a data-yanked href=foo-1.zip>x</a><base href='https://index.example/simple/foo/'><base href='/no/'></body>",
        "<base target=_blank><base href=./><a href=foo-1.zip data-yanked>x</a>",
        "<a href='foo-1.zip' data-yanked href='no-2.zip'>x</a>",
        "<a href='foo&#45;1&period;zip' data-yanked='&#x20;'>x</a>",
        "<table><tr><td><a href=foo-1.zip data-yanked>x",
    ],
)
def test_html_is_read_as_browsers_read_it(text: str) -> None:
    [file] = from_html(text).files
    assert (file.filename, file.url, str(file.yanked).strip()) == (
        "foo-1.zip",
        URL + "foo-1.zip",
        "" if file.yanked == " " else "True",
    )


@pytest.mark.parametrize(
    "text",
    [
        "<html><body><h1>Links for foo</h1></body></html>",
        "<title>Links for Foo</title><h1>Links for Foo</h1>",
        "<html><head><title>root/dev: links for foo</title></head><body></body></html>",
        "<title>Links for foo</title><h1>Links for foo</h1><a href='/'>home</a>",
        f"<html><head>{META}</head><body></body></html>",
    ],
)
def test_an_empty_page_is_believed_when_it_says_what_it_is(text: str) -> None:
    assert from_html(text).files == ()


#: How web servers list a folder with an index.html, with nothing, or with what is no distribution.
TITLES = {
    "nginx, lighttpd": "Index of /simple/foo/",
    "Apache": "Index of /simple/foo",
    "Caddy, darkhttpd": "/simple/foo/",
    "Python": "Directory listing for /simple/foo/",
    "Jetty": "Directory: /simple/foo/",
    "Tomcat": "Directory Listing For [/simple/foo/]",
    "IIS": "index.example - /simple/foo/",
    "Node": "listing directory /simple/foo/",
}
ROWS = {
    "nothing": "",
    "the folder above": '<a href="../">../</a>',
    "an index.html": '<a href="../">../</a>\n<a href="index.html">index.html</a>   01-Jan-2024 10:00   512\n',
    "columns": '<a href="?C=N;O=D">Name</a><a href="/simple/">Parent Directory</a><a href="index.html">index.html</a>',
    "what is no distribution": '<a href="foo-1.0-py3-none-any.whl.metadata">m</a><a href="README">r</a><a href="1.0/">1</a>',
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES)
def test_a_listing_of_a_folder_without_a_distribution_is_no_empty_project(title: str, rows: str) -> None:
    text = f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr><pre>{rows}</pre></body></html>"
    with pytest.raises(Malformed, match="listing of a folder"):
        from_html(text)
    assert [file.filename for file in from_html(text + "<a href='foo-1.0.zip'>foo</a>").files] == ["foo-1.0.zip"]
    assert from_html(META + text).files == (), "an index states its version"
    with pytest.raises(Malformed):
        from_html("<title>Links for foo</title>" + text.replace("title>", "b>"))


@pytest.mark.parametrize(
    "text",
    [
        "Bad Gateway",
        "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>",
        "<html><body></body></html>",
        "<title>Welcome</title><form action='/login'><input name=user></form>",
        "<title>Links for foo</title><form action='/login'></form>",
        "<title>Links for foo</title><script>location='/login'</script>",
        "<h1>Links for bar</h1>",
        "<title>Index of /</title>",
        "<title>Hotel</title><p>Get online with <a href='/setup.exe'>our tool</a> or <a href='/client.zip'>this</a>",
        '<meta name="pypi:repository-version" content="2.0"><a href="foo-1.0.zip">f</a>',
        '<meta name="pypi:repository-version" content="soon">',
    ],
)
def test_html_that_is_no_project_page_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        from_html(text)


LINKS = "<!DOCTYPE html><title>Links for foo</title>" + "".join(
    f"<a href='foo-{n}.zip'>foo-{n}.zip</a><br/>\n" for n in range(3)
)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("<html><body></body></html>", True),
        ("<html><body></BODY >\n", True),
        ("<html></html>\n<!--SERIAL 5-->\n", True),
        (LINKS, True),
        (LINKS.rstrip(), True),
        (LINKS + "<!-- made by hand -->", True),
        (LINKS + "3 files", True),
        ("<html><body><a href='x'>x</a>", True),
        ("<ul>" + "<li><a href='x'>x</a>" * 3 + "</ul>", True),
        ("<a href=x data-requires-python='>=3'>x</a>", True),
        (LINKS.rstrip().removesuffix("<br/>"), False),
        (LINKS[:-2], False),
        (LINKS + "<a href='foo-3.zip' data-requires-python='>", False),
        (LINKS + "<a href='foo-3.zip'>foo", False),
        (LINKS + "<!-- made by", False),
        (LINKS + "caf&eacut", False),
        ("<ul>" + "<li><a href='x'>x</a>" * 3, False),
        ("<pre>" + "<a href='x'>x</a> 1-Jan\n" * 3, False),
        ("<html><body></bod", False),
        ("<!DOCTYPE html><title>Links for foo</title>", False),
        ("", False),
    ],
)
def test_a_document_that_does_not_end_is_told(text: str, complete: bool) -> None:
    assert is_whole(text.encode(), "text/html") is complete
    assert is_whole(text.encode(), JSON)


def test_of_all_cuts_only_those_between_two_links_pass_for_an_end() -> None:
    whole = [length for length in range(len(LINKS)) if is_whole(LINKS[:length].encode(), "text/html")]
    first = LINKS.index("</a>") + len("</a>")
    ends = [
        LINKS.index("<br/>", place) + len("<br/>")
        for place in (first, LINKS.index("foo-1.zip</a>"), LINKS.index("foo-2.zip</a>"))
    ]
    assert set(whole) <= {place + gap for place in ends for gap in (0, 1)} | {first}


def test_what_has_more_tags_than_any_page_is_not_searched_for_its_end() -> None:
    assert not is_whole(b"<a></a>" * 600_000, "text/html")
    assert is_whole(b"<a></a>" * 600_000 + b"</html>", "text/html")


@given(st.text(st.sampled_from("<>/a! -&;b\"'"), max_size=60))
def test_whether_any_text_is_whole_can_be_said(text: str) -> None:
    assert is_whole(text.encode(), "text/html") in (True, False)


# -- hostile input ------------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1.0", "foo", ">=3", SHA]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FILE_KEYS = ["hashes", "requires-python", "size", "upload-time", "yanked", "core-metadata", "provenance", "gpg-sig", "other"]
hostile_files = st.fixed_dictionaries(
    {"filename": st.just("a.zip") | values, "url": st.just("a.zip") | values},
    optional=dict.fromkeys(FILE_KEYS, values),
)
hostile_documents = st.fixed_dictionaries(
    {"name": st.just("foo"), "files": st.lists(hostile_files, max_size=4), "meta": st.just({"api-version": "1.4"}) | values},
    optional={"versions": values, "project-status": values, "other": values},
)


@given(hostile_documents)
def test_hostile_json_is_a_page_or_malformed(document: dict[str, Any]) -> None:
    with suppress(Malformed):
        assert parse_page(json.dumps(document).encode(), JSON, URL, "foo").project == "foo"


PIECES = [
    "<a href=",
    '"',
    "'",
    ">",
    "<",
    "foo-1.zip",
    "#sha256=",
    SHA,
    " data-yanked=",
    "<base href=",
    "<meta name=",
    "<h1>",
    "</a>",
]
PIECES += [
    "pypi:repository-version",
    ' content="1.0"',
    "\0",
    "&",
    "&#xD800;",
    "://[",
    "<!--",
    "-->",
    "SERIAL 1",
    "<table>",
    "<template>",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25).map("".join) | st.binary(max_size=60))
def test_hostile_html_is_a_page_or_malformed(text: str | bytes) -> None:
    for content_type in (HTML, JSON, ""):
        with suppress(Malformed):
            body = text if isinstance(text, bytes) else text.encode(errors="replace")
            assert parse_page(body, content_type, URL, "foo").project == "foo"


@pytest.mark.parametrize(
    "text",
    [
        "<div>" * 50_000,
        "<ul><li>" * 50_000,
        "<<x>div>" * 50_000,
        '<div title="<a ">' * 50_000,
        "<div " * 50_000,
        "<a href=x>" * 20_000,
        "<a " + "x " * 50_000 + ">",
        "<!--" * 50_000,
    ],
    ids=range(8),
)
def test_html_that_is_built_to_hurt_is_refused_without_hurting(text: str) -> None:
    with pytest.raises(Malformed):
        from_html(text)


def test_a_long_listing_in_a_table_is_read_like_a_short_one() -> None:
    row = '<tr><td><a href="foo-{0}.zip#sha256={1}" data-requires-python=">=3.8">foo-{0}.zip</a></td><td><b>1 kB</b></td></tr>'
    for length in (3, 3000):
        rows = "".join(row.format(number, SHA) for number in range(length))
        files = from_html(f"<title>Index of /foo</title><script>'<a href=no-1.zip>'</script><table>{rows}</table>").files
        assert [file.filename for file in files] == [f"foo-{number}.zip" for number in range(length)]
        assert {(file.requires_python, file.hashes["sha256"]) for file in files} == {(">=3.8", SHA)}
