"""Content codings that upstream names rightly, wrongly, twice or senselessly: the bytes tell, and the digest."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.http.coding import Miscoded, Undo, codings_of, decoded, layers
from proxy.upstream.http.failures import Failed
from tests.inprocess import JSON, Start
from tests.support import wire
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import Distribution, data_of, sdist, wheel

SMALL, BIG, SDIST = wheel("demo"), wheel("demo", "2.0", size=300_000), sdist("demo", "3.0")
FILES = {"small wheel": SMALL, "big wheel": BIG, "sdist": SDIST}


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


def members(data: bytes) -> bytes:
    """*data* in two gzip members."""
    middle = len(data) // 2
    return gzip.compress(data[:middle]) + gzip.compress(data[middle:])


def frames(data: bytes) -> bytes:
    middle = len(data) // 2
    return zstandard.compress(data[:middle]) + zstandard.compress(data[middle:])


def as_is(data: bytes) -> bytes:
    return data


def twice(data: bytes) -> bytes:
    return gzip.compress(gzip.compress(data))


Coder = Callable[[bytes], bytes]
Coded = tuple[str, Coder]
#: What the header says, and what is really done to the bytes.
MEANINGLESS = ("aws-chunked", "utf-8", "binary", "none", "identity", "", "br", "nonsense; q=1")
WRONG = ("gzip", "x-gzip", "GZIP", "zstd", "deflate", "gzip, gzip", "aws-chunked,gzip")
LIES: list[Coded] = [*((name, as_is) for name in MEANINGLESS), *((name, as_is) for name in WRONG)]
TRUTHS: list[Coded] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("gzip, gzip", twice),
    ("gzip, gzip", gzip.compress),
    ("aws-chunked, gzip", gzip.compress),
    ("gzip, utf-8", gzip.compress),
    ("gzip", members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstandard.compress),
    ("zstd", frames),
    ("gzip, zstd", lambda data: zstandard.compress(gzip.compress(data))),
]
CODED = [pytest.param(name, coder, id=f"{name} on {getattr(coder, '__name__', 'both')}") for name, coder in LIES + TRUTHS]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("named", "coder"), CODED)
async def test_a_file_is_itself_whatever_coding_upstream_names(
    upstream: FakeUpstream, run: Start, named: str, coder: Coder
) -> None:
    for made in FILES.values():
        upstream.add_file("demo", made.filename, made.data)
        upstream.script(f"*/{made.filename}", Fault(body=coder(made.data), headers={"Content-Encoding": named}))
    for stated in ("all", "no size", "nothing"):
        for entry in upstream.project("demo").files.values():
            if stated != "all":
                entry.pop("size", None)
            if stated == "nothing":
                entry["hashes"] = {}
        proxy = await run(upstream, data=stated)
        for what, made in FILES.items():
            reply = await proxy.get(await proxy.link("demo", made.filename))
            assert (reply.status, reply.complete, reply.body == made.data) == (200, True, True), (what, stated, reply)
            assert "content-encoding" not in reply.headers


@pytest_twisted.ensureDeferred
async def test_the_digest_decides_where_both_readings_are_possible(upstream: FakeUpstream, run: Start) -> None:
    """A ``.tar.gz`` that somebody compressed twice, and one that upstream did."""
    inner = gzip.compress(SDIST.data, mtime=0)
    upstream.add_file("demo", "demo-3.0.tar.gz", inner, size=None)
    upstream.add_file("demo", "demo-4.0.tar.gz", SDIST.data, size=None)
    for name in ("demo-3.0.tar.gz", "demo-4.0.tar.gz"):
        upstream.script(f"*/{name}", Fault(body=inner, headers={"Content-Encoding": "gzip"}))
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("demo", "demo-3.0.tar.gz"))).body == inner
    assert (await proxy.get(await proxy.link("demo", "demo-4.0.tar.gz"))).body == SDIST.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("made", FILES.values(), ids=FILES)
async def test_bytes_that_no_reading_makes_right_are_never_a_file(
    upstream: FakeUpstream, run: Start, made: Distribution
) -> None:
    upstream.add_file("demo", made.filename, made.data)
    proxy = await run(upstream)
    path = await proxy.link("demo", made.filename)
    for body in (data_of(len(made.data)), gzip.compress(data_of(5000)), gzip.compress(made.data)[:-100], b""):
        upstream.script("/packages/*", Fault(body=body, headers={"Content-Encoding": "gzip"}))
        reply = await wire.fetch_until(proxy.port, path, lambda reply: "left alone" not in reply.reason)
        assert not (reply.status == 200 and reply.complete)
        upstream.heal()
    assert (await wire.fetch_until(proxy.port, path, lambda reply: reply.status == 200)).body == made.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("named", ["gzip", "aws-chunked"])
async def test_a_download_that_breaks_is_gone_on_with_under_a_coding_too(
    upstream: FakeUpstream, run: Start, named: str
) -> None:
    upstream.add_file("demo", BIG.filename, BIG.data)
    coded = {"Content-Encoding": named}
    upstream.script("/packages/*", Fault(reset_after=150_000, headers=coded), times=1)
    upstream.script("/packages/*", Fault(headers=coded))
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("demo", BIG.filename))).body == BIG.data


@pytest_twisted.ensureDeferred
async def test_what_is_really_compressed_is_gone_on_with_from_its_start(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("demo", BIG.filename, BIG.data)
    upstream.script("/packages/*", Fault(gzip=True, reset_after=150_000), times=1)
    upstream.script("/packages/*", Fault(gzip=True))
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("demo", BIG.filename))).body == BIG.data
    assert [request.headers.get("range") for request in upstream.asked if request.path.startswith("/packages/")] == [None] * 2


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("named", "coder"), CODED)
async def test_upstreams_metadata_is_itself_whatever_coding_upstream_names(
    upstream: FakeUpstream, run: Start, named: str, coder: Coder
) -> None:
    upstream.add_file("demo", SMALL.filename, SMALL.data, metadata=SMALL.metadata)
    upstream.script("*.metadata", Fault(body=coder(SMALL.metadata), headers={"Content-Encoding": named}))
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("demo", SMALL.filename) + ".metadata")).body == SMALL.metadata
    assert upstream.count("*.whl") == 0


# -- pages and documents --------------------------------------------------------------------------------------------------

ASKED_FOR = [each for each in LIES + TRUTHS if "zstd" not in each[0] or each[1] is as_is]
PAGES = [pytest.param(name, coder, id=f"{name} on {getattr(coder, '__name__', 'both')}") for name, coder in ASKED_FOR]
NAMES = [f"demo-{number}.0.tar.gz" for number in range(300)]


def json_page() -> bytes:
    files = [{"filename": name, "url": f"/f/{name}", "hashes": {}} for name in NAMES]
    return json.dumps({"meta": {"api-version": "1.0"}, "name": "demo", "files": files}).encode()


def html_page() -> bytes:
    return ("<!DOCTYPE html><html><body>" + "".join(f'<a href="/f/{name}">{name}</a>\n' for name in NAMES)).encode()


END = b"</body></html>"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("named", "coder"), PAGES)
@pytest.mark.parametrize("kind", ["json", "html"])
async def test_a_page_is_read_whatever_coding_upstream_names(
    upstream: FakeUpstream, run: Start, named: str, coder: Coder, kind: str
) -> None:
    body, content_type = (json_page(), JSON_TYPE) if kind == "json" else (html_page() + END, "text/html")
    upstream.script("/simple/demo/", Fault(body=coder(body), headers={"Content-Encoding": named, "Content-Type": content_type}))
    proxy = await run(upstream)
    assert [file["filename"] for file in (await proxy.page("demo"))["files"]] == NAMES


def halves(page: bytes) -> tuple[bytes, bytes]:
    middle = page.index(b"demo-150.0")
    return page[:middle], page[middle:]


TORN: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip that is cut off": ("gzip", lambda page: gzip.compress(page)[:-12]),
    "deflate that is cut off": ("deflate", lambda page: zlib.compress(page)[:-12]),
    "raw deflate that is cut off": ("deflate", lambda page: raw_deflate(page)[:-12]),
    "a member that is cut off": ("gzip", lambda page: members(page)[:-12]),
    "plain text after a member": ("gzip", lambda page: gzip.compress(halves(page)[0]) + halves(page)[1]),
    "deflate after deflate": ("deflate", lambda page: zlib.compress(halves(page)[0]) + zlib.compress(halves(page)[1])),
    "twice, the inner one cut off": ("gzip, gzip", lambda page: gzip.compress(gzip.compress(page)[:-12])),
}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("named", "torn"), TORN.values(), ids=TORN)
@pytest.mark.parametrize("kind", ["json", "html"])
async def test_a_part_of_a_page_is_never_read_as_the_page(
    upstream: FakeUpstream, run: Start, named: str, torn: Callable[[bytes], bytes], kind: str
) -> None:
    body, content_type = (json_page(), JSON_TYPE) if kind == "json" else (html_page() + END, "text/html")
    upstream.script("/simple/demo/", Fault(body=torn(body), headers={"Content-Encoding": named, "Content-Type": content_type}))
    proxy = await run(upstream)
    reply = await proxy.get("/simple/demo/", Accept=JSON)
    assert reply.status == 503


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "fault", [Fault(chunked=True, cut_after=9000), Fault(cut_after=9000), Fault(no_content_length=True, cut_after=9000)]
)
@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream", ""])
async def test_a_page_that_ends_early_on_the_wire_is_not_read(
    upstream: FakeUpstream, run: Start, fault: Fault, content_type: str
) -> None:
    upstream.content.json = False
    upstream.project("demo").raw = (content_type, html_page() + END)
    upstream.script("/simple/demo/", fault)
    proxy = await run(upstream)
    assert (await proxy.get("/simple/demo/", Accept=JSON)).status == 503


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("body", "status"), [(json_page(), 200), (html_page() + END, 200), (html_page(), 503)])
async def test_garbage_behind_gzip_is_passed_over_where_the_page_itself_shows_its_end(
    upstream: FakeUpstream, run: Start, body: bytes, status: int
) -> None:
    content_type = JSON_TYPE if body.startswith(b"{") else "text/html"
    for garbage in (b"\r\n", b"<!-- cache -->"):
        upstream.heal()
        coded = Fault(body=gzip.compress(body) + garbage, headers={"Content-Encoding": "gzip", "Content-Type": content_type})
        upstream.script("/simple/demo/", coded)
        proxy = await run(upstream, data=f"after {len(garbage)}")
        reply = await proxy.get("/simple/demo/", Accept=JSON)
        assert reply.status == status
        assert status != 200 or len(reply.json["files"]) == len(NAMES)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("named", "coder"), PAGES)
async def test_the_list_of_projects_is_read_whatever_coding_upstream_names(
    upstream: FakeUpstream, run: Start, named: str, coder: Coder
) -> None:
    names = [f"project-{number}" for number in range(3000)]
    document = {"meta": {"api-version": "1.0"}, "projects": [{"name": name} for name in names]}
    headers = {"Content-Encoding": named, "Content-Type": JSON_TYPE}
    upstream.script("/simple/", Fault(body=coder(json.dumps(document).encode()), headers=headers))
    proxy = await run(upstream)
    reply = await proxy.get("/simple/", Accept=JSON)
    assert {each["name"] for each in reply.json["projects"]} == set(names)


# -- the decisions ---------------------------------------------------------------------------------------------------------

contents = st.binary(max_size=3000) | st.binary(min_size=1, max_size=3).map(lambda data: data * 20_000)
coders: st.SearchStrategy[list[Coded]] = st.lists(
    st.sampled_from([("gzip", gzip.compress), ("gzip", members), ("deflate", zlib.compress), ("zstd", zstandard.compress)]),
    max_size=3,
)


@given(contents, coders, st.lists(st.integers(1, 4000), max_size=8))
def test_what_was_coded_is_undone_however_it_is_cut_into_pieces(data: bytes, coded: list[Coded], cuts: list[int]) -> None:
    body = data
    for _, coder in coded:
        body = coder(body)
    undone = [Undo(name) for name, _ in reversed(coded)]
    chunks, position = [], 0
    for cut in cuts:
        chunks.append(body[position : position + cut])
        position += cut
    found = b""
    for chunk in [*chunks, body[position:]]:
        for undo in undone:
            chunk = b"".join(undo.pieces(chunk))
        found += chunk
    assert (found, all(undo.complete and not undo.surplus for undo in undone)) == (data, True)


@pytest.mark.parametrize("coder", [gzip.compress, zstandard.compress])
def test_one_byte_of_a_further_member_is_a_cut_and_one_of_something_else_is_not(coder: Coder) -> None:
    coding = "gzip" if coder is gzip.compress else "zstd"
    member = coder(b"x")
    for rest, complete, surplus in ((member[:1], False, False), (b"\n", True, True), (b"", True, False)):
        undo = Undo(coding)
        assert b"".join(undo.pieces(member + rest)) == b"x"
        assert (undo.complete, undo.surplus) == (complete, surplus)


@given(contents.filter(bool), st.sampled_from([gzip.compress, members, zlib.compress]), st.integers(1, 200))
def test_what_is_cut_off_is_not_complete(data: bytes, coder: Coder, less: int) -> None:
    coding = "deflate" if coder is zlib.compress else "gzip"
    body = coder(data)
    whole = len(gzip.compress(data[: len(data) // 2])) if coder is members else 0
    undo = Undo(coding)
    short = body[: max(1, len(body) - less)]
    if len(short) != whole:  # between two members nothing is missing
        b"".join(undo.pieces(short))
        assert not undo.complete or len(short) == whole


@given(
    st.binary(max_size=200),
    st.lists(st.sampled_from(["gzip", "deflate", "zstd"]), max_size=3),
    st.sampled_from(["a.whl", "a.tar.gz", ""]),
)
def test_any_beginning_has_readings_and_one_of_them_is_as_it_is(beginning: bytes, codings: list[str], name: str) -> None:
    found = layers(beginning, codings, name)
    assert () in found
    assert len(set(found)) == len(found)


@given(st.binary(max_size=500), st.lists(st.sampled_from(["gzip", "deflate"]), max_size=3))
def test_any_bytes_are_decoded_or_refused(body: bytes, codings: list[str]) -> None:
    with suppress(Failed):
        found = decoded(body, codings, 10_000)
        assert found is None or len(found[0]) <= 10_000


@pytest.mark.parametrize(("coder", "name"), [(gzip.compress, "gzip"), (members, "gzip"), (zlib.compress, "deflate")])
def test_what_unpacks_to_too_much_is_given_up(coder: Coder, name: str) -> None:
    assert decoded(coder(b"{" + bytes(5_000_000)), [name], 1_000_000) is None


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        (None, ()),
        ("", ()),
        ("identity", ()),
        ("aws-chunked", ()),
        ("X-GZip", ("gzip",)),
        (" gzip ,, deflate,br", ("gzip", "deflate")),
        ("gzip;q=1", ()),
    ],
)
def test_codings_that_cannot_be_undone_are_passed_over(header: str | None, codings: Any) -> None:
    assert codings_of(header) == codings


def test_what_is_not_in_a_coding_is_said_to_be_unreadable() -> None:
    with pytest.raises(Miscoded, match="gzip that cannot be read"):
        list(Undo("gzip").pieces(b"no gzip"))
