"""Which libraries parse pages fastest, and for how long each keeps every other thread waiting.

``python -m bench.libraries [FILES ...]`` prints two tables (JSON, HTML) for synthetic pages of 5,000 and 40,000 files.  *best*
is the shortest of five runs; *pause* is the shortest, in three runs, of the longest gap that a second thread sees while the
library runs in a worker thread: what the reactor would stand still for.  Two threads that run Python take turns every 5 ms, so
that 5 ms are the floor.  The collector is off for the pauses and results are kept: those two are told at the end.
``orjson`` and ``lxml`` are not among the project's requirements; a library that is not installed is left out.
"""

from __future__ import annotations

import gc
import hashlib
import html
import html.parser
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from proxy.simple.media import MediaType
from proxy.simple.parse import parse_page
from proxy.simple.render import render

URL = "https://index.example/simple/big/"
RUNS = 5

Job = tuple[str, Callable[[], object]]


def entries(count: int) -> list[dict[str, Any]]:
    """File entries as the public index writes them."""
    made = []
    for number in range(count):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        name = f"big-{number // 20}.{number % 20}.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
        made.append(
            {
                "core-metadata": {"sha256": digest},
                "data-dist-info-metadata": {"sha256": digest},
                "filename": name,
                "hashes": {"sha256": digest},
                "provenance": None,
                "requires-python": ">=3.8",
                "size": 1_000_000 + number,
                "upload-time": "2024-01-02T03:04:05.678900Z",
                "url": f"https://files.example/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{name}",
                "yanked": False,
            }
        )
    return made


def json_page(files: list[dict[str, Any]]) -> bytes:
    versions = [f"{number}.0" for number in range(len(files) // 20)]
    return json.dumps(
        {"meta": {"api-version": "1.4", "_last-serial": 7}, "name": "big", "versions": versions, "files": files}
    ).encode()


def html_page(files: list[dict[str, Any]]) -> bytes:
    lines = [
        f'<a href="{each["url"]}#sha256={each["hashes"]["sha256"]}" data-requires-python="{html.escape(">=3.8")}" '
        f'data-core-metadata="sha256={each["core-metadata"]["sha256"]}">{each["filename"]}</a><br />'
        for each in files
    ]
    head = '<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.4"></head><body>'
    return "\n".join([head, *lines, "</body></html>"]).encode()


def pause(job: Callable[[], object]) -> float:
    """The longest time this thread cannot run while a worker thread does *job*, in seconds."""
    return min(_gap(job) for _ in range(3))


def _gap(job: Callable[[], object]) -> float:
    go = threading.Event()
    kept = []

    def work() -> None:
        go.wait()
        kept.append(job())

    worker = threading.Thread(target=work)
    worker.start()
    gc.collect()
    gc.disable()
    longest = 0.0
    last = time.perf_counter()
    go.set()
    while worker.is_alive():
        now = time.perf_counter()
        longest = max(longest, now - last)
        last = now
    longest = max(longest, time.perf_counter() - last)
    gc.enable()
    return longest


def aftermath(body: bytes) -> str:
    """What one parsed page costs later, each time without a break: a full collection while it lives, and its release."""
    pages = [parse_page(body, MediaType.JSON.value, URL, "big")]
    gc.collect()
    started = time.perf_counter()
    gc.collect()
    collected = time.perf_counter()
    pages.clear()
    released = time.perf_counter()
    return f"a full collection {(collected - started) * 1000:.0f} ms, releasing the page {(released - collected) * 1000:.0f} ms"


def best(job: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    taken = []
    for _ in range(RUNS):
        gc.collect()
        started = time.perf_counter()
        job()
        taken.append(time.perf_counter() - started)
    return min(taken)


def json_jobs(body: bytes) -> list[Job]:
    outline = msgspec.json.Decoder(dict[str, list[msgspec.Raw] | dict[str, Any] | str])
    entry = msgspec.json.Decoder(dict[str, Any])

    def in_pieces() -> object:
        return [entry.decode(each) for each in outline.decode(body)["files"]]

    page = parse_page(body, MediaType.JSON.value, URL, "big")
    document = json.loads(body)
    jobs: list[Job] = [
        ("json.loads", lambda: json.loads(body)),
        ("msgspec decode, whole", lambda: msgspec.json.decode(body)),
        ("msgspec outline only", lambda: outline.decode(body)),
        ("msgspec decode, in pieces", in_pieces),
    ]
    orjson = optional("orjson")
    if orjson is not None:
        jobs += [("orjson.loads", lambda: orjson.loads(body)), ("orjson.dumps", lambda: orjson.dumps(document))]
    return [
        *jobs,
        ("json.dumps", lambda: json.dumps(document)),
        ("msgspec encode, whole", lambda: msgspec.json.encode(document)),
        ("proxy.simple parse_page", lambda: parse_page(body, MediaType.JSON.value, URL, "big")),
        ("proxy.simple render", lambda: render(page, MediaType.JSON, lambda file: file.url)),
    ]


def optional(name: str) -> Any:
    """The module *name*, or ``None`` when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Anchors(html.parser.HTMLParser):
    """All anchors' attributes, by the standard library."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))


def html_jobs(body: bytes) -> list[Job]:
    text = body.decode()
    lexbor, lxml = optional("selectolax.lexbor"), optional("lxml.html")
    page = parse_page(body, MediaType.TEXT_HTML.value, URL, "big")
    jobs: list[Job] = [("html.parser", lambda: Anchors().feed(text))]
    if lexbor is not None:
        jobs += [
            ("selectolax parse only", lambda: lexbor.LexborHTMLParser(body)),
            ("selectolax", lambda: [node.attributes for node in lexbor.LexborHTMLParser(body).css("a")]),
        ]
    if lxml is not None:
        jobs += [
            ("lxml parse only", lambda: lxml.document_fromstring(body)),
            ("lxml", lambda: [dict(node.attrib) for node in lxml.document_fromstring(body).iter("a")]),
        ]
    return [
        *jobs,
        ("proxy.simple parse_page", lambda: parse_page(body, MediaType.TEXT_HTML.value, URL, "big")),
        ("proxy.simple render", lambda: render(page, MediaType.TEXT_HTML, lambda file: file.url)),
    ]


def table(title: str, jobs: list[Job]) -> None:
    print(f"\n| {title} | best, ms | pause, ms |\n|---|---|---|")
    for name, job in jobs:
        print(f"| {name} | {best(job) * 1000:.0f} | {pause(job) * 1000:.0f} |")


def main() -> None:
    for count in [int(each) for each in sys.argv[1:]] or [5_000, 40_000]:
        files = entries(count)
        as_json, as_html = json_page(files), html_page(files)
        table(f"JSON, {count:,} files, {len(as_json) / 1e6:.1f} MB", json_jobs(as_json))
        table(f"HTML, {count:,} files, {len(as_html) / 1e6:.1f} MB", html_jobs(as_html))
        print(f"\nA parsed page of {count:,} files in memory: {aftermath(as_json)}.")


if __name__ == "__main__":
    main()
