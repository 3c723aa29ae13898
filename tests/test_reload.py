"""A configuration that changes while the proxy runs: it is refused as a whole, or holds from the next request on."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, formatEvent

from proxy.commands import asking
from proxy.composition.starting import ConfigSource
from proxy.config import CommandLine
from proxy.config.changes import NEED_RESTART
from proxy.errors import ConfigError
from proxy.host.following import Following
from proxy.service import build
from proxy.settings import GrantSettings, GroupSettings, HostedSettings, IndexSettings, PageLimits, Settings, WarmSettings
from tests.hosting import drop, hosted, listed
from tests.inprocess import JSON, LOOPBACK, Running, Start, upstream_settings
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of, wheel

reactor: Any = default_reactor

SIX = "six-1.0-py3-none-any.whl"
PRIVATE = wheel("acme-app", "1.0")


def of(*upstreams: str, name: str = "pypi", **settings: Any) -> IndexSettings:
    """A proxy index that asks nothing ahead."""
    limits = PageLimits(soft_deadline=0.1)
    return IndexSettings(**{"name": name, "upstreams": upstreams, "limits": limits, "prefetch": False, **settings})


def with_indexes(proxy: Running, *indexes: IndexSettings, **changes: Any) -> Settings:
    return replace(proxy.service.settings, indexes=indexes, **changes)


async def ask_again(client: wire.Client, path: str) -> wire.Reply:
    client.ask(path, Accept=JSON)
    return await client.reply()


@pytest_twisted.ensureDeferred
async def test_a_connection_and_a_download_go_on_and_are_shared(upstream: FakeUpstream, run: Start) -> None:
    data = data_of(3_000_000, 1)
    upstream.add_file("six", SIX, data)
    proxy = await run(upstream)
    path = await proxy.link("six", SIX)
    before = await wire.connect(proxy.port)
    assert (await ask_again(before, "/simple/six/")).status == 200
    gate = upstream.hold("/packages/*", after=1_000_000)
    first = await proxy.connect(path)
    await first.got_body(500_000)

    # The index is another one: what it prefers has changed.  Its upstream is the same.
    (index,) = proxy.service.settings.indexes
    ended = proxy.service.succeed(with_indexes(proxy, replace(index, hedge_after=3.0)))
    assert (await ask_again(before, "/simple/six/")).status == 200
    await before.close()
    second = await proxy.connect(path)
    await second.got_body(500_000)
    assert not ended.called
    gate.release()
    for each in (first, second):
        reply = await each.reply()
        assert hashlib.sha256(reply.body).digest() == hashlib.sha256(data).digest()
        await each.close()
    await ended
    assert upstream.count("/packages/*") == 1
    assert (await proxy.get(path)).body == data


@pytest_twisted.ensureDeferred
async def test_what_is_asked_of_upstream_is_joined_by_requests_after_a_reload(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", SIX, b"x")
    proxy = await run(upstream)
    gate = upstream.hold("/simple/six/")
    first = await proxy.connect("/simple/six/", Accept=JSON)
    await upstream.arrived("/simple/six/")
    (index,) = proxy.service.settings.indexes
    later = replace(index, limits=replace(index.limits, ttl=1.0))
    ended = proxy.service.succeed(with_indexes(proxy, later, of("up0", name="other")))
    second = await proxy.connect("/simple/six/", Accept=JSON)
    gate.release()
    for each in (first, second):
        assert (await each.reply()).status == 200
        await each.close()
    await ended
    assert upstream.count("/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_indexes_are_added_and_removed(
    upstream: FakeUpstream, make_upstream: Callable[..., FakeUpstream], run: Start
) -> None:
    upstream.add_file("six", SIX, b"x")
    another = make_upstream()
    another.add_file("seven", "seven-1.0-py3-none-any.whl", b"y")
    proxy = await run(upstream)
    assert (await proxy.get("/index/vendor/simple/seven/")).status == 404
    both = (*proxy.service.settings.upstreams, upstream_settings(another.url, "vendor"))
    (index,) = proxy.service.settings.indexes
    await proxy.service.succeed(with_indexes(proxy, of("vendor", name="vendor"), index, upstreams=both))
    assert (await proxy.page("seven", "/index/vendor"))["files"]
    assert (await proxy.page("six"))["files"]
    await proxy.service.succeed(with_indexes(proxy, replace(index, default=False)))
    gone = await proxy.get("/index/vendor/simple/seven/")
    assert gone.status == 404
    assert "there is no index named 'vendor' here; there is pypi" in gone.json["detail"]
    assert (await proxy.get("/simple/six/")).status == 404
    assert (await proxy.page("six", "/index/pypi"))["files"]


@pytest_twisted.ensureDeferred
async def test_rights_hold_for_the_next_request_also_where_the_answer_is_remembered(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", SIX, b"x")
    proxy = await run(upstream)
    client = await wire.connect(proxy.port)
    for _ in range(2):
        assert (await ask_again(client, "/simple/six/")).status == 200
    reader = GrantSettings(role="reader", principals=("user:alice",))
    await proxy.service.succeed(replace(proxy.service.settings, grants=(reader,)))
    assert (await ask_again(client, "/simple/six/")).status == 401
    await proxy.service.succeed(replace(proxy.service.settings, grants=()))
    assert (await ask_again(client, "/simple/six/")).status == 200
    assert upstream.count("/simple/six/") == 1
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_hosted_index_goes_on_under_new_limits(run: Start, tmp_path: Path) -> None:
    proxy = await run(indexes=(hosted(),))
    drop(tmp_path / "data" / "hosted" / "internal", PRIVATE)
    assert list(await listed(proxy, "acme-app")) == [PRIVATE.filename]
    taken = proxy.service.receiving["internal"]
    await proxy.service.succeed(with_indexes(proxy, hosted(uploads=False)))
    assert not taken.takes_uploads
    assert (await wire.fetch(proxy.port, "/legacy/", "POST")).status == 405
    # In a group from now on: its names are asked of it alone.
    group = IndexSettings(name="all", kind="group", group=GroupSettings(members=("internal",)), default=True)
    await proxy.service.succeed(with_indexes(proxy, hosted(default=False), group))
    assert proxy.service.receiving["internal"] is taken
    assert list(await listed(proxy, "acme-app")) == [PRIVATE.filename]


@pytest_twisted.ensureDeferred
async def test_names_of_a_removed_hosted_index_stay_claimed(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    upstream.add_file("acme-app", "acme_app-9.0-py3-none-any.whl", b"somebody else's")
    public = replace(of("up0"), default=False)

    def group(*members: str) -> IndexSettings:
        return IndexSettings(name="all", kind="group", group=GroupSettings(members=members), default=True)

    proxy = await run(upstream, indexes=(hosted(default=False), public, group("internal", "pypi")))
    drop(tmp_path / "data" / "hosted" / "internal", PRIVATE)
    assert list(await listed(proxy, "acme-app")) == [PRIVATE.filename]
    await proxy.service.succeed(with_indexes(proxy, public, group("pypi")))
    assert (await proxy.get("/index/internal/simple/acme-app/")).status == 404
    await proxy.service.succeed(with_indexes(proxy, hosted("other", default=False), public, group("other", "pypi")))
    refused = await proxy.get("/simple/acme-app/")
    assert (refused.status, refused.json["code"]) == (409, "name-abandoned")
    await proxy.service.succeed(with_indexes(proxy, hosted(default=False), public, group("internal", "pypi")))
    assert list(await listed(proxy, "acme-app")) == [PRIVATE.filename]


@pytest_twisted.ensureDeferred
async def test_what_fails_while_it_is_built_changes_nothing(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", SIX, b"x")

    def failing(index: IndexSettings, members: object) -> Any:
        raise ConfigError("its directory is locked")

    proxy = await run(upstream, kinds={"broken": failing})
    before = proxy.service.settings
    wanted = (*before.indexes, hosted("beside", default=False), IndexSettings(name="x", kind="broken"))
    with pytest.raises(ConfigError, match="its directory is locked"):
        proxy.service.succeed(with_indexes(proxy, *wanted))
    assert proxy.service.settings is before
    assert (await proxy.get("/simple/six/")).status == 200
    assert (await proxy.get("/index/beside/simple/")).status == 404
    await proxy.service.succeed(with_indexes(proxy, *wanted[:-1]))
    assert (await proxy.get("/index/beside/simple/")).status == 200


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_of_a_generation_that_has_ended(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", SIX, b"x")
    proxy = await run(upstream)
    (index,) = proxy.service.settings.indexes
    left: list[weakref.ref[Any]] = []
    for number in range(3):
        assert (await proxy.get("/simple/six/")).status == 200
        present = proxy.service.present
        if number:  # of what there was at the start no garbage is collected
            index_parts = present.indexes.built["pypi"].parts
            left += [weakref.ref(each) for each in (present, present.serving.front, index_parts.repository)]
            del index_parts
        del present
        await proxy.service.succeed(with_indexes(proxy, replace(index, hedge_after=3.0 + number)))
    gc.collect()
    assert [each() for each in left] == [None] * len(left)


@pytest_twisted.ensureDeferred
async def test_what_is_kept_ready_follows_the_new_settings(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    service = proxy.service

    def following() -> list[Following]:
        return [each for each in service if isinstance(each, Following)]

    service.follow(None)
    warm = WarmSettings(recent=60.0)
    await service.succeed(replace(service.settings, warm=warm))
    (first,) = following()
    await service.succeed(replace(service.settings, grants=(GrantSettings(role="reader", principals=("user:a",)),)))
    assert following() == [first]
    await service.succeed(replace(service.settings, warm=None))
    assert following() == []


@pytest_twisted.ensureDeferred
async def test_the_service_stops_while_a_generation_ends(upstream: FakeUpstream, run: Start, logged: list[LogEvent]) -> None:
    upstream.add_file("six", SIX, data_of(3_000_000, 1))
    proxy = await run(upstream)
    path = await proxy.link("six", SIX)
    upstream.hold("/packages/*", after=1_000_000)
    client = await proxy.connect(path)
    await client.got_body(500_000)
    ended = proxy.service.succeed(with_indexes(proxy, replace(proxy.service.settings.indexes[0], hedge_after=3.0)))
    with_more = with_indexes(proxy, *proxy.service.settings.indexes, of("up0", name="more"))
    stopping = Deferred.fromCoroutine(proxy.stop())
    with pytest.raises(ConfigError, match="is stopping"):
        proxy.service.succeed(with_more)
    await stopping
    await ended
    await client.close()
    gc.collect()
    assert [each for each in logged if each["log_level"] is LogLevel.critical] == []
    assert "stopping: 1 responses are cut off" in [formatEvent(each) for each in logged]


# -- from a file --------------------------------------------------------------------------------------------------------------


class FromFile:
    """A service with a configuration file, and what operators have it do."""

    def __init__(self, place: Path, upstream: FakeUpstream) -> None:
        self.file, self.data_dir, self._upstream = place / "pypiproxy.toml", place / "data", upstream
        self.write()
        self.source = ConfigSource(self.file, CommandLine(listen=(LOOPBACK,), data_dir=self.data_dir))
        self.service = build(self.source.read(reactor), reactor, source=self.source)
        self.service.startService()
        self.proxy = Running(self.service)

    def write(self, more: str = "", *, index: str = "", server: str = "") -> str:
        """Write the file, and return its text."""
        text = (
            f'[server]\n{server}\n[upstream.corp]\nurl = "{self._upstream.url}"\n'
            f'[[index]]\nname = "pypi"\nupstreams = ["corp"]\nprefetch = false\n{index}\n{more}'
        )
        self.file.write_text(text)
        return text

    async def ask(self, operation: str, **arguments: Any) -> Any:
        return await deferToThread(asking.ask, self.data_dir, operation, arguments, lambda said: None)

    @property
    def audited(self) -> list[Any]:
        return [json.loads(line) for line in (self.data_dir / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def from_file(upstream: FakeUpstream, tmp_path: Path) -> Any:
    upstream.add_file("six", SIX, b"x")
    made = FromFile(tmp_path, upstream)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.proxy.stop()))


@pytest_twisted.ensureDeferred
async def test_a_file_with_mistakes_is_refused_as_at_the_start(from_file: FromFile, logged: list[LogEvent]) -> None:
    assert (await from_file.proxy.get("/simple/six/")).status == 200
    from_file.write('[[grant]]\nrole = "reader"\nprincipals = ["user:alice"]\n', index='ttl = "soon"\nfoo = 1')
    with pytest.raises(ConfigError) as refused:
        from_file.source.read(reactor)
    assert "2 mistakes" in str(refused.value)
    for operation in ("reload", "config_diff"):
        with pytest.raises(asking.OperationFailed) as failed:
            await from_file.ask(operation)
        assert str(failed.value) == str(refused.value)
    assert (await from_file.proxy.get("/simple/six/")).status == 200
    assert any("the configuration is wrong, and stays as it was" in (formatEvent(each) or "") for each in logged)
    from_file.write()
    assert (await from_file.ask("reload"))["changes"] == []
    await from_file.proxy.stop()
    reloads = [each for each in from_file.audited if each["action"] == "reload"]
    assert [each["outcome"] for each in reloads] == ["failed", "done"]
    assert {(each["who"], each["from"]) for each in reloads} == {("part:admin", "admin socket")}


@pytest_twisted.ensureDeferred
async def test_what_has_changed_is_told_and_what_needs_a_restart_is_named(from_file: FromFile, logged: list[LogEvent]) -> None:
    # The command line goes on to override the file.
    from_file.write(
        '[[index]]\nname = "internal"\nkind = "hosted"\n',
        index='default = true\nttl = "5m"',
        server='page_memory = "64MiB"\nmax_connections = 100\nlisten = ["tcp:1:interface=127.0.0.1"]\ndata_dir = "elsewhere"',
    )
    expected = [
        {"key": "index.pypi.ttl", "old": '"10m"', "new": '"5m"', "needs_restart": False},
        {"key": "server.max_connections", "old": "4096", "new": "100", "needs_restart": False},
        {"key": "server.page_memory", "old": '"128MiB"', "new": '"64MiB"', "needs_restart": True},
    ]
    diff = await from_file.ask("config_diff")
    assert [each for each in diff["changes"] if each in expected] == expected
    (added,) = [each for each in diff["changes"] if each["key"] == "index.internal"]
    assert added["old"] is None
    assert added["new"].startswith('{ name = "internal", kind = "hosted", ')
    assert {each["key"].rpartition(".")[0] for each in diff["changes"]} == {"server", "index.pypi", "index"}
    assert (await from_file.proxy.get("/index/internal/simple/")).status == 404
    assert await from_file.ask("reload") == diff
    assert diff["notes"] == ["index internal is added: /index/internal/simple/"]
    assert (await from_file.proxy.get("/index/internal/simple/")).status == 200
    words = [formatEvent(each) or "" for each in logged]
    assert any("take effect when the proxy is restarted: server.page_memory" in each for each in words)
    # What waits for a restart is all that is left.
    assert [each["key"] for each in (await from_file.ask("config_diff"))["changes"]] == ["server.page_memory"]


@pytest_twisted.ensureDeferred
async def test_the_directory_of_a_hosted_index_stays_until_a_restart(from_file: FromFile, tmp_path: Path) -> None:
    from_file.write('[[index]]\nname = "internal"\nkind = "hosted"\n', index="default = true")
    await from_file.ask("reload")
    elsewhere = tmp_path / "elsewhere"
    from_file.write(f'[[index]]\nname = "internal"\nkind = "hosted"\npath = "{elsewhere}"\n', index="default = true")
    (change,) = (await from_file.ask("reload"))["changes"]
    assert change == {"key": "index.internal.path", "old": None, "new": f'"{elsewhere}"', "needs_restart": True}
    (index,) = [each for each in from_file.service.settings.indexes if each.name == "internal"]
    assert index.hosted == HostedSettings()


@pytest_twisted.ensureDeferred
async def test_a_renamed_index_is_told_what_it_leaves_behind(from_file: FromFile) -> None:
    text = from_file.write('[[index]]\nname = "mine"\nkind = "hosted"\npath = "mine"\n', index="default = true")
    await from_file.ask("reload")
    from_file.file.write_text(text.replace('"pypi"', '"public"').replace('name = "mine"', 'name = "ours"'))
    answer = await from_file.ask("reload")
    proxied, own = answer["notes"]
    assert "index pypi is now called public" in proxied
    assert "pages, first-seen digests and pins stay with pypi" in proxied
    assert "index mine is now called ours" in own
    assert "pypiproxy claims add ours --from mine" in own
    from_file.file.write_text(text.replace('[[index]]\nname = "mine"\nkind = "hosted"\npath = "mine"\n', ""))
    answer = await from_file.ask("reload")
    assert any("index ours is removed: its files stay in" in each for each in answer["notes"])


@pytest_twisted.ensureDeferred
async def test_secrets_are_not_shown(from_file: FromFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "sesame-one")
    monkeypatch.setenv("TWO", "sesame-two")
    text = from_file.file.read_text()
    for variable in ("ONE", "TWO"):
        from_file.file.write_text(text.replace("[[index]]", f'username = "ci"\npassword_env = "{variable}"\n[[index]]', 1))
        answer = await from_file.ask("reload")
        (key,) = [each["key"] for each in answer["changes"]]
        assert key == "upstream.corp.password_env"
        assert "sesame" not in json.dumps(answer)


def test_every_key_that_needs_a_restart_has_a_reason_and_is_in_the_documentation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text("utf-8")
    section = page.partition("\n## What needs a restart\n")[2].partition("\n## ")[0]
    named = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    assert named == NEED_RESTART.keys()
    assert all(NEED_RESTART.values())
