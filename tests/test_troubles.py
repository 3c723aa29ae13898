"""Whatever is wrong, builds are served: /-/ready answers 200, says what it is, and a metric has it, until it is over."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater

from proxy.core.troubles import Reason
from proxy.mechanism.certificates import Validity, expiry
from proxy.settings import AccessSettings, CiRule, CiSettings, GrantSettings, IndexSettings, IssuerSettings
from tests.hosting import hosted
from tests.inprocess import LOOPBACK, Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.counter import post
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.issuer import FakeIssuer
from tests.support.logins import basic, write_users
from tests.support.wheels import data_of

reactor: Any = default_reactor
BODY = data_of(3000)


class Scene(Struct, frozen=True):
    """A running service, its upstream, and the folder with all that it has."""

    proxy: Running
    upstream: FakeUpstream
    issuer: FakeIssuer
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    async def ask_for_what_is_new(self) -> None:
        """Have the proxy ask upstream, write to its databases and to its disk."""
        for number in range(3):
            await self.proxy.get(f"/simple/new-{os.urandom(4).hex()}-{number}/")


@pytest.fixture
def issuer(_clean_reactor: None) -> Iterator[FakeIssuer]:
    made = FakeIssuer().start()
    yield made
    made.stop()


Cause = Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def upstream_is_down(scene: Scene) -> AsyncIterator[None]:
    await scene.upstream.down()
    await scene.ask_for_what_is_new()
    yield
    scene.upstream.up()


@asynccontextmanager
async def upstream_wants_another_password(scene: Scene) -> AsyncIterator[None]:
    scene.upstream.script("*", Fault(status=401))
    await scene.ask_for_what_is_new()
    yield
    scene.upstream.heal()


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
async def a_certificate_is_overwritten(scene: Scene) -> AsyncIterator[None]:
    certificate = scene.folder / "server.crt"
    good = certificate.read_bytes()
    certificate.write_bytes(b"not a certificate")
    yield
    certificate.write_bytes(good)


@asynccontextmanager
async def the_record_database_is_gone(scene: Scene) -> AsyncIterator[None]:
    async with _replaced(scene.data / "records", scene):
        yield


@asynccontextmanager
async def the_ledger_is_gone(scene: Scene) -> AsyncIterator[None]:
    made = await scene.proxy.service.administration.perform("token_create", user="alice")
    page, bearer = "/index/internal/simple/", {"Authorization": f"Bearer {made['token']}"}
    assert (await scene.proxy.get(page, **bearer)).status == 200
    async with _replaced(scene.data / "ledger", scene):
        yield


@asynccontextmanager
async def the_file_of_users_is_gone(scene: Scene) -> AsyncIterator[None]:
    users, away = scene.folder / "users", scene.folder / "users.away"
    login = {"Authorization": basic("alice", "correct horse")}
    assert (await scene.proxy.get("/index/internal/simple/", **login)).status == 200
    users.rename(away)
    yield
    assert (await scene.proxy.get("/index/internal/simple/", **login)).status == 503
    away.rename(users)


@asynccontextmanager
async def a_directory_is_where_the_admin_socket_was(scene: Scene) -> AsyncIterator[None]:
    (socket,) = (each.path for each in scene.proxy.service.admin_sockets)
    socket.unlink()
    socket.mkdir()
    yield
    socket.rmdir()


@asynccontextmanager
async def an_issuer_is_down(scene: Scene) -> AsyncIterator[None]:
    issuer = scene.issuer
    id_token = issuer.token()
    issuer.stop()
    reply = await post(scene.proxy.port, "/_/oidc/mint-token", json.dumps({"token": id_token}).encode(), "application/json")
    assert reply.status == 503
    yield
    # It is over when a job has got its token (tests/test_issuers.py): not before a pause.


@asynccontextmanager
async def _replaced(folder: Path, scene: Scene) -> AsyncIterator[None]:
    """While *folder* is a link to a volume that is not mounted."""
    away = scene.folder / f"{folder.name}.away"
    folder.rename(away)
    folder.symlink_to(scene.folder / "volume-of-databases")
    yield
    folder.unlink()
    away.rename(folder)


@asynccontextmanager
async def too_much_waits(scene: Scene) -> AsyncIterator[None]:
    room = scene.proxy.service.waiting
    room.limit_to(0)
    assert (await scene.proxy.get("/simple/other/")).status == 503
    yield
    # It is over a minute after the last refusal (tests/test_overload.py).


class Case(Struct, frozen=True):
    """What can be wrong: its label, what causes it, what the words about it have, and whether it ends with its cause."""

    reason: Reason
    cause: Cause
    words: str
    ends: bool = True


CASES = (
    Case(Reason.UPSTREAM, upstream_is_down, "no upstream answers for main"),
    Case(Reason.REFUSED, upstream_wants_another_password, "the credentials of pypi are refused"),
    Case(Reason.DISK_FULL, the_disk_is_full, "the file system of the data directory is full"),
    Case(Reason.NOT_WRITABLE, files_cannot_be_written, "partial/ in the data directory cannot be written"),
    Case(Reason.NOT_READABLE, the_directory_of_a_hosted_index_is_gone, "the directory of index internal cannot be read"),
    Case(Reason.DIRECTORY_LOST, the_data_directory_is_gone, "the data directory was taken away or replaced"),
    Case(Reason.DATABASE, the_record_database_is_gone, "the database records takes nothing"),
    Case(Reason.RIGHTS, the_file_of_users_is_gone, "access.users_file cannot be read: No such file or directory"),
    Case(Reason.RIGHTS, the_ledger_is_gone, "which tokens are valid cannot be read for now"),
    Case(Reason.DAMAGED, a_database_was_set_aside, "set aside within the last day: a damaged database"),
    Case(Reason.COMMANDS, a_directory_is_where_the_admin_socket_was, "pypiproxy commands cannot reach this proxy"),
    Case(Reason.ROTATION, a_certificate_is_overwritten, "the last good value is still used"),
    Case(Reason.CERTIFICATE, a_certificate_has_expired, "the certificate of ssl:0 has expired (2021-01-01 00:00 UTC)"),
    Case(Reason.ISSUER, an_issuer_is_down, "its CI jobs get no tokens", ends=False),
    Case(Reason.OVERLOADED, too_much_waits, "requests are refused with 503", ends=False),
)


def test_every_trouble_is_tested() -> None:
    assert {each.reason for each in CASES} == set(Reason)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.cause.__name__)
@pytest_twisted.ensureDeferred
async def test_whatever_is_wrong_it_is_ready_and_says_what(
    upstream: FakeUpstream, issuer: FakeIssuer, serve: Start, tmp_path: Path, case: Case
) -> None:
    scene = await _scene(upstream, issuer, serve, tmp_path)
    path = await scene.proxy.link("six", "six-1.0.tar.gz")
    assert (await scene.proxy.get(path)).body == BODY
    assert await told(scene, case.reason) == ("ready\n", 0.0)
    overdue = reactor.seconds() + 120.0
    async with case.cause(scene):
        while case.words not in (said := await told(scene, case.reason))[0]:
            assert reactor.seconds() < overdue, said
            await deferLater(reactor, 0.01)
        lines, figure = await told(scene, case.reason)
        assert figure == 1.0
        assert [line for line in lines.splitlines() if not line.startswith("degraded: ")] == []
        assert (await scene.proxy.get("/-/live")).status == 200
        assert (await scene.proxy.get("/simple/six/")).status == 200
        assert (await scene.proxy.get(path)).body == BODY
    if case.ends:
        while (said := await told(scene, case.reason)) != ("ready\n", 0.0):
            assert reactor.seconds() < overdue, said
            await scene.ask_for_what_is_new()
            await deferLater(reactor, 0.01)


async def _scene(upstream: FakeUpstream, issuer: FakeIssuer, serve: Start, tmp_path: Path) -> Scene:
    (tmp_path / "volume").mkdir()
    users = write_users(tmp_path / "users", alice="correct horse")
    certificate, key = certs.server("127.0.0.1").write(tmp_path, "server")
    upstream.add_file("six", "six-1.0.tar.gz", BODY)
    proxy = await serve(
        upstream_settings(upstream.url),
        listen=(LOOPBACK, f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"),
        indexes=(
            IndexSettings(name="main", upstreams=("pypi",), default=True, prefetch=False),
            replace(hosted(path=tmp_path / "volume"), name="internal", default=False),
        ),
        access=AccessSettings(users_file=users),
        grants=(
            GrantSettings(role="reader", principals=("anonymous",), indexes=("main",)),
            GrantSettings(role="reader", principals=("user:alice",), indexes=("internal",)),
        ),
        ci=CiSettings(
            issuers=(IssuerSettings(name="github", url=issuer.url),),
            rules=(CiRule(name="builds", issuer="github", claims=((("repository_owner",), ("acme",)),)),),
        ),
    )
    return Scene(proxy, upstream, issuer, tmp_path)


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
