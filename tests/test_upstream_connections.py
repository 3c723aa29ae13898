"""How upstream is reached: TLS, credentials and to whom they go, outbound proxies, and where pages and redirects may lead."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted

from proxy.upstream.http.guard import is_private
from tests.inprocess import JSON, Running, upstream_settings
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.forward_proxy import ForwardProxy
from tests.support.process import ProxyProcess

Serve = Callable[..., Awaitable[Running]]
Make = Callable[..., FakeUpstream]

DATA = b"data" * 3000
FILE = "six-1.0.tar.gz"


def filled(upstream: FakeUpstream, **keys: Any) -> FakeUpstream:
    upstream.add_file("six", FILE, DATA, **keys)
    return upstream


async def fetched(proxy: Running) -> bytes:
    reply = await proxy.get(await proxy.link("six", FILE))
    assert reply.complete, reply
    return reply.body


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return certs.authority().write(tmp_path, "ca")[0]


@pytest_twisted.ensureDeferred
async def test_an_authority_of_ones_own_is_trusted_and_no_other(make_upstream: Make, serve: Serve, authority: Path) -> None:
    upstream = filled(make_upstream(tls=certs.server_context()))
    assert await fetched(await serve(upstream_settings(upstream.url, ca_file=authority))) == DATA
    reply = await (await serve(upstream, data="other")).get("/simple/six/")
    assert reply.status == 503
    assert "TLS failure" in reply.reason


@pytest_twisted.ensureDeferred
async def test_a_client_certificate_is_shown_to_the_upstream_and_to_nobody_else(
    make_upstream: Make, serve: Serve, authority: Path, tmp_path: Path
) -> None:
    elsewhere = make_upstream(tls=certs.server_context(demand_client=True))
    upstream = make_upstream(tls=certs.server_context(demand_client=True))
    filled(upstream)
    certificate, key = certs.client().write(tmp_path, "client")
    settings = upstream_settings(upstream.url, ca_file=authority, client_cert=certificate, client_key=key)
    proxy = await serve(settings)
    assert await fetched(proxy) == DATA
    upstream.script("/simple/seven/", Fault(redirect=f"{elsewhere.url}six/"))
    assert (await proxy.get("/simple/seven/")).status == 503
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        ({"username": "ci", "password": "p:w"}, "Basic " + base64.b64encode(b"ci:p:w").decode()),
        ({"token": "t0ken"}, "Bearer t0ken"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_credentials_go_to_their_origin_and_not_along_redirects(
    make_upstream: Make, serve: Serve, credentials: dict[str, str], sent: str
) -> None:
    other = make_upstream()
    upstream = filled(make_upstream(file_host=other))
    filled(other)
    upstream.script("/simple/seven/", Fault(redirect=f"{other.url}six/"))
    proxy = await serve(upstream_settings(upstream.url, **credentials))
    assert await fetched(proxy) == DATA
    await proxy.get("/simple/seven/")
    assert {request.headers.get("authorization") for request in upstream.asked} == {sent}
    assert len(other.asked) == 2
    assert {request.headers.get("authorization") for request in other.asked} == {None}


@pytest_twisted.ensureDeferred
async def test_credentials_out_of_netrc_go_to_their_host_alone(
    make_upstream: Make, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    other = make_upstream()
    upstream = filled(make_upstream(file_host=other))
    filled(other)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ci password s3cret\nmachine other.example login x password y\n", "utf-8")
    netrc.chmod(0o600)
    known = f'[upstream.fake]\nurl = "{upstream.url}"\nnetrc = true\n'
    proxy = make_proxy(config=f'{known}[[index]]\nname = "main"\nupstreams = ["fake"]\nprefetch = false\n')
    proxy.before = ("/usr/bin/env", f"NETRC={netrc}")
    await proxy.started()
    page = (await wire.fetch(proxy.port, "/simple/six/", Accept=JSON)).json
    assert (await wire.fetch(proxy.port, urljoin("/simple/six/", page["files"][0]["url"]))).body == DATA
    sent = "Basic " + base64.b64encode(b"ci:s3cret").decode()
    assert {request.headers.get("authorization") for request in upstream.asked} == {sent}
    assert {request.headers.get("authorization") for request in other.asked} == {None}


@pytest.mark.parametrize("credentials", ["", "ci:se%40cret@"])
@pytest.mark.parametrize("tls", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_outbound_proxy_is_used_for_everything(
    make_upstream: Make, serve: Serve, authority: Path, credentials: str, tls: bool
) -> None:
    upstream = filled(make_upstream(tls=certs.server_context() if tls else None))
    wanted = "Basic " + base64.b64encode(b"ci:se@cret").decode() if credentials else None
    forward = ForwardProxy(wanted)
    settings = upstream_settings(
        upstream.url, outbound_proxy=f"http://{credentials}{forward.address}", ca_file=authority if tls else None
    )
    proxy = await serve(settings)
    assert await fetched(proxy) == DATA
    method = "CONNECT 127.0.0.1:" if tls else "GET http://127.0.0.1:"
    assert forward.asked
    assert all(line.startswith(method) for line in forward.asked)
    assert not any("proxy-authorization" in request.headers for request in upstream.asked if tls)
    await proxy.stop()
    await forward.close()


@pytest_twisted.ensureDeferred
async def test_an_outbound_proxy_that_refuses_says_so(make_upstream: Make, serve: Serve, authority: Path) -> None:
    upstream = filled(make_upstream(tls=certs.server_context()))
    forward = ForwardProxy("Basic xyz")
    settings = upstream_settings(upstream.url, outbound_proxy=f"http://{forward.address}", ca_file=authority)
    proxy = await serve(settings)
    reply = await proxy.get("/simple/six/")
    assert (reply.status, "refused the tunnel" in reply.reason, "407" in reply.reason) == (503, True, True)
    await proxy.stop()
    await forward.close()


@pytest_twisted.ensureDeferred
async def test_a_file_on_a_host_that_is_not_listed_is_not_asked_for_not_by_a_redirect_either(
    make_upstream: Make, serve: Serve
) -> None:
    upstream, other = make_upstream(), filled(make_upstream())
    filled(upstream)
    elsewhere = other.base.replace("127.0.0.1", "localhost")
    upstream.script("/packages/*", Fault(redirect=f"{elsewhere}/packages/x"))
    proxy = await serve(upstream_settings(upstream.url, file_hosts=("files.example",)))
    reply = await proxy.get(await proxy.link("six", FILE))
    assert (reply.status, "file_hosts" in reply.reason, other.asked) == (503, True, [])


@pytest.mark.parametrize("json", [True, False], ids=["JSON", "HTML"])
@pytest_twisted.ensureDeferred
async def test_a_file_on_a_host_that_is_not_listed_is_not_offered(
    upstream: FakeUpstream, serve: Serve, logged: list[Any], json: bool
) -> None:
    upstream.content.json = json
    hosts = (upstream.base, "https://files.example", "https://a.cdn.example:8443", "https://FILES.example", "//cdn.example")
    for number, host in enumerate((*hosts, "https://b.example", "https://notfiles.example", "http://b.example")):
        upstream.add_file("six", f"six-{number}.0.zip", b"six", url=f"{host}/six-{number}.0.zip")
    proxy = await serve(upstream_settings(upstream.url, file_hosts=("files.example", "*.cdn.example")))
    listed = [file["filename"] for file in (await proxy.page())["files"]]
    assert listed == [f"six-{number}.0.zip" for number in range(4)]
    document = (await proxy.get("/pypi/six/json")).json
    assert sum(map(len, document["releases"].values())) == 4
    warning, *_ = [event for event in logged if "file_hosts" in str(event.get("log_format"))]
    assert (warning["number"], warning["hosts"]) == (4, "b.example, cdn.example, notfiles.example")
    unlimited = await serve(upstream_settings(upstream.url), data="unlimited")
    assert len((await unlimited.page())["files"]) == 8


@pytest.mark.parametrize("count", [5, 6])
@pytest_twisted.ensureDeferred
async def test_five_redirects_are_followed_and_no_more(upstream: FakeUpstream, serve: Serve, count: int) -> None:
    filled(upstream)
    upstream.script("/simple/p/", Fault(redirect="/r/1"))
    for number in range(1, count):
        upstream.script(f"/r/{number}", Fault(redirect=f"/r/{number + 1}"))
    upstream.add_path(f"/r/{count}", b'<html><a href="p-1.0.zip">p-1.0.zip</a></html>')
    reply = await (await serve(upstream)).get("/simple/p/")
    assert reply.status == (200 if count == 5 else 503)


@pytest_twisted.ensureDeferred
async def test_a_redirect_from_https_to_http_elsewhere_is_not_followed(
    make_upstream: Make, serve: Serve, authority: Path
) -> None:
    secure, plain = make_upstream(tls=certs.server_context()), filled(make_upstream())
    secure.script("*", Fault(redirect=plain.url.replace("127.0.0.1", "localhost") + "six/"))
    reply = await (await serve(upstream_settings(secure.url, ca_file=authority))).get("/simple/six/")
    assert (reply.status, "redirects from https" in reply.reason, plain.asked) == (503, True, [])


@pytest_twisted.ensureDeferred
async def test_a_public_upstream_leads_to_no_private_address(
    make_upstream: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the upstream's own host is taken for a public one; everything is on this machine.
    inner = filled(make_upstream())
    upstream = filled(make_upstream())
    monkeypatch.setattr("proxy.upstream.http.guard.is_private", lambda address: address != "127.0.0.1" and is_private(address))
    for number, host in enumerate(("[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "10.1.2.3", "127.0.0.2")):
        upstream.add_path(f"/simple/p{number}/", f'<a href="http://{host}:{inner.port}/p-1.0.zip">p-1.0.zip</a>'.encode())
        upstream.script(f"/simple/r{number}/", Fault(redirect=f"http://{host}:{inner.port}/simple/six/"))
    proxy = await serve(upstream_settings(upstream.url, allow_private_addresses=None))
    for number in range(5):
        reply = await proxy.get(await proxy.link(f"p{number}", "p-1.0.zip"))
        assert (reply.status, "private address" in reply.reason) == (503, True), number
        assert (await proxy.get(f"/simple/r{number}/")).status == 503
    assert inner.asked == []


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("127.0.0.1", True),
        ("10.0.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::7f00:1", True),
        ("2002:7f00:1::", True),
        ("2606:4700::1111", False),
        ("pypi.example", False),
    ],
)
def test_private_addresses_are_known_in_every_dress(address: str, private: bool) -> None:
    assert is_private(address) is private
