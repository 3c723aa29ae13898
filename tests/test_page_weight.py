"""What parsed pages are said to weigh: what they take in memory, rather more than less, and not many times as much."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from proxy.cache.parsed import ParsedPages
from proxy.model import Page
from proxy.simple.parse import parse_page, weight
from tests.support.content import JSON_TYPE

URL = "https://packages.example.org/simple/some-project/"
FILES = 300


def name(number: int) -> str:
    return f"some_project-1.{number}.0-cp311-cp311-manylinux_2_17_x86_64.whl"


def entry(number: int, **more: Any) -> Mapping[str, Any]:
    return {
        "filename": name(number),
        "url": f"https://files.example.org/packages/ab/cd/{number:060x}/{name(number)}",
        "hashes": {"sha256": f"{number:064x}"},
        "requires-python": ">=3.9",
        "size": 1000 + number,
        "upload-time": "2024-01-01T00:00:00.000000Z",
        "core-metadata": {"sha256": f"{number + 7:064x}"},
        **more,
    }


def in_json(made: Callable[[int], Mapping[str, Any]], **more: Any) -> tuple[bytes, str]:
    versions = [f"1.{number}.0" for number in range(FILES)]
    page = {"meta": {"api-version": "1.1", "_last-serial": 5}, "name": "some-project", "versions": versions, **more}
    return json.dumps({**page, "files": list(map(made, range(FILES)))}).encode(), JSON_TYPE


def in_html(link: Callable[[int], str]) -> tuple[bytes, str]:
    return f"<!DOCTYPE html><html><body>{''.join(map(link, range(FILES)))}</body></html>".encode(), "text/html"


PAGES = {
    "json": in_json(entry),
    "relative": in_json(lambda number: entry(number, url=f"../../packages/{name(number)}")),
    "provenance": in_json(lambda number: entry(number, provenance=f"https://files.example.org/{number}/provenance")),
    "yanked": in_json(lambda number: entry(number, yanked="it does not work on Tuesdays", hashes={"md5": f"{number:032x}"})),
    "small": in_json(lambda number: {"filename": f"a-{number}.zip", "url": f"a-{number}.zip", "hashes": {}}),
    "unknown keys": in_json(lambda number: entry(number, unknown=[[], {}] * 5)),
    "wide": in_json(lambda number: entry(number, yanked="\N{GRINNING FACE}" + "x" * 100)),
    "html": in_html(
        lambda number: (
            f'<a href="../../packages/{name(number)}#sha256={number:064x}" data-requires-python="&gt;=3.9" '
            f'data-core-metadata="sha256={number:064x}">{name(number)}</a><br/>\n'
        )
    ),
    "small html": in_html(lambda number: f'<a href="a-{number}.zip">a</a>\n'),
}


def taken(body: bytes, kind: str) -> tuple[int, Page]:
    """The memory that the page in *body* takes (bytes), and the page."""
    parse_page(body, kind, URL, "some-project")  # what is made once and for all
    gc.collect()
    tracemalloc.start()
    try:
        page = parse_page(body, kind, URL, "some-project")
        assert len(page.by_name) == FILES
        gc.collect()
        return tracemalloc.get_traced_memory()[0], page
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body_and_kind", PAGES.values(), ids=PAGES)
def test_a_page_weighs_what_it_takes(body_and_kind: tuple[bytes, str]) -> None:
    memory, page = taken(*body_and_kind)
    weighed = weight(page, body_and_kind[0])
    assert memory <= weighed <= 5 * memory


@pytest.mark.parametrize("kind", ["json", "relative", "provenance", "html"])
def test_the_weight_of_an_ordinary_page_is_close(kind: str) -> None:
    memory, page = taken(*PAGES[kind])
    assert weight(page, PAGES[kind][0]) <= 1.5 * memory


def test_who_asks_for_more_takes_the_room_that_others_do_not_use_and_leaves_it_when_it_ends() -> None:
    body, kind = PAGES["json"]
    page = parse_page(body, kind, URL, "some-project")
    parsed = ParsedPages(3 * weight(page, body))
    one, other = object(), object()
    for digest in "abc":
        parsed.put(one, digest, page, body)
    assert [parsed.get(one, digest) for digest in "abc"] == [page] * 3
    assert parsed.get(other, "a") is None
    parsed.put(other, "a", page, body)
    assert [parsed.get(one, digest) is None for digest in "abc"] == [True, False, False]
    parsed.forget(one)
    assert [parsed.get(one, digest) for digest in "abc"] == [None] * 3
    assert parsed.get(other, "a") is page
