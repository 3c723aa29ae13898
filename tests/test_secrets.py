"""URLs of upstream that bear secrets: user information and queries never reach a client, a log or an operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent

from proxy.settings import PageLimits
from proxy.simple.links import bare, shown, shown_in
from tests.inprocess import JSON, Running, Start, upstream_settings
from tests.support import certs
from tests.support.content import HTML_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

SECRET = "hunter2"
SIX = wheel("six", "1.0")
EXPIRED = PageLimits(ttl=0.0, soft_deadline=5.0)


def secretly(url: str) -> str:
    """*url* with a user, a password, a signature and a fragment, each of them a secret."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://user:{SECRET}@{rest}?X-Amz-Signature={SECRET}&token={SECRET}"


class Ear:
    """All that came out of a proxy: to clients, to the log, to operators."""

    def __init__(self, proxy: Running, logged: list[LogEvent], data: Path) -> None:
        self._proxy = proxy
        self._logged = logged
        self._data = data
        self._heard: list[str] = []

    async def get(self, path: str, **headers: str) -> Any:
        reply = await self._proxy.get(path, **headers)
        self._heard.append(f"{reply.reason} {dict(reply.headers)} {reply.body.decode('latin-1')}")
        return reply

    def stored(self) -> str:
        """What is in the data directory."""
        return "\n".join(each.read_bytes().decode("latin-1") for each in self._data.rglob("*") if each.is_file())

    async def told(self) -> str:
        states = await self._proxy.service.administration.upstreams(lambda said: None)
        lines = [f"{formatEvent(event)} {event.get('log_failure', '')}" for event in self._logged]
        return "\n".join([*self._heard, *lines, json.dumps(states)])


@pytest.fixture
def listen(run: Start, logged: list[LogEvent], tmp_path: Path) -> Callable[..., Any]:
    async def listen(*upstreams: Any, **options: Any) -> Ear:
        return Ear(await run(*upstreams, **{"limits": EXPIRED, **options}), logged, tmp_path / "data")

    return listen


def sign(upstream: FakeUpstream, **keys: Any) -> None:
    """Have the page of six list its wheel under a URL with secrets in it, with *keys* besides."""
    upstream.add_file("six", SIX.filename, SIX.data)
    entry = {"filename": SIX.filename, "url": secretly(f"{upstream.base}/signed/{SIX.filename}"), "hashes": {}, **keys}
    page = {"meta": {"api-version": "1.0"}, "name": "six", "files": [entry]}
    upstream.add_path("/simple/six/", json.dumps(page).encode(), JSON)


FAULTS = {
    "no such file": Fault(status=404),
    "forbidden": Fault(status=403),
    "an error": Fault(status=500),
    "a loop": Fault(status=508),
    "no HTTP": Fault(garbage=b"\x15\x03"),
    "dropped": Fault(drop=True),
    "cut off": Fault(cut_after=10),
    "redirected to itself": Fault(redirect=f"?again={SECRET}"),
    "redirected to what is none": Fault(redirect=f"http://user:{SECRET}@[/?x={SECRET}"),
    "redirected to another scheme": Fault(redirect=f"ftp://user:{SECRET}@files.example/?x={SECRET}"),
    "redirected to a bad port": Fault(redirect=f"http://user:{SECRET}@files.example:99999/?x={SECRET}"),
    "redirected to nothing there": Fault(redirect=f"http://user:{SECRET}@127.0.0.1:1/?x={SECRET}"),
    "redirected to a name with signs": Fault(redirect=f"http://user:{SECRET}@a^b.example/?x={SECRET}"),
    "a sign-in page": Fault(body=b"<html>", headers={"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_had_tells_no_secret(upstream: FakeUpstream, listen: Any, kind: str) -> None:
    sign(upstream)
    upstream.script("/signed/*", FAULTS[kind])
    ear = await listen(upstream)
    for accept in (JSON, HTML_TYPE):
        await ear.get("/simple/six/", Accept=accept)
    for name in (SIX.filename, f"{SIX.filename}.metadata", f"{SIX.filename}.provenance"):
        await ear.get(f"/files/six/none/{name}")
        await ear.get(f"/files/six/none/{name}", Range="bytes=0-1")
    assert upstream.count("/signed/*") > 0
    assert SECRET not in await ear.told()


@pytest.mark.parametrize("kind", FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_page_that_redirects_tells_no_secret(upstream: FakeUpstream, listen: Any, kind: str) -> None:
    sign(upstream)
    ear = await listen(upstream)
    upstream.script("/simple/six/?*", FAULTS[kind])
    upstream.script("/simple/six/", Fault(redirect=f"/simple/six/?token={SECRET}"))
    await ear.get("/simple/six/")
    await ear.get("/pypi/six/json")
    assert SECRET not in await ear.told()


@pytest_twisted.ensureDeferred
async def test_a_page_from_behind_a_signed_redirect_is_kept_without_the_signature(
    upstream: FakeUpstream, listen: Any, run: Start
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    upstream.script("/simple/six/", Fault(redirect=secretly(f"{upstream.base}/real/simple/six/")))
    page = {"meta": {"api-version": "1.0"}, "name": "six", "files": [{"filename": "a.zip", "url": "a.zip", "hashes": {}}]}
    upstream.add_path("/real/simple/six/", json.dumps(page).encode(), JSON)
    upstream.add_path("/real/simple/six/a.zip", SIX.data)
    ear = await listen(upstream)
    assert (await ear.get("/simple/six/", Accept=JSON)).json["files"][0]["filename"] == "a.zip"
    assert (await ear.get("/files/six/none/a.zip")).body == SIX.data
    assert SECRET not in await ear.told() + ear.stored()


@pytest_twisted.ensureDeferred
async def test_what_is_passed_on_of_a_page_bears_no_secret(upstream: FakeUpstream, listen: Any) -> None:
    there = secretly("https://index.example/x")
    sign(upstream, provenance=there, future={"a": [there], "b": "//user:hunter2@host.example/x"}, yanked="why")
    listed = {"meta": {"api-version": "1.0", "more": there}, "projects": [{"name": "six", "a": there, "_last-serial": 1}]}
    upstream.add_path("/simple/", json.dumps(listed).encode(), JSON)
    document = {
        "info": {"home_page": "https://six.example/?id=1", "download_url": there, "more": [there]},
        "urls": [{"filename": SIX.filename, "url": there, "more": there}],
        "releases": {"1.0": [{"filename": SIX.filename, "url": there, "more": {"x": there}}]},
        "last_serial": 1,
    }
    upstream.add_path("/pypi/six/json", json.dumps(document).encode(), "application/json")
    ear = await listen(upstream)
    answers = [
        await ear.get(path, Accept=accept)
        for path in ("/simple/six/", "/simple/", "/pypi/six/json")
        for accept in (JSON, HTML_TYPE)
    ]
    assert [each.status for each in answers] == [200] * 6
    for answer in answers[:4]:
        assert SECRET.encode() not in answer.body
    file = answers[0].json["files"][0]
    assert (file["provenance"], file["future"]["a"]) == ("https://index.example/x", ["https://index.example/x"])
    legacy = answers[4].json
    assert legacy["info"]["home_page"] == "https://six.example/?id=1"
    assert f"user:{SECRET}" not in json.dumps(legacy)
    assert SECRET not in json.dumps([legacy["urls"], legacy["releases"]])


@pytest_twisted.ensureDeferred
async def test_unknown_attributes_of_html_bear_no_secret(upstream: FakeUpstream, listen: Any) -> None:
    link = f'<a href="{SIX.filename}" data-news="{secretly("https://index.example/x")}">{SIX.filename}</a>'
    upstream.add_path("/simple/six/", f"<html><body>{link}</body></html>".encode(), "text/html")
    ear = await listen(upstream)
    assert (await ear.get("/simple/six/", Accept=JSON)).json["files"][0]["data-news"] == "https://index.example/x"
    assert b'data-news="https://index.example/x"' in (await ear.get("/simple/six/", Accept=HTML_TYPE)).body


@pytest_twisted.ensureDeferred
async def test_provenance_behind_a_signature_that_changes_is_one_record(
    make_upstream: Any, run: Start, logged: list[LogEvent], tmp_path: Path
) -> None:
    upstream = make_upstream(tls=certs.server_context())
    settings = upstream_settings(upstream.url, "pypi", ca_file=certs.authority().write(tmp_path, "ca")[0])
    proxy = await run(settings, limits=EXPIRED)
    ear = Ear(proxy, logged, tmp_path / "data" / "records")
    counts = set()
    for number in range(4):
        place = f"/integrity/six?signature={SECRET}{number}"
        upstream.add_file("six", SIX.filename, SIX.data, provenance=f"{upstream.base}{place}")
        upstream.add_path("/integrity/six", b'{"version":%d}' % number, "application/json")
        link = await proxy.link("six", SIX.filename)
        assert (await ear.get(f"{link}.provenance")).json == {"version": number}
        stats: Any = await proxy.service.administration.operations["stats"](lambda said: None)
        counts.add(stats["records"])
    assert len(counts) == 1
    upstream.add_file("six", SIX.filename, SIX.data, provenance=f"{upstream.base}/gone?signature={SECRET}")
    reply = await ear.get(f"{await proxy.link('six', SIX.filename)}.provenance")
    assert reply.status == 404
    assert f"signature={SECRET}" not in "".join([f"{reply.reason} {reply.body!r}", *map(str, map(formatEvent, logged))])


# -- the functions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "for_people", "kept"),
    [
        ("https://h.example/a/b", "https://h.example/a/b", "https://h.example/a/b"),
        ("https://u:p@h.example/a?b=c#d", "https://***@h.example/a?***", "https://h.example/a"),
        ("https://u:p/q?r@h.example/a", "https://***", "https://u:p/q"),
        ("https://h.example/a?b=@c", "https://***", "https://h.example/a"),
        ("//u@h.example/a", "//***@h.example/a", "//h.example/a"),
        ("HTTPS://u@h.example", "HTTPS://***@h.example", "HTTPS://h.example"),
        ("https:\\\\u:p@h.example/", "https:\\\\\\\\***@h.example/", "https:\\\\u:p@h.example/"),
        ("/a?b=c", "/a?***", "/a"),
        ("?b=c", "?***", ""),
        ("https://h.example/@scope/a", "https://***@scope/a", "https://h.example/@scope/a"),
        ("https://h.example/a\r\nb", "https://h.example/a\\r\\nb", "https://h.example/a\r\nb"),
    ],
)
def test_what_people_see_of_a_url_and_what_is_kept(url: str, for_people: str, kept: str) -> None:
    assert shown(url) == for_people
    assert bare(url) == kept


@given(st.text(st.characters(exclude_characters="@?#"), max_size=20), st.text(max_size=30), st.text(max_size=30))
def test_no_user_and_no_query_is_ever_shown(path: str, user: str, query: str) -> None:
    mark = "S3CR3T"
    for url in (f"https://{user}{mark}@h.example/{path}", f"https://h.example/{path}?{query}{mark}", f"/{path}#{mark}"):
        assert mark not in shown(url)
        assert len(shown(url)) <= 10 * 300
    assert mark not in shown_in(f"failed at https://u:{mark}@h.example/a?b={mark} and http://h.example/?{mark}: refused")
