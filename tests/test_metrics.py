"""``/-/metrics`` of a running service: each metric changes when its thing happens, and nothing else becomes a label."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest_twisted
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from proxy.core.events import ReactorLagged
from proxy.host.lag import LagMeter
from proxy.model import Condition
from proxy.settings import GrantSettings, PageLimits
from proxy.statistics.definitions import DEFINITIONS
from proxy.statistics.recorders import MemoryRecorder
from tests.evidence import MakeAddresses
from tests.inprocess import LOOPBACK, Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.logins import basic

EXPIRES_AT_ONCE = PageLimits(ttl=0.0, soft_deadline=0.1)
BIG = bytes(range(256)) * 2048  # 512 KiB


async def figures(proxy: Running) -> dict[str, float]:
    """The value of each series, by its name and the values of its labels: ``requests_total page pypi 200 miss``."""
    reply = await proxy.get("/-/metrics")
    assert reply.status == 200
    order = {each.full_name: each.labels for each in DEFINITIONS}
    found = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            labels = [sample.labels[each] for each in order.get(sample.name, sorted(sample.labels))]
            found[" ".join([sample.name.removeprefix("pypiproxy_"), *labels])] = sample.value
    return found


@pytest_twisted.ensureDeferred
async def test_requests_their_bytes_and_what_was_saved_are_counted(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", BIG)
    proxy = await run(upstream)
    path = await proxy.link("six", "six-1.0.tar.gz")
    page = len((await proxy.get("/simple/six/")).body)
    for _ in range(2):
        assert (await proxy.get(path)).body == BIG
    await proxy.head(path)
    await proxy.get("/nothing")
    found = await figures(proxy)
    assert found["requests_total page pypi 200 miss"] == 1
    assert found["requests_total page pypi 200 hit"] == 1
    assert found["requests_total file pypi 200 miss"] == 1
    assert found["requests_total file pypi 200 hit"] == 2
    assert found["requests_total none  404 not-found"] == 1
    assert (found["saved_requests_total"], found["saved_bytes_total"]) == (3, page + len(BIG))
    assert found["sent_bytes_total"] > 2 * len(BIG)
    assert found["request_seconds_count file"] == found["first_byte_seconds_count file"] == 3
    assert found["responses_in_progress"] == 1
    assert found["upstream_requests_total up0 127.0.0.1 ok"] == 2
    for name in ("upstream_request_seconds_count", "upstream_first_byte_seconds_count"):
        assert found[f"{name} 127.0.0.1 up0"] == 2
    assert found["received_bytes_total up0"] == upstream.sent
    assert found["upstream_up up0"] == found["upstream_address_up up0 127.0.0.1"] == 1
    assert found["disk_free_bytes"] > 0
    assert found["process_open_fds"] > 0
    assert found["python_gc_collections_total 0"] >= 0
    (build,) = (each for each in found if each.startswith("build_info "))
    assert re.fullmatch(r"build_info \S+ 3\.\d+\.\S+ \d+\.\S+", build)


@pytest_twisted.ensureDeferred
async def test_what_is_under_way_and_who_waits_is_shown_while_it_lasts(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("app", "app-1.0.tar.gz", BIG)
    proxy = await run(upstream_settings(upstream.url, "narrow", max_connections=1), limits=PageLimits(soft_deadline=5.0))
    path = await proxy.link("app", "app-1.0.tar.gz")
    download = upstream.hold("*app-1.0.tar.gz", after=1_000)
    first = await proxy.connect(path)
    await first.got_body(1_000)
    pages = [await proxy.connect("/simple/six/", **{"Cache-Control": "max-age=1", "User-Agent": f"pip/{n}"}) for n in range(3)]
    while (found := await figures(proxy))["waiters page"] < 3:
        pass
    assert (found["flights page"], found["downloads"], found["queue_length upstream:narrow"]) == (1, 1, 1)
    assert found["responses_in_progress"] == 5
    download.release()
    assert [(await each.reply()).status for each in (first, *pages)] == [200, 404, 404, 404]
    found = await figures(proxy)
    assert (found["flights page"], found["waiters page"], found["downloads"]) == (0, 0, 0)
    assert found["queue_length upstream:narrow"] == 0


@pytest_twisted.ensureDeferred
async def test_stale_answers_are_counted_by_their_reason(upstream: FakeUpstream, run: Start) -> None:
    for project in ("slow", "failing", "app", "lib"):
        upstream.add_file(project, f"{project}-1.0.tar.gz", b"x")
    proxy = await run(upstream, limits=EXPIRES_AT_ONCE)
    for project in ("slow", "failing", "app", "lib"):
        await proxy.page(project)
    held = upstream.hold("*/slow/")
    await proxy.page("slow")
    assert (await figures(proxy))["stale_answers_total upstream-slow"] == 1
    held.release()
    while (await figures(proxy)).get("upstream_requests_total up0 127.0.0.1 unchanged") != 1:
        pass  # an upstream that does not answer is suspect
    upstream.script("*/failing/", Fault(status=500))
    await proxy.page("failing")
    found = await figures(proxy)
    assert found["stale_answers_total upstream-failed"] == 1
    assert found["upstream_requests_total up0 127.0.0.1 server-error"] == 1
    await upstream.down()
    for project in ("app", "lib", "app"):
        await proxy.page(project)
    found = await figures(proxy)
    assert proxy.service.proxied["pypi"].upstreams.condition() is Condition.DOWN
    assert found["stale_answers_total upstream-down"] >= 1
    assert found["upstream_up up0"] == 0
    assert found["degraded upstream-down"] == 1
    assert found["upstream_requests_total up0 127.0.0.1 unreachable"] >= 1


@pytest_twisted.ensureDeferred
async def test_addresses_of_an_upstream_are_told_apart(at_addresses: MakeAddresses, run: Start) -> None:
    up = await at_addresses()
    for number in range(4):
        up.first.add_file(f"p{number}", f"p{number}-1.0.tar.gz", b"x")
    proxy = await run(upstream_settings(up.url, "mirrors"))
    await proxy.page("p0")
    await up.first.down()
    for number in range(1, 4):
        await proxy.page(f"p{number}")
    found = await figures(proxy)
    up_or_not = {each: found[f"upstream_address_up mirrors {each}"] for each in ("127.0.0.1", "127.0.0.2", "127.0.0.3")}
    assert up_or_not == {"127.0.0.1": 0, "127.0.0.2": 1, "127.0.0.3": 1}
    assert found["upstream_up mirrors"] == 1
    assert found["upstream_requests_total mirrors 127.0.0.1 unreachable"] >= 1
    assert found["upstream_requests_total mirrors 127.0.0.2 ok"] >= 1


@pytest_twisted.ensureDeferred
async def test_what_comes_of_requests_to_upstream_is_counted(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, limits=EXPIRES_AT_ONCE)
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    faults = {
        "throttled": Fault(status=429),
        "client-error": Fault(status=418),
        "server-error": Fault(status=500),
        "redirected": Fault(redirect="/simple/six/"),
        "denied": Fault(status=401),
        "missing": Fault(status=404),
        "unanswered": Fault(drop=True),
        "broken": Fault(garbage=b"SSH-2.0-OpenSSH_9.2\r\n"),
    }
    for name, fault in faults.items():
        upstream.script(f"*/{name}/", fault)
    await proxy.page("six")
    await proxy.page("six")
    for name in faults:
        await proxy.get(f"/simple/{name}/")
        await proxy.page("six")  # so that the upstream does not go down
    found = await figures(proxy)
    for name in (*faults, "unchanged"):
        assert found[f"upstream_requests_total up0 127.0.0.1 {name}"] >= 1, name


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_resolved_has_no_address(names: dict[str, list[str]], run: Start) -> None:
    names["gone.example"] = []
    proxy = await run(upstream_settings("http://gone.example/simple/", "gone"))
    assert (await proxy.get("/simple/six/")).status == 503
    assert (await figures(proxy))["upstream_requests_total gone - unresolved"] == 1


@pytest_twisted.ensureDeferred
async def test_wrong_bytes_and_evictions_are_counted(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", BIG)
    upstream.add_file("app", "app-1.0.tar.gz", BIG[::-1])
    upstream.add_file("lib", "lib-1.0.tar.gz", BIG, entry={"hashes": {"sha256": "0" * 64}})
    proxy = await run(upstream, max_size=len(BIG) * 3 // 2)
    await proxy.service.caches.room.settled()
    assert (await figures(proxy))["store_files"] == 0
    for name in ("six", "app", "lib"):
        await proxy.get(await proxy.link(name, f"{name}-1.0.tar.gz"))
    await proxy.service.caches.room.settled()
    found = await figures(proxy)
    assert (found["evicted_files_total"], found["evicted_bytes_total"]) == (1, len(BIG))
    assert (found["store_files"], found["store_bytes"]) == (1, len(BIG))
    assert found["digest_mismatches_total download"] == 1
    assert found["digest_mismatches_total stored"] == 0


@pytest_twisted.ensureDeferred
async def test_refusals_are_counted_by_their_reason(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    proxy = await run(upstream, grants=(GrantSettings(role="reader", principals=("user:alice",)),))
    administration = proxy.service.administration
    for user in ("alice", "bob"):
        await administration.perform("user_add", user=user, password=f"secret of {user}")
    assert (await proxy.get("/simple/six/")).status == 401
    assert (await proxy.get("/simple/six/", Authorization=basic("alice", "wrong"))).status == 401
    assert (await proxy.get("/simple/six/", Authorization=basic("bob", "secret of bob"))).status == 404
    assert (await proxy.get("/simple/six/", Authorization=basic("alice", "secret of alice"))).status == 200
    found = await figures(proxy)
    refused = {name: found[f"access_refusals_total {name}"] for name in ("login", "wrong-credential", "not-permitted")}
    assert refused == {"login": 1, "wrong-credential": 1, "not-permitted": 1}
    assert found["queue_length passwords"] == 0


@pytest_twisted.ensureDeferred
async def test_nothing_that_clients_or_upstreams_say_becomes_a_label(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("evil-project", "evil_project-1.0.tar.gz", b"x", requires_python="evil")
    upstream.script("*/evil-status/", Fault(status=599, reason="evil reason"))
    proxy = await run(upstream)
    before = set(await figures(proxy))
    evil = {"User-Agent": 'evil"}', "X-Forwarded-For": "evil", "Accept": "application/openmetrics-evil"}
    for path in (
        "/simple/evil-project/",
        "/simple/evil-status/",
        "/evil",
        "/index/evil/simple/",
        "/-/evil",
        "/simple/%22evil%0a/",
    ):
        for method in ("GET", "EVIL", "HEAD"):
            client = await proxy.connect(path, method, **evil)
            await client.until(lambda client=client: b"\r\n\r\n" in client.received)  # type: ignore[misc]
            await client.close()
    client = await wire.connect(proxy.port)
    client.transport.write(b"EVIL /evil\r\n\r\n")
    await client.ended
    after = await figures(proxy)
    assert set(after) > before
    assert not [each for each in after if "evil" in each.lower()]


async def taking(upstream: FakeUpstream, proxy: Running) -> wire.Client:
    """A client that has received the head of a large file and takes no more: its request stays in progress."""
    upstream.add_file("big", "big-1.0.tar.gz", bytes(64_000_000))
    client = await proxy.connect(await proxy.link("big", "big-1.0.tar.gz"))
    await client.got(1)
    client.transport.pauseProducing()
    return client


@pytest_twisted.ensureDeferred
async def test_a_scrape_and_what_is_hot_are_answered_when_there_is_room_for_nothing_else(
    upstream: FakeUpstream, run: Start
) -> None:
    proxy = await run(upstream, max_connections=4)
    taker = await taking(upstream, proxy)
    client = await wire.connect(proxy.port)
    client.ask("/simple/big/")
    page = await client.reply()
    held = upstream.hold("*/held-*")
    waiting = [await proxy.connect(f"/simple/held-{number}/") for number in range(3)]
    await upstream.arrived("*/held-*", 3)
    assert (await proxy.get("/simple/other/")).status == 503
    client.ask("/simple/big/")
    assert (await client.reply()).body == page.body
    await client.close()
    found = await figures(proxy)
    assert (found["responses_in_progress"], found["flights page"], found["waiters page"]) == (5, 3, 3)
    assert found["shed_total max-connections"] == 1
    await taker.close()
    held.release()
    for each in waiting:
        await each.reply()


@pytest_twisted.ensureDeferred
async def test_metrics_may_have_a_listener_of_their_own(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    proxy = await run(upstream, metrics_listen=(LOOPBACK,), max_connections=16)
    await proxy.page("six")
    assert (await proxy.get("/-/metrics")).status == 404
    assert b"metrics" not in (await proxy.get("/-/")).body
    ((port,),) = (each.ports for each in proxy.service.metrics_listenings)
    number = port.getHost().port  # type: ignore[attr-defined]  # a TCP port's address has one
    # All that the other listener may have is taken.
    held = upstream.hold("*/held-*")
    takers = [await taking(upstream, proxy) for _ in range(4)]
    waiting = [await proxy.connect(f"/simple/held-{number}/") for number in range(12)]
    await upstream.arrived("*/held-*", 12)
    assert (await proxy.get("/simple/other/")).status == 503
    reply = await wire.fetch(number, "/-/metrics", Accept="application/openmetrics-text;version=1.0.0,*/*;q=0.1")
    assert (reply.status, reply.headers["content-type"].split(";")[0]) == (200, "application/openmetrics-text")
    assert b'pypiproxy_requests_total{cache="miss",index="pypi",route="page",status="200"} 2.0' in reply.body
    for method, path, status in (
        ("GET", "/simple/six/", 404),
        ("GET", "/-/ready", 404),
        ("GET", "/", 404),
        ("POST", "/-/metrics", 405),
        ("HEAD", "/-/metrics", 200),
    ):
        assert (await wire.fetch(number, path, method)).status == status, path
    held.release()
    for each in waiting:
        await each.reply()
    for each in takers:
        await each.close()


@pytest_twisted.ensureDeferred
async def test_metrics_may_be_for_some_users_alone(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, metrics_for=("user:prometheus",))
    administration = proxy.service.administration
    for user in ("prometheus", "bob"):
        await administration.perform("user_add", user=user, password=f"secret of {user}")
    token = (await administration.perform("token_create", user="prometheus"))["token"]
    confined = (await administration.perform("token_create", user="prometheus", role="reader", indexes=["pypi"]))["token"]
    of_bob = (await administration.perform("token_create", user="bob"))["token"]
    for credential, status in (
        (None, 401),
        (basic("prometheus", "wrong"), 401),
        (basic("bob", "secret of bob"), 404),
        (basic("prometheus", "secret of prometheus"), 200),
        (basic("anybody", token), 200),
        (basic("anybody", confined), 404),
        (basic("anybody", of_bob), 404),
    ):
        headers = {} if credential is None else {"Authorization": credential}
        assert (await proxy.get("/-/metrics", **headers)).status == status, credential
    assert (await proxy.get("/-/ready")).status == 200
    body = (await proxy.get("/-/metrics", Authorization=basic("anybody", token))).body
    assert b'pypiproxy_access_refusals_total{reason="not-permitted"} 3.0' in body
    assert b'pypiproxy_access_refusals_total{reason="login"} 1.0' in body


@pytest_twisted.ensureDeferred
async def test_certificates_have_an_end(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    certificate, key = certs.server("proxy.example", expired=True).write(tmp_path, "server")
    of_client = certs.client()
    cert, client_key = of_client.write(tmp_path, "client")
    secure = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    proxy = await run(
        upstream_settings(upstream.url, "mirror", client_cert=cert, client_key=client_key),
        listen=(LOOPBACK, secure),
        dashboard_listen=(secure,),
        max_connections=100,
    )
    found = await figures(proxy)
    expired = found["certificate_expiry_timestamp_seconds listen 2"]
    assert expired < time.time() < found["certificate_expiry_timestamp_seconds upstream mirror"]
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert expired == loaded.not_valid_after_utc.timestamp()
    assert expired == found["certificate_expiry_timestamp_seconds dashboard_listen 1"]


def test_the_reactor_reports_how_late_it_is() -> None:
    clock, recorder = Clock(), MemoryRecorder()
    meter = LagMeter(clock, recorder)
    meter.startService()
    clock.advance(1.0)
    clock.advance(3.5)
    clock.advance(1.0)
    meter.stopService()
    assert recorder.events == [ReactorLagged(0.0), ReactorLagged(2.5), ReactorLagged(0.0)]
    assert not clock.getDelayedCalls()
