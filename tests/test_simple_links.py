"""Links on a page, resolved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simple.links import join_anew, resolve, resolve_to_themselves, resolves_to_itself

BASE = "https://index.example/simple/foo/"


@pytest.mark.parametrize(
    ("href", "url"),
    [
        ("foo-1.zip", "https://index.example/simple/foo/foo-1.zip"),
        ("../../packages/a/foo-1.zip", "https://index.example/packages/a/foo-1.zip"),
        ("../../../../../foo-1.zip", "https://index.example/foo-1.zip"),
        ("/f/foo-1.zip", "https://index.example/f/foo-1.zip"),
        ("//files.example/foo-1.zip", "https://files.example/foo-1.zip"),
        ("http://files.example:8080/f/foo-1.zip", "http://files.example:8080/f/foo-1.zip"),
        ("HTTPS://Files.example/foo-1.zip", "https://Files.example/foo-1.zip"),
        ("https://[::1]:3141/foo-1.zip", "https://[::1]:3141/foo-1.zip"),
        ("foo-1%2Bcpu.whl", "https://index.example/simple/foo/foo-1%2Bcpu.whl"),
        ("foo-1+cpu.whl", "https://index.example/simple/foo/foo-1%2Bcpu.whl"),
        ("../+f/foo-1+cpu+x.whl", "https://index.example/simple/%2Bf/foo-1%2Bcpu%2Bx.whl"),
        ("https://files.example/a+b/foo-1+cpu.whl", "https://files.example/a%2Bb/foo-1%2Bcpu.whl"),
        ("HTTPS://files.example/foo-1+cpu.whl?a=b+c", "https://files.example/foo-1%2Bcpu.whl?a=b+c"),
        (" foo 1.zip\n", "https://index.example/simple/foo/foo%201.zip"),
        ("fü.zip?sig=a b&c=é", "https://index.example/simple/foo/f%C3%BC.zip?sig=a%20b&c=%C3%A9"),
    ],
)
def test_a_link_is_resolved_against_its_page(href: str, url: str) -> None:
    assert resolve(BASE, href) == (url, "")


@pytest.mark.parametrize(
    "href",
    [
        "",
        "#top",
        "javascript:x",
        "mailto:a@b.example",
        "file:///etc/passwd",
        "data:,x",
        "http://",
        "http:///x",
        "http://[x",
        "http://h:99999/x",
        "https://a b.example/x",
        "http://a.example:port/x",
        "https://user@/x",
    ],
)
def test_what_no_http_client_can_fetch_is_no_link(href: str) -> None:
    assert resolve(BASE, href) is None


def test_the_fragment_comes_apart() -> None:
    assert resolve(BASE, "a.zip#sha256=00&x=#1") == (BASE + "a.zip", "sha256=00&x=#1")


characters = st.text(st.sampled_from("ab./:?;%2E+é ~@=,[]\\-_\t"), max_size=20)
starts = st.sampled_from(
    ["", "/", "//", "../", "../../", "./", "https://f.example/", "http://f.example:80/", "HTTP://f.example", "a/"]
)


@given(
    st.sampled_from([BASE, "https://index.example/simple/foo", "http://h.example", "https://h.example/a?b/c"]),
    starts,
    characters,
)
def test_the_short_ways_lead_where_the_book_does(base: str, start: str, rest: str) -> None:
    reference = (start + rest).strip()
    found = resolve(base, reference)
    assert (found and found[0]) == (join_anew(base, reference) if reference else None)


@given(st.text(), st.text())
def test_no_link_makes_it_fail(base: str, href: str) -> None:
    found = resolve(base, href)
    assert found is None or found[0].startswith(("https://", "http://"))


#: Where nearly all files of a page are, where others are, and what may stand behind that.
_ROOTS = ("https://files.example/", "http://127.0.0.1:8080/", "https://files.example", "HTTPS://files.example/", "", "files/")
_PATHS = (
    "packages/ab/foo-1.0.whl",
    "foo-1.0+cpu.whl",
    "",
    "a//b",
    "a/",
    ".a",
    "a/./b",
    "a:b",
    "é",
    "a b",
    "a\nb",
    "a\nhttps://files.example/b",
    "https://files.example/b",
    "b" * 9000,
)
_a_url = st.builds("{}{}".format, st.sampled_from(_ROOTS), st.sampled_from(_PATHS) | st.text(max_size=5))


@given(st.lists(st.just("https://files.example/packages/ab/foo-1.0.whl") | _a_url, min_size=1, max_size=6))
def test_many_urls_are_looked_at_as_one_is(urls: list[str]) -> None:
    assert resolve_to_themselves(urls) == all(map(resolves_to_itself, urls))
