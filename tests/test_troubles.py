"""Whatever is wrong, builds are served: /-/ready answers 200, says what it is, and a metric has it, until it is over."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater

from proxy.accounts.passwords import hashed
from proxy.core.troubles import Reason
from proxy.mechanism.certificates import Validity, expiry
from proxy.settings import AccessSettings, GrantSettings, IndexSettings
from tests.hosting import hosted
from tests.inprocess import LOOPBACK, Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of

reactor: Any = default_reactor
BODY = data_of(3000)


class Scene(Struct, frozen=True):
    """A running service, its upstream, and the folder with all that it has."""

    proxy: Running
    upstream: FakeUpstream
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    async def ask_for_what_is_new(self) -> None:
        """Have the proxy ask upstream, write to its databases and to its disk."""
        for number in range(3):
            await self.proxy.get(f"/simple/new-{os.urandom(4).hex()}-{number}/")


Cause = Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def upstream_is_down(scene: Scene) -> AsyncIterator[None]:
    await scene.upstream.down()
    await scene.ask_for_what_is_new()
    yield
    scene.upstream.up()


@asynccontextmanager
async def the_disk_is_full(scene: Scene) -> AsyncIterator[None]:
    real = os.statvfs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.statvfs", lambda path: _Full(real(path)))
        yield


class _Full:
    """What the system says of a file system without room."""

    f_bavail = 0

    def __init__(self, facts: os.statvfs_result) -> None:
        self.f_frsize = facts.f_frsize
        self.f_blocks = facts.f_blocks


@asynccontextmanager
async def files_cannot_be_written(scene: Scene) -> AsyncIterator[None]:
    place, away = scene.data / "partial", scene.folder / "partial"
    place.rename(away)
    place.write_text("no directory")
    yield
    place.unlink()


@asynccontextmanager
async def the_directory_of_a_hosted_index_is_gone(scene: Scene) -> AsyncIterator[None]:
    place, away = scene.folder / "volume", scene.folder / "elsewhere"
    place.rename(away)
    yield
    away.rename(place)


@asynccontextmanager
async def the_data_directory_is_gone(scene: Scene) -> AsyncIterator[None]:
    away = scene.folder / "away"
    scene.data.rename(away)
    yield
    away.rename(scene.data)


@asynccontextmanager
async def a_database_was_set_aside(scene: Scene) -> AsyncIterator[None]:
    aside = scene.data / "records.damaged-20261127T000000"
    aside.mkdir()
    yield
    aside.rmdir()


@asynccontextmanager
async def a_certificate_has_expired(scene: Scene) -> AsyncIterator[None]:
    certs.server("127.0.0.1", expired=True).write(scene.folder, "server")
    yield
    certs.server("127.0.0.1").write(scene.folder, "server")


@asynccontextmanager
async def too_much_waits(scene: Scene) -> AsyncIterator[None]:
    room = scene.proxy.service.waiting
    room.limit_to(0)
    assert (await scene.proxy.get("/simple/other/")).status == 503
    yield
    # It is over a minute after the last refusal (tests/test_overload.py).


#: What can be wrong, by its label: what causes it, and what the words about it have.
TROUBLES: Mapping[Reason, tuple[Cause, str]] = {
    Reason.UPSTREAM: (upstream_is_down, "no upstream answers for main"),
    Reason.DISK_FULL: (the_disk_is_full, "the file system of the data directory is full"),
    Reason.NOT_WRITABLE: (files_cannot_be_written, "partial/ in the data directory cannot be written"),
    Reason.NOT_READABLE: (the_directory_of_a_hosted_index_is_gone, "the directory of index internal cannot be read"),
    Reason.DIRECTORY_LOST: (the_data_directory_is_gone, "the data directory was taken away or replaced"),
    Reason.DAMAGED: (a_database_was_set_aside, "set aside within the last day: a damaged database"),
    Reason.CERTIFICATE: (a_certificate_has_expired, "the certificate of ssl:0 has expired (2021-01-01 00:00 UTC)"),
    Reason.OVERLOADED: (too_much_waits, "requests are refused with 503"),
}

#: What is tested with what it takes to cause it: another process that holds a database (test_damaged_records.py), files of
#: secrets and of users (test_rotating.py, test_upstream_rotation.py), no socket for commands, an issuer of ID tokens
#: (test_service_identity.py).
ELSEWHERE = {Reason.DATABASE, Reason.COMMANDS, Reason.ROTATION, Reason.ISSUER}


def test_every_trouble_is_tested() -> None:
    assert TROUBLES.keys() | ELSEWHERE == set(Reason)


@pytest.mark.parametrize("reason", TROUBLES, ids=lambda reason: reason.value)
@pytest_twisted.ensureDeferred
async def test_whatever_is_wrong_it_is_ready_and_says_what(
    upstream: FakeUpstream, serve: Start, tmp_path: Path, reason: Reason
) -> None:
    scene = await _scene(upstream, serve, tmp_path)
    path = await scene.proxy.link("six", "six-1.0.tar.gz")
    assert (await scene.proxy.get(path)).body == BODY
    assert await told(scene, reason) == ("ready\n", 0.0)
    cause, words = TROUBLES[reason]
    async with cause(scene):
        while words not in (await told(scene, reason))[0]:
            await deferLater(reactor, 0.01)
        lines, figure = await told(scene, reason)
        assert figure == 1.0
        assert [line for line in lines.splitlines() if not line.startswith("degraded: ")] == []
        assert (await scene.proxy.get("/-/live")).status == 200
        assert (await scene.proxy.get("/simple/six/")).status == 200
        assert (await scene.proxy.get(path)).body == BODY
    if reason is not Reason.OVERLOADED:
        while await told(scene, reason) != ("ready\n", 0.0):
            await scene.ask_for_what_is_new()
            await deferLater(reactor, 0.01)


async def _scene(upstream: FakeUpstream, serve: Start, tmp_path: Path) -> Scene:
    (tmp_path / "volume").mkdir()
    (tmp_path / "users").write_text(f"alice:{hashed(b'correct horse')}\n", "utf-8")
    certificate, key = certs.server("127.0.0.1").write(tmp_path, "server")
    upstream.add_file("six", "six-1.0.tar.gz", BODY)
    proxy = await serve(
        upstream_settings(upstream.url),
        listen=(LOOPBACK, f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"),
        indexes=(
            IndexSettings(name="main", upstreams=("pypi",), default=True, prefetch=False),
            replace(hosted(path=tmp_path / "volume"), name="internal", default=False),
        ),
        access=AccessSettings(users_file=tmp_path / "users"),
        grants=(GrantSettings(role="reader", principals=("anonymous",), indexes=("main",)),),
    )
    return Scene(proxy, upstream, tmp_path)


async def told(scene: Scene, reason: Reason) -> tuple[str, float]:
    """What /-/ready says, and the metric of *reason*."""
    ready: wire.Reply = await scene.proxy.get("/-/ready")
    assert ready.status == 200
    metrics = (await scene.proxy.get("/-/metrics")).body.decode()
    (line,) = [line for line in metrics.splitlines() if line.startswith(f'pypiproxy_degraded{{reason="{reason.value}"}}')]
    return ready.body.decode(), float(line.rpartition(" ")[2])


# -- certificates -------------------------------------------------------------------------------------------------------------

DAY = 86400.0


@pytest.mark.parametrize(
    ("lasts", "left", "said"),
    [
        (365, 15, None),
        (365, 13.9, "expires in 13.9 d"),
        (365, 1, "expires in 24 h"),
        # Of an authority whose certificates live for a few days.
        (6, 1.6, None),
        (6, 1.4, "expires in 33.6 h"),
        (365, 0, "has expired"),
        (365, -3, "has expired"),
    ],
)
def test_a_certificate_is_a_trouble_some_days_before_its_end(lasts: float, left: float, said: str | None) -> None:
    found = expiry(Validity("ssl:443", 0.0, lasts * DAY), (lasts - left) * DAY)
    assert (found is None) if said is None else (found is not None and f"the certificate of ssl:443 {said}" in found)
