"""Real pip and real uv install through a real ``twistd``: cold, hot, with a dead upstream, and after a restart."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from urllib.parse import urljoin

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.support import certs, wire
from tests.support.clients import Scratch, pip_install, uv_pip_install
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.process import ProxyProcess
from tests.support.wheels import Distribution, sdist, wheel

INSTALLS = (pip_install, uv_pip_install)
#: An application, what it needs, and what that needs: two wheels and an sdist.
WANTED = {"app": "1.0", "lib": "2.1", "odd_name": "0.3"}

#: What pip sends.
PIP_ACCEPTS = f"{JSON_TYPE}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"

Install = Callable[..., Awaitable[Scratch]]
MakeUpstream = Callable[..., FakeUpstream]
MakeProxy = Callable[..., ProxyProcess]


def publish(upstream: FakeUpstream, distributions: Iterable[Distribution]) -> None:
    for each in distributions:
        metadata = each.metadata if each.filename.endswith(".whl") else None
        upstream.add_file(each.project, each.filename, each.data, metadata=metadata)


def application(upstream: FakeUpstream) -> FakeUpstream:
    """*upstream*, with the application on it."""
    made = [
        wheel("app", "1.0", requires=["lib>=2", "odd.name"]),
        wheel("app", "0.9"),
        wheel("lib", "2.1", size=300_000),
        sdist("Odd.Name", "0.3"),
    ]
    publish(upstream, made)
    return upstream


def configuration(upstreams: dict[str, str], extra: str = "", **index: str) -> str:
    """TOML with one index for each upstream, of the same name; *extra* goes into every upstream's table."""
    tables = ["[server]", 'drain_time = "1s"']
    for name, url in upstreams.items():
        tables += [f"[upstream.{name}]", f'url = "{url}"', extra]
        tables += ["[[index]]", f'name = "{name}"', f'upstreams = ["{name}"]', f"default = {str(len(tables) == 5).lower()}"]
        tables += [f'{key} = "{value}"' for key, value in index.items()]
    return "\n".join(tables) + "\n"


def index_url(proxy: ProxyProcess, name: str) -> str:
    return f"{proxy.base}/index/{name}/simple/"


@pytest_twisted.ensureDeferred
async def test_pip_and_uv_install_cold_and_hot(upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path) -> None:
    application(upstream)
    proxy = await make_proxy(upstream.url).started()
    for install in INSTALLS:
        assert (await install(tmp_path, proxy.url, "app")).installed == WANTED
        asked = {each.path for each in upstream.asked}
        for path in asked:
            assert upstream.count(path, "GET") == 1, path
    before = len(upstream.asked)
    for install in INSTALLS:
        assert (await install(tmp_path, proxy.url, "app==0.9")).installed == {"app": "0.9"}
        assert (await install(tmp_path, proxy.url, "app")).installed == WANTED
    assert {each.path.rpartition("/")[2].removesuffix(".metadata") for each in upstream.asked[before:]} == {
        "app-0.9-py3-none-any.whl"
    }
    assert "Traceback" not in proxy.log
    assert await proxy.stop() == -signal.SIGTERM, "as twistd ends"


@pytest_twisted.ensureDeferred
async def test_uv_installs_cold_and_pip_finds_everything_there(
    make_upstream: MakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """One after the other, over https upstream with its files on another host, HTML pages and no metadata."""
    tls = certs.server_context()
    files = make_upstream(tls=tls)
    upstream = make_upstream(tls=tls, file_host=files)
    upstream.content.json = False
    upstream.content.relative = True
    publish(upstream, [wheel("app", "1.0", requires=["lib"]), wheel("lib", "2.1")])
    for project in ("app", "lib"):
        for entry in upstream.project(project).files.values():
            del entry["core-metadata"]
    ca_file, _ = certs.authority().write(tmp_path, "ca")
    proxy = await make_proxy(config=configuration({"pypi": upstream.url}, f'ca_file = "{ca_file}"')).started()
    assert (await uv_pip_install(tmp_path, proxy.url, "app")).installed == {"app": "1.0", "lib": "2.1"}
    await gatherResults([upstream.down(), files.down()])
    assert (await pip_install(tmp_path, proxy.url, "app")).installed == {"app": "1.0", "lib": "2.1"}


@pytest_twisted.ensureDeferred
async def test_uv_resolves_through_a_mirror_without_metadata_and_downloads_no_wheel(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    made = [wheel(f"p{number}", requires=[f"p{number + 1}"] if number < 24 else [], size=300_000) for number in range(25)]
    for each in made:
        upstream.add_file(each.project, each.filename, each.data)
    proxy = await make_proxy(upstream.url).started()
    scratch = Scratch(tmp_path)
    (tmp_path / "requirements.in").write_text("p0\n", "utf-8")
    ended = await scratch.uv_compile(proxy.url, str(tmp_path / "requirements.in"))
    assert ended.status == 0, ended.output
    assert ended.output.count("==1.0") == 25
    assert upstream.count("*.whl") == 25
    assert all("range" in each.headers for each in upstream.asked if each.path.endswith(".whl"))
    assert upstream.sent < 25 * 60_000


#: Issue 2, "Failure": what an upstream may do to every request.  ``None``: it refuses connections.
FAULTS: dict[str, Fault | None] = {
    "refusing": None,
    "silent": Fault(silent=True),
    "status500": Fault(status=500),
    "status502": Fault(status=502),
    "status503": Fault(status=503, headers={"Retry-After": "3"}),
    "status429": Fault(status=429, headers={"Retry-After": "3"}),
    "cutting": Fault(cut_after=100),
    "resetting": Fault(reset_after=100),
    "dropping": Fault(drop=True),
    "garbage": Fault(garbage=b"220 mail.example ESMTP\r\n"),
    "errorpage": Fault(
        body=b"<!DOCTYPE html><title>Sorry</title><h1>Down for maintenance</h1>", headers={"Content-Type": "text/html"}
    ),
    "truncated": Fault(body=b'{"meta": {"api-version": "1.0"}, "name": "app", "fi', headers={"Content-Type": JSON_TYPE}),
}


async def everything(proxy: ProxyProcess, name: str) -> dict[str, bytes]:
    """All that an index has of the application, as pip asks for it, by path."""
    found = {}
    for project in ("app", "lib", "odd-name"):
        path = f"/index/{name}/simple/{project}/"
        page = await wire.fetch(proxy.port, path, Accept=PIP_ACCEPTS)
        assert page.status == 200, (name, page)
        found[path] = page.body
        for file in page.json["files"]:
            of_file = urljoin(path, file["url"])
            for each in (of_file, f"{of_file}.metadata") if file.get("core-metadata") else (of_file,):
                reply = await wire.fetch(proxy.port, each)
                assert reply.status == 200, (name, reply)
                found[each] = reply.body
    return found


async def fail(upstream: FakeUpstream, fault: Fault | None) -> None:
    if fault is None:
        await upstream.down()
    else:
        upstream.script("*", fault)


@pytest_twisted.ensureDeferred
async def test_a_warm_install_succeeds_however_upstream_fails(
    make_upstream: MakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    upstreams = {name: application(make_upstream()) for name in FAULTS}
    urls = {name: upstream.url for name, upstream in upstreams.items()}
    config = configuration(urls, ttl="1ms", soft_deadline="200ms")
    proxy = await make_proxy(config=config).started()

    before = {name: await everything(proxy, name) for name in FAULTS}
    assert len(before["silent"]) == 3 + 4 + 3
    await gatherResults([Deferred.fromCoroutine(fail(upstreams[name], fault)) for name, fault in FAULTS.items()])
    asked = {name: len(upstream.asked) for name, upstream in upstreams.items()}

    async def install(name: str, *clients: Install) -> None:
        for client in clients:
            assert (await client(tmp_path, index_url(proxy, name), "app")).installed == WANTED, name

    # pip, which takes seconds to start, is answered as before whatever happens, and installs where things happen in other ways
    for name in FAULTS:
        assert await everything(proxy, name) == before[name], name
    by_pip = ("refusing", "silent", "status503", "cutting")
    names = list(FAULTS)
    for pair in zip(names[::2], names[1::2], strict=True):
        await gatherResults(
            [Deferred.fromCoroutine(install(name, *(INSTALLS if name in by_pip else (uv_pip_install,)))) for name in pair]
        )
    for name, fault in FAULTS.items():
        assert fault is None or len(upstreams[name].asked) > asked[name], f"{name} was not put to the test"
    assert "Traceback" not in proxy.log

    # after a restart, with every upstream gone, one of them in a place that no name server knows
    await gatherResults([upstream.down() for upstream in upstreams.values()])
    await proxy.stop()
    proxy.configure(configuration({**urls, "silent": "http://nowhere.example/simple/"}, ttl="1ms", soft_deadline="200ms"))
    await proxy.started()
    await gatherResults([Deferred.fromCoroutine(install(name, *INSTALLS)) for name in ("silent", "garbage")])


@pytest_twisted.ensureDeferred
async def test_a_cold_install_says_which_upstream_failed_and_works_once_it_is_back(
    make_upstream: MakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    upstreams = {name: application(make_upstream()) for name in FAULTS}
    urls = {name: upstream.url for name, upstream in upstreams.items()}
    config = configuration({**urls, "unresolvable": "http://nowhere.example/simple/"}, 'first_byte_timeout = "500ms"')
    proxy = await make_proxy(config=config).started()
    await gatherResults([Deferred.fromCoroutine(fail(upstreams[name], fault)) for name, fault in FAULTS.items()])
    replies = {name: await wire.fetch(proxy.port, f"/index/{name}/simple/app/") for name in [*FAULTS, "unresolvable"]}
    for name, reply in replies.items():
        assert reply.status == 503, (name, reply)
        assert int(reply.headers["retry-after"]) > 0
        assert name in reply.reason, "pip prints the reason phrase"
        assert name in reply.json["detail"], "uv prints the problem"
        assert reply.headers["content-type"] == "application/problem+json"
    asking, scratch = index_url(proxy, "status500"), Scratch(tmp_path)
    said = await scratch.pip(asking, "app", "--retries", "0")
    assert (said.status, "status500" in said.output) == (1, True), said.output
    said = await scratch.uv(asking, "app", retries=0)
    assert (said.status != 0, "status500" in said.output) == (True, True), said.output
    for upstream in upstreams.values():
        upstream.heal()
    upstreams["refusing"].up()
    for name in FAULTS:
        reply = await wire.fetch_until(proxy.port, f"/index/{name}/simple/app/", lambda reply: reply.status != 503)
        assert reply.status == 200, (name, reply)
    assert (await uv_pip_install(tmp_path, asking, "app")).installed == WANTED


@pytest_twisted.ensureDeferred
async def test_thirty_expired_projects_cost_one_wait_when_upstream_is_silent(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """One page waits for ``soft_deadline``; the others are stale at once, and a client installs from them."""
    names = [f"part-{number}" for number in range(30)]
    publish(upstream, [wheel("whole", requires=names), *(wheel(name) for name in names)])
    proxy = await make_proxy(config=configuration({"pypi": upstream.url}, ttl="1ms")).started()
    expected = {"whole", *(name.replace("-", "_") for name in names)}
    assert set((await uv_pip_install(tmp_path, proxy.url, "whole")).installed) == expected

    upstream.silent()
    replies = [await wire.fetch(proxy.port, f"/simple/{name}/") for name in names]
    assert {reply.status for reply in replies} == {200}
    waited = ["detail=upstream-slow" in reply.headers["cache-status"] for reply in replies]
    assert waited == [True] + [False] * (len(names) - 1)
    assert set((await pip_install(tmp_path, proxy.url, "whole")).installed) == expected


@pytest_twisted.ensureDeferred
async def test_what_pip_and_uv_receive_is_what_upstream_has(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """With ``--require-hashes`` and a wheel that takes many chunks."""
    made = wheel("ballast", size=5_000_000)
    publish(upstream, [made])
    proxy = await make_proxy(upstream.url).started()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"ballast==1.0 --hash=sha256:{made.sha256}\n", "utf-8")
    for client in INSTALLS:
        scratch = await client(tmp_path, proxy.url, "--require-hashes", "-r", str(requirements))
        (installed,) = scratch.folder.glob("lib/python*/site-packages/ballast_ballast.bin")
        assert installed.stat().st_size == 5_000_000
    stored = list(proxy.data_dir.glob("files/*/*"))
    assert [each.name for each in stored if each.stat().st_size > 5_000_000] == [made.sha256]
    assert hashlib.sha256((proxy.data_dir / "files" / made.sha256[:2] / made.sha256).read_bytes()).hexdigest() == made.sha256
