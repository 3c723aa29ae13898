"""The fake upstream fails as it is told to: every other test leans on this."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS

from tests.support import certs, wire
from tests.support.addresses import Addresses, sicken
from tests.support.catalogue import REQUIREMENTS, fill_landscape, fill_page
from tests.support.clients import Scratch
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.faults import Request
from tests.support.hosts import written
from tests.support.process import ROOT
from tests.support.standalone import Misfortune, StandaloneUpstream
from tests.support.wheels import data_of

DATA = data_of(100_000)


async def fetch(upstream: FakeUpstream, path: str, method: str = "GET", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and raw body of one request on a connection of its own."""
    client = await wire.ask(upstream.port, path, method, **headers)
    await client.ended
    reply = wire.parse(bytes(client.received), head=method == "HEAD")
    return reply.status, reply.headers, client.body


def path_of(upstream: FakeUpstream, url: str) -> str:
    return url.removeprefix(upstream.base)


@pytest_twisted.ensureDeferred
async def test_pages_are_json_or_html_as_asked_and_files_are_where_they_say(upstream: FakeUpstream) -> None:
    url = upstream.add_file("Some.Thing", "some_thing-1.0-py3-none-any.whl", DATA, metadata=b"Name: x", requires_python=">=3.8")
    status, headers, body = await fetch(upstream, "/simple/some-thing/", Accept=JSON_TYPE)
    page = json.loads(body)
    assert (status, headers["content-type"], headers["x-pypi-last-serial"]) == (200, JSON_TYPE, "2")
    assert page["meta"]["api-version"] == "1.4"
    assert page["versions"] == ["1.0"]
    assert page["files"][0]["url"] == url
    assert page["files"][0]["requires-python"] == ">=3.8"
    _, headers, body = await fetch(upstream, "/simple/some-thing/")
    assert headers["content-type"].startswith("text/html")
    assert b'data-core-metadata="sha256=' in body
    upstream.content.json = False
    assert (await fetch(upstream, "/simple/some-thing/", Accept=JSON_TYPE))[1]["content-type"].startswith("text/html")
    assert (await fetch(upstream, path_of(upstream, url)))[2] == DATA
    assert (await fetch(upstream, path_of(upstream, url) + ".metadata"))[2] == b"Name: x"
    assert (await fetch(upstream, "/simple/Some.Thing"))[1]["location"] == "/simple/some-thing/"
    assert (await fetch(upstream, "/simple/other/"))[0] == 404
    legacy = json.loads((await fetch(upstream, "/pypi/some-thing/json"))[2])
    assert legacy["urls"][0]["url"] == url
    assert [each.path for each in upstream.asked][:2] == ["/simple/some-thing/", "/simple/some-thing/"]
    assert upstream.count("/simple/some-thing/") == 3
    assert upstream.count("*.metadata", "HEAD") == 0


@pytest_twisted.ensureDeferred
async def test_a_condition_that_holds_is_answered_304(upstream: FakeUpstream) -> None:
    upstream.add_file("a", "a-1.tar.gz", DATA)
    upstream.content.last_modified = True
    _, headers, _ = await fetch(upstream, "/simple/a/", Accept=JSON_TYPE)
    assert (await fetch(upstream, "/simple/a/", Accept=JSON_TYPE, If_None_Match=headers["etag"]))[0] == 304
    assert (await fetch(upstream, "/simple/a/", Accept=JSON_TYPE, If_Modified_Since=headers["last-modified"]))[0] == 304
    upstream.add_file("a", "a-2.tar.gz", DATA)
    assert (await fetch(upstream, "/simple/a/", Accept=JSON_TYPE, If_None_Match=headers["etag"]))[0] == 200


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=99990-", 206, DATA[99990:]),
        ("bytes=-5", 206, DATA[-5:]),
        ("bytes=99990-200000", 206, DATA[99990:]),
        ("bytes=100000-", 416, b""),
        ("bytes=0-1,4-5", 200, DATA),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ranges_of_files_are_honoured(upstream: FakeUpstream, asked: str, status: int, body: bytes) -> None:
    path = path_of(upstream, upstream.add_file("a", "a-1.tar.gz", DATA))
    answered = await fetch(upstream, path, Range=asked)
    assert (answered[0], answered[2]) == (status, body)
    etag = (await fetch(upstream, path, "HEAD"))[1]["etag"]
    assert (await fetch(upstream, path, Range=asked, If_Range=etag))[0] == status
    assert (await fetch(upstream, path, Range=asked, If_Range='"other"'))[0] == 200


@pytest_twisted.ensureDeferred
async def test_connections_are_kept_alive_and_counted(upstream: FakeUpstream) -> None:
    upstream.add_file("a", "a-1.tar.gz", b"")
    talk = await wire.connect(upstream.port)
    for _ in range(3):
        talk.ask("/simple/a/")
        assert (await talk.reply()).status == 200
    other = await wire.connect(upstream.port)
    await upstream.until(lambda: upstream.connections == 2)
    assert (upstream.answered, upstream.all_connections) == (3, 2)
    talk.transport.loseConnection()
    other.transport.loseConnection()
    await upstream.until(lambda: upstream.connections == 0)
    assert upstream.most_connections == 2


async def _faulted(upstream: FakeUpstream, fault: Fault, method: str = "GET", **headers: str) -> wire.Client:
    path = path_of(upstream, upstream.add_file("a", "a-1.tar.gz", DATA))
    upstream.script("/packages/*", fault)
    talk = await wire.connect(upstream.port)
    talk.ask(path, method, **headers)
    return talk


@pytest_twisted.ensureDeferred
async def test_a_cut_off_body_ends_cleanly_after_exactly_so_many_bytes(upstream: FakeUpstream) -> None:
    talk = await _faulted(upstream, Fault(cut_after=70_001))
    await talk.ended
    assert talk.reason
    assert talk.reason.check(ConnectionDone)
    assert talk.body == DATA[:70_001]
    assert b"Content-Length: 100000" in talk.received


@pytest.mark.parametrize("position", [0, 1, 70_001, 100_000])
@pytest_twisted.ensureDeferred
async def test_a_reset_comes_after_exactly_so_many_bytes(upstream: FakeUpstream, position: int) -> None:
    talk = await _faulted(upstream, Fault(reset_after=position))
    await talk.ended
    assert talk.reason
    assert talk.reason.check(ConnectionLost)
    assert talk.body == DATA[:position]


@pytest_twisted.ensureDeferred
async def test_a_stalled_body_stays_silent_on_an_open_connection(upstream: FakeUpstream) -> None:
    talk = await _faulted(upstream, Fault(stall_after=500))
    await talk.got_body(500)
    assert talk.body == DATA[:500]
    assert talk.reason is None
    await talk.close()


@pytest_twisted.ensureDeferred
async def test_one_byte_is_wrong_where_the_script_says(upstream: FakeUpstream) -> None:
    talk = await _faulted(upstream, Fault(corrupt_at=-1, close=True))
    await talk.ended
    body = talk.body
    assert body[:-1] == DATA[:-1]
    assert body[-1] != DATA[-1]


@pytest_twisted.ensureDeferred
async def test_framing_can_be_chunked_compressed_wrong_or_missing(upstream: FakeUpstream) -> None:
    path = path_of(upstream, upstream.add_file("a", "a-1.tar.gz", DATA))
    faults = {
        "chunked": Fault(chunked=True),
        "gzip": Fault(gzip=True),
        "wrong": Fault(content_length=5),
        "missing": Fault(no_content_length=True),
        "changed": Fault(headers={"etag": None, "X-Extra": "1"}),
        "whole": Fault(ignore_range=True),
    }
    got = {}
    for name, fault in faults.items():
        upstream.script("/packages/*", fault, times=1)
        got[name] = await fetch(upstream, path, Range="bytes=10-")
    assert got["chunked"][1]["transfer-encoding"] == "chunked"
    assert got["chunked"][2].endswith(b"0\r\n\r\n")
    assert gzip.decompress(got["gzip"][2]) == DATA[10:]
    assert got["wrong"][1]["content-length"] == "5"
    assert "content-length" not in got["missing"][1]
    assert "etag" not in got["changed"][1]
    assert got["changed"][1]["x-extra"] == "1"
    assert got["whole"][0] == 200
    assert got["whole"][2] == DATA


@pytest_twisted.ensureDeferred
async def test_statuses_redirects_garbage_and_drops(upstream: FakeUpstream) -> None:
    upstream.add_file("a", "a-1.tar.gz", DATA)
    upstream.script("HEAD *", Fault(status=405))
    upstream.script("*", Fault(status=429, reason="Slow down", headers={"Retry-After": "7"}), times=1)
    upstream.script("*", Fault(redirect="http://b.example/x", status=308), times=1)
    upstream.script("*", Fault(body=b"<html>", headers={"Content-Type": "text/html"}), times=1)
    assert (await fetch(upstream, "/simple/a/", "HEAD"))[0] == 405
    assert (await fetch(upstream, "/simple/a/"))[1]["retry-after"] == "7"
    moved = await fetch(upstream, "/simple/a/")
    assert (moved[0], moved[1]["location"]) == (308, "http://b.example/x")
    assert (await fetch(upstream, "/simple/a/"))[::2] == (200, b"<html>")
    assert b"a-1.tar.gz" in (await fetch(upstream, "/simple/a/"))[2]
    for fault, heard in ((Fault(garbage=b"220 mail\r\n"), b"220 mail\r\n"), (Fault(drop=True), b"")):
        upstream.script("GET *", fault, times=1)
        talk = await wire.connect(upstream.port)
        talk.ask("/simple/a/")
        await talk.ended
        assert talk.received == heard


@pytest_twisted.ensureDeferred
async def test_a_gate_holds_responses_before_their_headers_or_within_the_body(upstream: FakeUpstream) -> None:
    path = path_of(upstream, upstream.add_file("a", "a-1.tar.gz", DATA))
    gate = upstream.hold("/simple/*")
    later = upstream.hold("/packages/*", after=10)
    page, file = await wire.connect(upstream.port), await wire.connect(upstream.port)
    page.ask("/simple/a/")
    file.ask(path)
    await upstream.arrived("/simple/a/")
    await upstream.until(lambda: later.arrivals == 1)
    await file.got_body(10)
    assert page.received == b""
    gate.release()
    later.release()
    assert b"a-1.tar.gz" in (await page.reply()).body
    assert (await file.reply()).body.endswith(DATA)
    for each in (page, file):
        await each.close()


@pytest_twisted.ensureDeferred
async def test_a_trickle_and_a_rate_send_the_same_bytes(upstream: FakeUpstream) -> None:
    talk = await _faulted(upstream, Fault(trickle=(30_000, 0.001)))
    assert (await talk.reply()).body.endswith(DATA)
    upstream.heal()
    upstream.rate = 10_000_000
    talk.ask(upstream.asked[0].path)
    assert (await talk.reply()).body.endswith(DATA)
    await talk.close()


@pytest_twisted.ensureDeferred
async def test_down_refuses_and_up_listens_on_the_same_port(upstream: FakeUpstream) -> None:
    upstream.add_file("a", "a-1.tar.gz", DATA)
    talk, url = await wire.connect(upstream.port), upstream.url
    await upstream.down()
    await talk.ended
    with pytest.raises(ConnectionRefusedError):
        await wire.connect(upstream.port)
    upstream.up()
    assert upstream.url == url
    assert (await fetch(upstream, "/simple/a/"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_silent_upstream_accepts_and_counts_and_says_nothing(upstream: FakeUpstream) -> None:
    upstream.silent()
    talk = await wire.connect(upstream.port)
    talk.ask("/simple/a/")
    await upstream.arrived("/simple/a/")
    assert not talk.received
    assert talk.reason is None
    with pytest.raises(TimeoutError, match="/simple/a/"):
        await upstream.until(lambda: upstream.answered > 0, timeout=0.01)
    await talk.close()
    await upstream.until(lambda: upstream.in_progress == 0)


@pytest_twisted.ensureDeferred
async def test_files_may_be_on_another_host(make_upstream: Callable[..., FakeUpstream]) -> None:
    files = make_upstream()
    pages = make_upstream(file_host=files)
    url = pages.add_file("a", "a-1.tar.gz", DATA)
    assert url.startswith(files.base)
    assert url.encode() in (await fetch(pages, "/simple/a/"))[2]
    assert (await fetch(files, path_of(files, url)))[2] == DATA


@pytest_twisted.ensureDeferred
async def test_tls_is_spoken_with_certificates_of_the_tests_own_authority(make_upstream: Callable[..., FakeUpstream]) -> None:
    upstream = make_upstream(tls=certs.server_context(demand_client=True))
    upstream.add_file("a", "a-1.tar.gz", DATA)
    trusted = Certificate.loadPEM(certs.authority().certificate_pem)
    identity = certs.client()
    own = PrivateCertificate.loadPEM(identity.certificate_pem + identity.key_pem)
    talk = await wire.connect(upstream.port, optionsForClientTLS("127.0.0.1", trustRoot=trusted, clientCertificate=own))
    talk.ask("/simple/a/")
    assert b"a-1.tar.gz" in (await talk.reply()).body
    await talk.close()
    anonymous = await wire.connect(upstream.port, optionsForClientTLS("127.0.0.1", trustRoot=trusted))
    anonymous.ask("/simple/a/")
    await anonymous.ended
    assert anonymous.reason is not None
    assert not anonymous.reason.check(ConnectionDone)
    assert anonymous.received == b""


def test_an_expired_certificate_and_another_authority_are_what_they_say(tmp_path: Path) -> None:
    assert certs.server(expired=True).certificate.not_valid_after_utc.year == 2021
    assert certs.authority("other").certificate_pem != certs.authority().certificate_pem
    crt, key = certs.client().write(tmp_path, "client")
    ssl.create_default_context().load_cert_chain(crt, key)


@pytest_twisted.ensureDeferred
async def test_the_standalone_upstream_is_told_what_to_do_over_http() -> None:
    upstream = StandaloneUpstream()
    upstream.start()
    fill_page(upstream, "big", 100)
    assert len(json.loads((await fetch(upstream, "/simple/big/", Accept=JSON_TYPE))[2])["files"]) == 100
    assert (await fetch(upstream, "/-/fault?match=/simple/*&status=503&times=1"))[0] == 200
    assert (await fetch(upstream, "/simple/big/"))[0] == 503
    assert (await fetch(upstream, "/simple/big/"))[0] == 200
    counts = json.loads((await fetch(upstream, "/-/asked"))[2])
    assert counts["requests"] == 3
    assert counts["by_path"] == {"/simple/big/": 3}
    await fetch(upstream, "/-/names?projects=1000")
    assert len(json.loads((await fetch(upstream, "/simple/", Accept=JSON_TYPE))[2])["projects"]) == 1000
    await fetch(upstream, "/-/names?projects=0")
    assert [each["name"] for each in json.loads((await fetch(upstream, "/simple/", Accept=JSON_TYPE))[2])["projects"]] == [
        "big"
    ]
    await fetch(upstream, "/-/reset")
    assert json.loads((await fetch(upstream, "/-/asked"))[2])["requests"] == 0
    await upstream.close()


@pytest_twisted.ensureDeferred
async def test_an_upstream_at_several_addresses_has_the_same_at_all_and_fails_where_it_is_told_to() -> None:
    up = await Addresses("up.example", ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"], FakeUpstream).start()
    url = up.first.add_file("six", "six-1.0.zip", DATA)
    assert url.startswith(f"http://up.example:{up.first.port}/packages/")
    await sicken(up.at[1], "502")
    await sicken(up.at[2], "dead")
    await sicken(up.at[3], "deaf")
    statuses = []
    for each in up.at[:2]:
        client = await wire.connect(each.port, address=each.address)
        client.ask("/simple/six/", Connection="close")
        await client.ended
        statuses.append(wire.parse(bytes(client.received)).status)
    assert statuses == [200, 502]
    assert up.counts() == [1, 1, 0, 0]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((up.at[2].address, up.first.port), 0.2)
    with pytest.raises(TimeoutError):
        socket.create_connection((up.at[3].address, up.first.port), 0.2)
    up.at[3].up()
    await (await wire.connect(up.first.port, address=up.at[3].address)).close()
    await up.close()


@pytest_twisted.ensureDeferred
async def test_a_connection_is_reset_instead_of_an_answer(upstream: FakeUpstream) -> None:
    upstream.script("*", Fault(reset=True))
    client = await wire.ask(upstream.port, "/simple/")
    await client.ended
    assert client.reason is not None
    assert client.reason.check(ConnectionLost)
    assert client.received == b""


def test_random_faults_never_come_twice_in_a_row_for_one_path() -> None:
    misfortune = Misfortune(0.5, broken=["/simple/broken/"])
    for path in ("/simple/a/", "/simple/b/"):
        failed = [misfortune.next(Request("GET", path, {})) != Fault() for _ in range(200)]
        assert 40 < sum(failed) < 100
        assert not any(one and two for one, two in itertools.pairwise(failed))
    kinds = [misfortune.next(Request("GET", "/simple/broken/", {})) for _ in range(8)]
    assert Fault() not in kinds
    assert kinds[:4] == kinds[4:]
    assert len({repr(each) for each in kinds}) == 4


def test_names_are_resolved_for_one_process_alone() -> None:
    names = {"up.example": ["127.0.0.1", "127.0.0.2", "::1"], "gone.example": []}
    code = (
        "import socket, sys\n"
        "from tests.support.hosts import Hosts, parsed\n"
        "Hosts(parsed(sys.argv[1:]), turning=True).install()\n"
        "def at(name, family=0):\n"
        "    try: return [each[4][0] for each in socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM)]\n"
        "    except socket.gaierror: return None\n"
        "print([at('up.example', socket.AF_INET), at('up.example'), at(b'up.example', socket.AF_INET6)])\n"
        "print([at('gone.example'), at('other.example'), at('127.0.0.3')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *written(names)], cwd=ROOT, capture_output=True, text=True, check=True, env={}
    )
    assert ended.stdout.splitlines() == [
        "[['127.0.0.1', '127.0.0.2'], ['127.0.0.2', '::1', '127.0.0.1'], ['::1']]",
        "[None, None, ['127.0.0.3']]",
    ]


@pytest_twisted.ensureDeferred
async def test_the_sixty_projects_of_the_bench_can_be_resolved_by_trying_releases(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    upstream.start()
    fill_landscape(upstream, releases=10)
    wanted = tmp_path / "requirements.in"
    wanted.write_text("\n".join(REQUIREMENTS), "utf-8")
    ended = await Scratch(tmp_path).uv_compile(upstream.url, "--no-header", "--no-annotate", str(wanted))
    await upstream.close()
    assert ended.status == 0, ended.output
    found = dict(line.split("==") for line in ended.output.splitlines() if "==" in line)
    assert found["boto3"] == found["botocore"] < max(found["s3transfer"], found["jmespath"]), (
        "the newest were not to be had together"
    )
    assert len(found) > 50
    assert upstream.count("*.whl") == 0, "all of it is told by METADATA"
    assert upstream.count("*/boto3-*.metadata") + upstream.count("*/aiobotocore-*.metadata") > 2
