"""Parts of files from upstreams that do not do ranges as they should: joined only where they belong, else asked for whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace

from tests.inprocess import Running, Start
from tests.support import wire
from tests.support.content import Content
from tests.support.fake_upstream import Answer, FakeUpstream, Fault, Gate, Request
from tests.support.wheels import wheel

MADE = wheel("demo", size=1_500_000)
DATA = MADE.data
OTHER = bytes(len(DATA))
BREAKS_AT = 600_000

#: What a request for the rest from a position on is answered with.
Rest = Callable[[int], Answer]


def part(start: int, stop: int, total: int | None = None, data: bytes = OTHER, **headers: str) -> Answer:
    stated = f"bytes {start}-{stop - 1}/{len(DATA) if total is None else total}"
    return Answer(
        206, {"Content-Range": stated, **{name.replace("_", "-"): each for name, each in headers.items()}}, data[start:stop]
    )


class Odd(Content):
    """Files whose parts are answered by *rest*, and wholes by *whole*."""

    def __init__(self, rest: Rest, whole: Callable[[Answer], Answer] = lambda answer: answer) -> None:
        super().__init__()
        self.rest = rest
        self.whole = whole

    def answer(self, request: Request) -> Answer:
        answer = super().answer(request)
        if not request.path.startswith("/packages/"):
            return answer
        asked = request.headers.get("range")
        return self.whole(answer) if asked is None else self.rest(int(asked.removeprefix("bytes=").partition("-")[0]))


SIZE = len(DATA)
RESTS: dict[str, Rest] = {
    "another ETag": lambda start: part(start, SIZE, ETag='"other"'),
    "another weak ETag": lambda start: part(start, SIZE, ETag='W/"other"'),
    "another date": lambda start: part(start, SIZE, Last_Modified="Wed, 03 Jan 2024 03:04:05 GMT"),
    "another length": lambda start: part(start, SIZE, total=SIZE + 5),
    "a coding": lambda start: part(start, SIZE, Content_Encoding="gzip"),
    "another start": lambda start: part(start + 10, SIZE),
    "the beginning": lambda start: part(0, SIZE),
    "a body that is shorter than its range": lambda start: replace(part(start, SIZE), body=OTHER[start + 9 :]),
    "several parts": lambda start: Answer(
        206, {"Content-Type": "multipart/byteranges; boundary=x"}, b"--x\r\n\r\n" + OTHER[start:]
    ),
    "no range stated": lambda start: Answer(206, {}, OTHER[start:]),
    "a range that is none": lambda start: Answer(206, {"Content-Range": f"bytes {start}-"}, OTHER[start:]),
    "a range without a total in another unit": lambda start: Answer(
        206, {"Content-Range": f"items {start}-9/*"}, OTHER[start:]
    ),
    "200 for a part": lambda start: replace(part(start, SIZE), status=200),
    "416": lambda start: Answer(416, {"Content-Range": f"bytes */{SIZE}"}),
    "416 without a length": lambda start: Answer(416),
    "416 with an absurd length": lambda start: Answer(416, {"Content-Range": "bytes */" + "9" * 5000}),
    "204": lambda start: Answer(204),
}


def published(
    upstream: FakeUpstream,
    rest: Rest,
    whole: Callable[[Answer], Answer] = lambda answer: answer,
    breaks: Gate | None = None,
    **keys: Any,
) -> str:
    upstream.content = Odd(rest, whole)
    upstream.add_file("demo", MADE.filename, DATA, **keys)
    upstream.script("GET /packages/*", Fault(hold=breaks, hold_after=BREAKS_AT, reset_after=BREAKS_AT), times=1)
    return MADE.filename


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("rest", RESTS.values(), ids=RESTS)
@pytest.mark.parametrize("keys", [{}, {"size": None}], ids=["size", "no size"])
@pytest.mark.parametrize("etags", [True, False], ids=["ETag", "date"])
async def test_the_rest_of_a_file_is_joined_only_where_it_belongs_to_it(
    upstream: FakeUpstream, run: Start, rest: Rest, keys: dict[str, Any], etags: bool
) -> None:
    name = published(upstream, rest, **keys)
    upstream.content.etags = etags
    proxy = await run(upstream)
    reply = await proxy.get(await proxy.link("demo", name))
    assert DATA.startswith(reply.body)
    assert (reply.status, reply.complete, len(reply.body)) == (200, True, SIZE)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("keys", [{}, {"hashes": {}}], ids=["digest", "no digest"])
@pytest.mark.parametrize("ranges", [True, False], ids=["parts", "wholes"])
async def test_what_is_another_file_now_is_not_the_rest_of_the_one_that_was_begun(
    upstream: FakeUpstream, run: Start, keys: dict[str, Any], ranges: bool
) -> None:
    def other(answer: Answer) -> Answer:
        return Answer(200, {"ETag": '"other"'}, OTHER)

    wholes = iter([lambda answer: answer])
    name = published(
        upstream,
        lambda start: part(start, SIZE, ETag='"other"') if ranges else other(Answer(200)),
        lambda answer: next(wholes, other)(answer),
        breaks := Gate(),
        **keys,
    )
    proxy = await run(upstream)
    client = await proxy.connect(await proxy.link("demo", name))
    await client.got_body(BREAKS_AT)
    breaks.release()
    reply = await client.reply()
    assert DATA.startswith(reply.body)
    assert not reply.complete
    await client.close()


@pytest_twisted.ensureDeferred
async def test_without_a_digest_the_rest_is_asked_for_on_condition_of_what_was_said(upstream: FakeUpstream, run: Start) -> None:
    published(upstream, lambda start: part(start, SIZE, data=DATA), hashes={})
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    assert (await proxy.get(path)).body == DATA
    (condition,) = [request.headers["if-range"] for request in upstream.asked if "range" in request.headers]
    assert condition.startswith('"')


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("headers", "whole"),
    [
        ({"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}, True),
        ({"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE + 1}"}, False),
        ({"Content-Range": f"bytes 1-{SIZE - 1}/{SIZE}"}, False),
        ({"Content-Type": "multipart/byteranges; boundary=x"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("status", [200, 206])
async def test_a_part_that_nobody_asked_for_is_the_file_only_if_it_is_all_of_it(
    upstream: FakeUpstream, run: Start, headers: dict[str, str], whole: bool, status: int
) -> None:
    if status == 200 and "Content-Range" not in headers:
        return  # that is a whole file
    upstream.content = Odd(lambda start: Answer(416), lambda answer: Answer(status, headers, DATA))
    upstream.add_file("demo", MADE.filename, DATA, hashes={}, size=None)
    proxy = await run(upstream)
    reply = await proxy.get(await proxy.link("demo", MADE.filename))
    assert (reply.status == 200 and reply.complete) == whole
    assert not whole or reply.body == DATA


# -- files that are not here: HEAD, small ranges, metadata --------------------------------------------------------------------

HEADS = {
    "404": Fault(status=404),
    "405": Fault(status=405),
    "403": Fault(status=403),
    "401": Fault(status=401),
    "501": Fault(status=501),
    "500": Fault(status=500),
    "no length": Fault(no_content_length=True),
    "length 0": Fault(content_length=0),
    "304": Fault(status=304),
    "204": Fault(status=204),
    "gzip": Fault(headers={"Content-Encoding": "gzip"}),
    "a page": Fault(content_length=115, headers={"Content-Type": "text/html; charset=utf-8"}),
    "well": Fault(),
}
PARTS: dict[str, Rest] = {
    "well": lambda start: part(start, SIZE, data=DATA),
    "200": lambda start: Answer(200, {}, DATA),
    **{
        name: RESTS[name]
        for name in ("another length", "a coding", "another start", "several parts", "no range stated", "416", "204")
    },
    "501": lambda start: Answer(501),
}


async def asked_cold(proxy: Running, path: str) -> None:
    """Each way to ask for a file that is not here, each on a proxy that has nothing: this one has been asked for the page."""
    head = await proxy.head(path)
    assert head.status == 200
    assert head.headers.get("content-length") in (str(SIZE), None)
    part_of = await proxy.get(path, Range="bytes=1000-1999")
    assert (part_of.status, part_of.body) in ((206, DATA[1000:2000]), (200, DATA))
    tail = await proxy.get(path, Range="bytes=-500")
    assert (tail.status, tail.body) in ((206, DATA[-500:]), (200, DATA))
    metadata = await proxy.get(path + ".metadata")
    assert (metadata.status, metadata.body) == (200, MADE.metadata)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("keys", [{"size": None}, {"size": None, "hashes": {}}], ids=["digest", "nothing"])
async def test_a_server_that_cannot_do_head_is_asked_in_another_way(
    upstream: FakeUpstream, run: Start, fault: Fault, keys: dict[str, Any]
) -> None:
    upstream.add_file("demo", MADE.filename, DATA, **keys)
    upstream.script("HEAD *", fault)
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    assert (await proxy.head(path)).headers["content-length"] == str(SIZE)
    await asked_cold(proxy, path)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("rest", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("keys", [{}, {"size": None}], ids=["size", "no size"])
@pytest.mark.parametrize("head", ["405", "length 0", "well"])
async def test_a_server_that_cannot_do_ranges_is_asked_for_the_whole(
    upstream: FakeUpstream, run: Start, rest: Rest, keys: dict[str, Any], head: str
) -> None:
    if rest is RESTS["another length"] and keys and head != "well":
        return  # nobody could know
    upstream.content = Odd(rest)
    upstream.add_file("demo", MADE.filename, DATA, **keys)
    upstream.script("HEAD *", HEADS[head])
    proxy = await run(upstream)
    await asked_cold(proxy, await proxy.link("demo", MADE.filename))


@pytest_twisted.ensureDeferred
async def test_requests_that_only_head_fails_do_not_take_upstream_out(upstream: FakeUpstream, run: Start) -> None:
    made = [wheel("many", f"{number}.0") for number in range(6)]
    for each in made:
        upstream.add_file("many", each.filename, each.data, size=None)
    upstream.script("HEAD *", Fault(status=501))
    proxy = await run(upstream)
    for each in made:
        assert (await proxy.head(await proxy.link("many", each.filename))).status == 200
    assert b"left alone" not in (await wire.fetch(proxy.port, "/-/ready")).body


@pytest_twisted.ensureDeferred
async def test_the_size_of_a_file_that_was_here_once_is_known(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    """The page states the digest and no size, and upstream has another file at the URL by now."""
    upstream.add_file("demo", MADE.filename, DATA, size=None)
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    assert (await proxy.get(path)).body == DATA
    (stored,) = (each for each in tmp_path.glob("data/files/*/*") if each.stat().st_size == len(DATA))
    stored.unlink()
    upstream.script("HEAD *", Fault(content_length=1234))
    assert (await proxy.head(path)).headers["content-length"] == str(len(DATA))


# -- 416 ----------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("keys", "total"), [({}, SIZE), ({"hashes": {}}, "*")], ids=["digest", "no digest, and parts without a total"]
)
@pytest.mark.parametrize("claimed", [115, 4_000, SIZE * 2], ids=["an apology", "too short", "too long"])
@pytest.mark.parametrize("how", ["HEAD", "a range of one byte"])
@pytest.mark.parametrize("asked", ["bytes=5000-5999", f"bytes={SIZE - 1000}-", "bytes=-1000"])
async def test_no_range_is_refused_or_counted_by_a_size_that_nothing_vouches_for(
    upstream: FakeUpstream, run: Start, keys: dict[str, Any], total: object, claimed: int, how: str, asked: str
) -> None:
    def rest(start: int) -> Answer:
        if start == 0 and how != "HEAD":
            return Answer(206, {"Content-Range": f"bytes 0-0/{claimed}"}, DATA[:1])
        stop = min(SIZE, start + 1_000)
        return Answer(206, {"Content-Range": f"bytes {start}-{stop - 1}/{total}"}, DATA[start:stop])

    upstream.content = Odd(rest)
    upstream.add_file("demo", MADE.filename, DATA, size=None, **keys)
    upstream.script("HEAD *", Fault(content_length=claimed) if how == "HEAD" else Fault(status=405))
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    start = 5_000 if "5000" in asked else SIZE - 1_000
    reply = await proxy.get(path, Range=asked)
    assert (reply.status, reply.body) in ((206, DATA[start : start + 1_000]), (200, DATA))
    assert reply.headers.get("content-range", f"/{SIZE}").endswith(f"/{SIZE}")
    assert (await proxy.get(path)).body == DATA
    beyond = await proxy.get(path, Range=f"bytes={SIZE}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{SIZE}"), "it is stored by now"


@pytest_twisted.ensureDeferred
async def test_the_size_of_a_download_that_is_not_verified_refuses_no_range(upstream: FakeUpstream, run: Start) -> None:
    upstream.content = Odd(lambda start: Answer(501), lambda answer: Answer(200, {}, bytes(10_000)))
    upstream.add_file("demo", MADE.filename, DATA, size=None)
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    wrong = await proxy.get(path, Range="bytes=20000-20999")
    assert wrong.status != 416
    assert wrong.status != 200 or not wrong.complete
    upstream.content = Odd(lambda start: Answer(501))
    upstream.add_file("demo", MADE.filename, DATA, size=None)
    right = await proxy.get(path, Range="bytes=20000-20999")
    assert (right.status, right.body) in ((206, DATA[20_000:21_000]), (200, DATA))
