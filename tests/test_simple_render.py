"""Project pages as clients get them, and back again."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.model import ALGORITHMS, DIGEST_LENGTHS, File, Page
from proxy.policy.policy import STANDARD
from proxy.policy.rules import Viewpoint
from proxy.repository.gate import seen
from proxy.simple.media import MediaType
from proxy.simple.parse import is_whole, parse_page
from proxy.simple.render import render

URL = "https://index.example/simple/foo/"
SHA = "ab" * 32
FILE = File("foo-1.0.zip", "https://files.example/foo-1.0.zip", {"sha256": SHA}, size=10)
PAGE = Page("foo", (FILE,), (1, 4), ("1.0",))


def link(file: File) -> str:
    return f"../../files/foo/{quote(file.filename, safe='+!~')}"


def as_json(page: Page) -> Any:
    return json.loads(render(page, MediaType.JSON, link))


def as_html(page: Page) -> str:
    return render(page, MediaType.TEXT_HTML, link).decode()


def test_a_json_page_in_full() -> None:
    file = replace(
        FILE,
        requires_python=">=3.8",
        upload_time="2024-01-02T03:04:05Z",
        yanked="why",
        core_metadata={"sha256": SHA},
        provenance="https://index.example/p",
        extra={"future": [1]},
    )
    page = replace(PAGE, files=(file,), status={"status": "archived"}, extra={"news": 1}, meta_extra={"_last-serial": 7})
    assert as_json(page) == {
        "meta": {"api-version": "1.4", "_last-serial": 7},
        "name": "foo",
        "versions": ["1.0"],
        "project-status": {"status": "archived"},
        "files": [
            {
                "filename": "foo-1.0.zip",
                "url": "../../files/foo/foo-1.0.zip",
                "hashes": {"sha256": SHA},
                "requires-python": ">=3.8",
                "size": 10,
                "upload-time": "2024-01-02T03:04:05Z",
                "yanked": "why",
                "core-metadata": {"sha256": SHA},
                "provenance": "https://index.example/p",
                "future": [1],
            }
        ],
        "news": 1,
    }


def test_what_is_unknown_is_absent_but_hashes_and_yanked_are_always_there() -> None:
    assert as_json(Page("foo", (File("a.zip", "https://files.example/a.zip"),)))["files"] == [
        {"filename": "a.zip", "url": "../../files/foo/a.zip", "hashes": {}, "yanked": False}
    ]


@pytest.mark.parametrize(
    ("page", "version"),
    [
        (PAGE, "1.4"),
        (replace(PAGE, api_version=(1, 1)), "1.1"),
        (replace(PAGE, api_version=(1, 9)), "1.4"),
        (replace(PAGE, api_version=(1, 0)), "1.0"),
        (replace(PAGE, versions=None), "1.0"),
        (replace(PAGE, files=(FILE, replace(FILE, size=None))), "1.0"),
        (replace(PAGE, files=()), "1.4"),
    ],
)
def test_no_page_promises_more_than_it_keeps(page: Page, version: str) -> None:
    assert as_json(page)["meta"]["api-version"] == version
    assert ("versions" in as_json(page)) == (version != "1.0")
    assert f'<meta name="pypi:repository-version" content="{version}">' in as_html(page)


def test_a_quarantined_project_offers_no_file() -> None:
    page = seen(STANDARD, replace(PAGE, status={"status": "quarantined", "reason": "malware"}), {}, 0.0, Viewpoint("pypi")).page
    assert as_json(page)["files"] == []
    assert "<a " not in as_html(page)
    assert '<meta name="pypi:project-status-reason" content="malware">' in as_html(page)


def test_rejected_and_promised_keys_are_never_emitted() -> None:
    keys = {"tracks": [], "alternate-locations": [], "namespaces": [], "kept": 1}
    document = as_json(replace(PAGE, extra=keys, meta_extra=keys, files=(replace(FILE, extra=keys),)))
    for mapping in (document, document["meta"], document["files"][0]):
        assert mapping.keys() & keys.keys() == {"kept"}


def test_no_extra_key_overrides_a_known_one() -> None:
    keys = {"name": "bar", "files": [], "api-version": "9.9", "url": "https://evil.example/", "hashes": {}}
    page = replace(PAGE, extra={"name": "bar"}, meta_extra=keys, files=(replace(FILE, extra=keys),))
    assert as_json(page)["name"] == "foo"
    assert as_json(page)["meta"]["api-version"] == "1.4"
    assert as_json(page)["files"][0]["url"] == link(FILE)
    assert as_json(page)["files"][0]["hashes"] == {"sha256": SHA}


def test_html_says_what_html_can_say() -> None:
    file = replace(
        FILE,
        requires_python=">=3.8,<4",
        yanked='"><script>',
        core_metadata={"md5": "0" * 32, "sha256": SHA},
        upload_time="2024-01-02T03:04:05Z",
        extra={"data-news": '"', "data-yanked": "no", "data-a b": "no", "data-n": 1, "onclick": "no", "data-long": "x" * 9999},
    )
    text = as_html(replace(PAGE, files=(file,), meta_extra={"_last-serial": 7}))
    assert (
        f'<a href="../../files/foo/foo-1.0.zip#sha256={SHA}" data-requires-python="&gt;=3.8,&lt;4"'
        f' data-yanked="&quot;&gt;&lt;script&gt;" data-core-metadata="sha256={SHA}" data-dist-info-metadata="sha256={SHA}"'
        ' data-size="10" data-upload-time="2024-01-02T03:04:05Z" data-news="&quot;">foo-1.0.zip</a>'
    ) in text
    assert "<title>Links for foo</title>" in text
    assert "<!--SERIAL 7-->" in text
    assert is_whole(text.encode(), "text/html")


def test_a_yank_without_a_reason_and_metadata_without_a_digest_are_said_in_html() -> None:
    text = as_html(replace(PAGE, files=(replace(FILE, yanked=True, core_metadata=True),)))
    assert 'data-yanked="" data-core-metadata="true" data-dist-info-metadata="true"' in text
    assert "metadata" not in as_html(replace(PAGE, files=(replace(FILE, core_metadata=False),)))


def test_what_only_html_says_is_said_in_json_under_the_same_name() -> None:
    [entry] = as_json(replace(PAGE, files=(replace(FILE, extra={"data-news": "x"}),)))["files"]
    assert entry["data-news"] == "x"


def test_the_text_of_an_anchor_is_the_file_name_unquoted() -> None:
    page = replace(PAGE, files=(File("foo-1.0+ü.zip", "https://files.example/x"),))
    assert '<a href="../../files/foo/foo-1.0+%C3%BC.zip">foo-1.0+ü.zip</a>' in as_html(page)


def test_a_page_of_many_files_is_whole() -> None:
    files = tuple(replace(FILE, filename=f"foo-{number}.zip") for number in range(1501))
    for count in (0, 1, 500, 501, 1500, 1501):
        names = [each["filename"] for each in as_json(replace(PAGE, files=files[:count]))["files"]]
        assert names == [file.filename for file in files[:count]]


# -- round trips -------------------------------------------------------------------------------------------------------------

#: What HTML can carry in an attribute: its parser turns NUL and line ends into something else.
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
digests = st.dictionaries(st.sampled_from(ALGORITHMS), st.integers(0, 15), max_size=3).map(
    lambda chosen: {algorithm: f"{digit:x}" * DIGEST_LENGTHS[algorithm] for algorithm, digit in chosen.items()}
)
names = st.from_regex(r"foo-[0-9]{1,3}[a-zé+!~ &%#?';@]{0,4}\.(zip|tar\.gz|whl)", fullmatch=True)
extras = st.dictionaries(
    words.map(lambda text: "x-" + text), st.none() | st.integers(-(2**63), 2**63) | words | st.lists(st.booleans()), max_size=2
)
attributes = st.dictionaries(st.from_regex(r"data-x[a-z0-9-]{0,9}", fullmatch=True), words, max_size=2)
files = st.builds(
    File,
    filename=names,
    url=st.just(""),
    hashes=digests,
    requires_python=st.sampled_from([None, ">=3.8", "<4,!=3.9.*"]),
    size=st.none() | st.integers(0, 2**40),
    upload_time=st.sampled_from([None, "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.678900Z"]),
    yanked=st.booleans() | words,
    core_metadata=st.none() | st.booleans() | digests.filter(bool),
    provenance=st.none() | words.map(lambda text: "https://index.example/" + text),
    extra=st.tuples(extras, attributes).map(lambda both: both[0] | both[1]),
).map(lambda file: replace(file, url="https://index.example/files/foo/" + quote(file.filename, safe="!~")))
pages = st.builds(
    Page,
    project=st.just("foo"),
    files=st.lists(files, max_size=4).map(tuple),
    api_version=st.tuples(st.just(1), st.integers(0, 5)),
    versions=st.none() | st.lists(words, max_size=2).map(tuple),
    status=st.none() | st.fixed_dictionaries({"status": st.just("archived")}, optional={"reason": words}),
    extra=extras,
    meta_extra=extras | st.fixed_dictionaries({"_last-serial": st.integers(0, 10**9)}),
)


@given(pages)
def test_a_page_comes_back_from_json_as_it_was(page: Page) -> None:
    old = page.versions is None or any(file.size is None for file in page.files)
    version = (1, 0) if old else min(page.api_version, (1, 4))
    expected = replace(page, api_version=version, versions=page.versions if version >= (1, 1) else None)
    assert parse_page(render(page, MediaType.JSON, link), MediaType.JSON.value, URL, "foo") == expected


def as_html_can_say(file: File) -> File:
    """*file* without what HTML has no words for."""
    metadata = None if file.core_metadata is False else file.core_metadata
    if not isinstance(metadata, bool | None):
        strongest = min(metadata, key=ALGORITHMS.index)
        metadata = {strongest: metadata[strongest]}
    hashes = {file.digest.algorithm: file.digest.hex} if file.digest is not None else {}
    said = {name: value for name, value in file.extra.items() if name.startswith("data-")}
    return replace(file, hashes=hashes, core_metadata=metadata, extra=said)


@given(pages, st.sampled_from([MediaType.HTML_V1, MediaType.TEXT_HTML]))
def test_a_page_comes_back_from_html_with_all_that_html_can_say(page: Page, media: MediaType) -> None:
    expected = Page(
        "foo",
        tuple(as_html_can_say(file) for file in page.files),
        status=page.status,
        meta_extra={"_last-serial": page.meta_extra["_last-serial"]} if "_last-serial" in page.meta_extra else {},
    )
    assert parse_page(render(page, media, link), media.value, URL, "foo") == expected
