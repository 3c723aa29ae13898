"""The proxy is gone for good in the middle of twenty builds: what the fail-open switch saves, and what it must not touch.

Builds are shells that source the snippet and run real pip and uv.  The index that these know by themselves is reached through a
forward proxy that answers for whatever host they name: no test has to know its name, and none can reach it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
import uv
from twisted.internet.defer import Deferred, DeferredList

from tests.support import certs
from tests.support.fake_upstream import FakeUpstream
from tests.support.forward_proxy import ForwardProxy
from tests.support.process import ROOT, Ended, ProxyProcess, environment, run
from tests.support.wheels import wheel

SNIPPET = ROOT / "conf" / "fail-open" / "pypiproxy.sh"
#: A pip takes as long as ten uvs.
PUBLIC, PRIVATE, WITH_PIP = 18, 2, 1


class PublicIndex:
    """The index that clients know by themselves, whatever its name is: *content* is that of *upstream*."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._content = upstream.content
        self._hosts: dict[str, FakeUpstream] = {}
        self.way = ForwardProxy(port_of=self._port_of)

    def _port_of(self, authority: str) -> int:
        host = authority.rpartition(":")[0]
        if host not in self._hosts:
            self._hosts[host] = FakeUpstream(tls=certs.server_context(certs.server(host))).start()
            self._hosts[host].content = self._content
        return self._hosts[host].port

    def count(self, glob: str = "*") -> int:
        """Requests that came here."""
        return sum(each.count(glob) for each in self._hosts.values())

    async def close(self) -> None:
        await self.way.close()
        for each in self._hosts.values():
            await each.close()


@pytest.fixture
def public_index(upstream: FakeUpstream) -> Iterator[PublicIndex]:
    """What is behind the proxy, asked directly."""
    upstream.content.relative = True
    made = PublicIndex(upstream)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.close()))


class Build:
    """A job: steps in its own shell, which install into a folder of its own.

    Its uv has a cache of its own, in which there is what is in *known* to begin with.
    """

    def __init__(self, place: Path, number: int, index: str, variables: dict[str, str], known: Path) -> None:
        self.place = place / f"build-{number}"
        self.place.mkdir()
        cache = shutil.copytree(known, self.place / "uv-cache")
        self.target = self.place / "installed"
        self._shell = "dash" if number % 2 else "bash"
        self._with_pip = number < WITH_PIP
        self._environment = environment(
            self.place,
            **variables,
            PIP_INDEX_URL=index,
            UV_DEFAULT_INDEX=index,
            UV_CACHE_DIR=str(cache),
            PIP_CONFIG_FILE=os.devnull,
            UV_NO_CONFIG="1",
        )

    async def step(self, project: str) -> Ended:
        """Install *project*, as a job does."""
        pip = f"{sys.executable} -m pip install --no-cache-dir --no-compile --no-deps --disable-pip-version-check --retries 0"
        uv_ = f"{uv.find_uv_bin()} pip install --no-deps --python {sys.executable}"
        line = f'set -eu\n. "{SNIPPET}"\n{pip if self._with_pip else uv_} --target {self.target} {project}'
        return await run([f"/usr/bin/{self._shell}", "-c", line], self._environment, self.place, timeout=120.0)

    @property
    def has(self) -> set[str]:
        """The projects that are installed."""
        return {path.name.split("-")[0] for path in self.target.glob("*.dist-info")}


async def interpreter_known(place: Path) -> Path:
    """A cache of uv that has what it asks the interpreter, which takes longer than all else that it does here."""
    known = place / "uv-cache"
    command = [uv.find_uv_bin(), "pip", "list", "--python", sys.executable]
    ended = await run(command, environment(place, UV_CACHE_DIR=str(known), UV_NO_CONFIG="1"), place)
    assert ended.status == 0, ended.output
    assert known.is_dir()
    return known


async def steps(builds: list[Build], project: str) -> list[Ended]:
    """The same step of all *builds*, at once."""
    outcomes = await DeferredList([Deferred.fromCoroutine(each.step(project)) for each in builds])
    assert all(success for success, _ in outcomes), outcomes
    return [ended for _, ended in outcomes]


@pytest.mark.skipif(not all(Path(f"/usr/bin/{each}").exists() for each in ("dash", "bash")), reason="needs dash and bash")
@pytest_twisted.ensureDeferred
async def test_after_the_switch_every_step_passes_that_would_pass_directly_and_no_private_one_is_let_through(
    make_proxy: Callable[..., ProxyProcess], upstream: FakeUpstream, public_index: PublicIndex, tmp_path: Path
) -> None:
    for project in ("first", "second", "third"):
        made = wheel(project)
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata)
    # Somebody has published the private name, with a version that wins.
    stolen = wheel("acme", "99.0")
    upstream.add_file("acme", stolen.filename, stolen.data, metadata=stolen.metadata)
    private = wheel("acme", "1.0")
    own = tmp_path / "own" / "acme"
    own.mkdir(parents=True)
    (own / private.filename).write_bytes(private.data)
    proxy = make_proxy(
        config=f'[upstream.up]\nurl = "{upstream.url}"\n'
        '[[index]]\nname = "pypi"\nupstreams = ["up"]\n'
        f'[[index]]\nname = "own"\nkind = "hosted"\npath = "{own.parent}"\n'
        '[[index]]\nname = "corp"\nkind = "group"\nmembers = ["own", "pypi"]\ndefault = true\n'
    )
    await proxy.started()
    authority, _ = certs.authority().write(tmp_path, "ca")
    switch = tmp_path / "switch"
    switch.write_text("off\n")
    mirror = f"{proxy.base}/index/pypi/simple/"
    farm = {
        "PYPIPROXY_PUBLIC_INDEX": mirror,
        "PYPIPROXY_SWITCH": str(switch),
        "HTTPS_PROXY": f"http://{public_index.way.address}",
        "SSL_CERT_FILE": str(authority),
        "PIP_CERT": str(authority),
        "UV_HTTP_RETRIES": "0",
    }
    public = {**farm, "PYPIPROXY_PROJECTS": "public"}
    known = await interpreter_known(tmp_path)
    builds = [Build(tmp_path, number, mirror, public, known) for number in range(PUBLIC)]
    # One of the private jobs has declared nothing; the other has declared what is not true.
    jobs = [Build(tmp_path, PUBLIC + number, proxy.url, more, known) for number, more in enumerate((farm, public))]
    assert len(builds) + len(jobs) == PUBLIC + PRIVATE == 20

    assert [ended.status for ended in await steps([*builds, *jobs], "first")] == [0] * 20
    assert public_index.count() == 0

    gate = upstream.hold("*/second-*.whl")
    under_way: Deferred[list[Ended]] = Deferred.fromCoroutine(steps(builds, "second"))
    await upstream.arrived("*/second-*.whl")
    await proxy.kill()
    interrupted = await under_way
    gate.release()
    assert 0 not in [ended.status for ended in interrupted]
    assert public_index.count() == 0  # the switch is off: nobody leaves the proxy by himself

    switch.write_text("on\n")
    for project in ("second", "third"):
        for ended in await steps(builds, project):
            assert ended.status == 0, ended.output
            assert "this step asks the public index directly" in ended.output
    assert [each.has for each in builds] == [{"first", "second", "third"}] * PUBLIC
    (missing,) = await steps(builds[-1:], "gone")  # which would not pass directly either
    assert missing.status != 0

    for ended, why in zip(await steps(jobs, "acme"), ("PYPIPROXY_PROJECTS=public", "PIP_INDEX_URL"), strict=True):
        assert ended.status != 0
        assert "this step is refused it" in ended.output
        assert why in ended.output
    assert public_index.count("*acme*") == 0
    assert [each.has for each in jobs] == [{"first"}] * PRIVATE
