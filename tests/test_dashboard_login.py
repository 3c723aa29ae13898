"""Logging in with a browser, the buttons of those who may change something, and what no other page can have a browser do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_twisted
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, capturedLogs, formatEvent

from proxy.core.uploads import Uploaded
from proxy.hosted.editing import Editing
from proxy.hosted.folder import Folder, StandingFile
from proxy.settings import AccessSettings, GrantSettings, IndexSettings
from proxy.web.connections import BoundedSite
from tests.hosting import hosted, upload
from tests.inprocess import JSON, LOOPBACK, Running, Start
from tests.support.browser import BROWSER, Page
from tests.support.counter import post
from tests.support.elsewhere import from_elsewhere
from tests.support.fake_upstream import FakeUpstream
from tests.support.faults import Fault
from tests.support.logins import basic, write_users
from tests.support.wheels import wheel
from tests.support.wire import Reply

reactor: Any = default_reactor

SIX, LIB = wheel("six", "1.0"), wheel("corp-lib", "1.0")
FORM = "application/x-www-form-urlencoded"


class Browser(Struct, frozen=True):
    """A browser at *proxy*, with what it sends of itself; *cookie* is empty while nobody has logged in."""

    proxy: Running
    cookie: str = ""

    async def get(self, path: str) -> Page:
        reply = await self.proxy.get(path, **BROWSER, **self._cookies())
        assert reply.status == 200, reply
        return Page(reply, path)

    async def send(self, path: str, fields: dict[str, str], origin: str | None = None, **headers: str) -> Reply:
        headers = {"Origin": origin or self.proxy.base, **BROWSER, **self._cookies(), **headers}
        host = {"Host": self.proxy.base.removeprefix("http://")}
        return await post(self.proxy.port, path, urlencode(fields).encode(), FORM, **{**host, **headers})

    async def login(self, user: str) -> Browser:
        reply = await self.send("/-/login", {"user": user, "password": f"{user}!"})
        assert (reply.status, reply.headers["location"]) == (303, "../"), reply
        said = reply.headers["set-cookie"]
        assert said.endswith("; HttpOnly; SameSite=Strict")  # and Secure over https
        return Browser(self.proxy, said.partition(";")[0])

    async def press(self, path: str, action: str, **fields: str) -> Reply:
        """Send the form of *action* on the page at *path*."""
        return await self.send("/-/act", {**hidden(await self.get(path), action), **fields})

    def _cookies(self) -> dict[str, str]:
        return {"Cookie": self.cookie} if self.cookie else {}


def hidden_pairs(page: Page) -> list[tuple[str, str]]:
    """The hidden fields of all forms on *page*."""
    return [
        (each.attributes["name"], each.attributes["value"])
        for each in page.all("input")
        if each.attributes.get("type") == "hidden"
    ]


def hidden(page: Page, action: str) -> dict[str, str]:
    """The hidden fields of the form of *action*."""
    fields = hidden_pairs(page)
    start = fields.index(("action", action))
    return dict(fields[start : start + 5])


@pytest.fixture
def access(tmp_path: Path) -> AccessSettings:
    return AccessSettings(users_file=write_users(tmp_path / "users", "alice", "bob"))


async def started(upstream: FakeUpstream, run: Start, access: AccessSettings, **server: object) -> Browser:
    upstream.add_file("six", SIX.filename, SIX.data)
    indexes = (IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False), hosted("corp", default=False))
    grants = (
        GrantSettings(role="admin", principals=("user:alice",)),
        GrantSettings(role="reader", principals=("user:bob",), indexes=("corp",)),
    )
    proxy = await run(upstream, indexes=indexes, access=access, grants=grants, **server)
    assert await upload(proxy.service.receiving["corp"], LIB, by="user:carol") is Uploaded.NEW
    return Browser(proxy)


@pytest_twisted.ensureDeferred
async def test_who_has_logged_in_sees_what_is_theirs_until_they_log_out(
    upstream: FakeUpstream, run: Start, access: AccessSettings
) -> None:
    anybody = await started(upstream, run, access)
    page = await anybody.get("/-/login")
    assert list(page.faults()) == []
    wrong = await anybody.send("/-/login", {"user": "alice", "password": "wrong<b>"})
    assert (wrong.status, "set-cookie" in wrong.headers, b"is wrong, or no longer valid" in wrong.body) == (403, False, True)
    bob = await anybody.login("bob")
    page = await bob.get("/-/project/corp/corp-lib")
    assert "user:bob" in page.text
    assert "Change corp-lib" not in page.text
    assert (await anybody.proxy.get("/-/project/corp/corp-lib", **BROWSER)).status == 401
    # The cookie is for the dashboard: an installer's pages and changes know credentials alone.
    assert (await anybody.proxy.get("/index/corp/simple/corp-lib/", Cookie=bob.cookie)).status == 401
    reply = await bob.send("/-/logout", {})
    assert (reply.status, "Max-Age=0" in reply.headers["set-cookie"]) == (303, True)
    assert (await anybody.proxy.get("/-/project/corp/corp-lib", Cookie=bob.cookie, **BROWSER)).status == 401
    first = await anybody.login("bob")
    again = await first.login("bob")
    assert again.cookie != first.cookie
    assert "Log in" in (await first.get("/")).links
    # A session ends with the password that it began with.
    assert "Log in" not in (await again.get("/")).links
    await anybody.proxy.service.administration.perform("user_passwd", user="bob", password="another")  # a test's
    assert "Log in" in (await again.get("/")).links


@pytest_twisted.ensureDeferred
async def test_who_logs_in_again_and_again_ends_their_own_sessions_alone(
    upstream: FakeUpstream, run: Start, access: AccessSettings
) -> None:
    anybody = await started(upstream, run, access)
    alice, first, second = await anybody.login("alice"), await anybody.login("bob"), await anybody.login("bob")
    for _ in range(19):
        await anybody.login("bob")
    for browser, ended in ((alice, False), (first, True), (second, False)):
        assert ("Log in" in (await browser.get("/")).links) is ended


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_kept_live_does_not_outlive_its_login(
    upstream: FakeUpstream, run: Start, access: AccessSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.web.dashboard.streams._ASKED_EVERY", 0.0)
    anybody = await started(upstream, run, access)
    bob = await anybody.login("bob")
    leaving, staying = [await anybody.proxy.connect("/-/events", **cookie) for cookie in ({"Cookie": bob.cookie}, {})]
    await leaving.until(lambda: b"event: part" in leaving.body)
    assert not leaving.body.endswith(b"\r\n0\r\n\r\n")
    assert (await bob.send("/-/logout", {})).status == 303
    await leaving.until(lambda: leaving.body.endswith(b"\r\n0\r\n\r\n"))
    assert not staying.body.endswith(b"\r\n0\r\n\r\n")
    for each in (leaving, staying):
        await each.close()


@pytest_twisted.ensureDeferred
async def test_names_of_a_restricted_proxy_index_are_nowhere_but_for_its_readers_also_after_a_reload(
    upstream: FakeUpstream, run: Start, access: AccessSettings
) -> None:
    big, seen = wheel("acme-secret", "1.0", size=300_000), wheel("acme-seen", "1.0")
    for each in (big, seen):
        upstream.add_file(each.project, each.filename, each.data)
    reader = GrantSettings(role="reader", principals=("user:alice",))
    proxy = await run(upstream, access=access, grants=(reader,))
    anybody = Browser(proxy)
    alice, bob = await anybody.login("alice"), await anybody.login("bob")
    credential = {"Accept": JSON, "Authorization": basic("alice", "alice!")}
    page = (await proxy.get("/simple/acme-secret/", **credential)).json
    (link,) = [f"/simple/acme-secret/{each['url']}" for each in page["files"]]
    upstream.script(f"GET */{big.filename}", Fault(stall_after=100_000), times=1)
    upstream.script("GET */acme-failing/", Fault(status=500))
    downloading = await proxy.connect(link.replace("simple/acme-secret/../../", ""), **credential)
    await downloading.got_body(50_000)
    assert (await proxy.get("/simple/acme-failing/", **credential)).status == 503
    places = ("/", "/-/search?q=acme", "/-/project/pypi/acme-secret", "/-/project/pypi/acme-nowhere")

    async def told(browser: Browser) -> str:
        """All that *browser* is told, in pages and on the stream."""
        cookies = {"Cookie": browser.cookie} if browser.cookie else {}
        bodies = [(await proxy.get(each, **BROWSER, **cookies)).body for each in places]
        stream = await proxy.connect("/-/events", **cookies)
        await stream.until(lambda: stream.body.count(b"event: part") >= 7 and stream.body.endswith(b"\n\n\r\n"))
        await stream.close()
        return b"".join([*bodies, stream.body]).decode().replace("/-/project/pypi/acme-", "").replace("q=acme", "")

    def names(text: str) -> set[str]:
        return set(re.findall(r"acme[-_](?:secret|failing)", text))

    assert names(await told(alice)) == {"acme-secret", "acme_secret", "acme-failing"}
    for browser in (anybody, bob):
        found = await told(browser)
        assert names(found) == set()
        assert "1 other download in progress" in found
    # Once somebody else is the reader, what was open ends, and shows nothing more.
    before = await proxy.connect("/-/events", Cookie=alice.cookie)
    await before.until(lambda: b"acme-secret" in before.body)
    other = replace(reader, principals=("user:bob",))
    proxy.service.succeed(replace(proxy.service.settings, grants=(other,)))
    await before.until(lambda: before.body.endswith(b"\r\n0\r\n\r\n"))
    assert names(await told(alice)) == set()
    assert "acme-failing" in names(await told(bob))
    await before.close()
    await downloading.close()


@pytest_twisted.ensureDeferred
async def test_administrators_have_buttons_and_each_leaves_a_line_in_the_audit_log(
    upstream: FakeUpstream, run: Start, access: AccessSettings, tmp_path: Path
) -> None:
    anybody = await started(upstream, run, access)
    proxy = anybody.proxy
    assert (await proxy.get(await proxy.link("six", SIX.filename))).status == 200
    alice = await anybody.login("alice")
    six, lib = "/-/project/pypi/six", "/-/project/corp/corp-lib"
    page = await alice.get(six)
    assert list(page.faults()) == []
    asked = upstream.count()
    reply = await alice.press(six, "refresh")
    assert (reply.status, reply.headers["location"]) == (303, "project/pypi/six?done=refresh"), reply
    assert upstream.count() == asked + 1
    assert "The page was requested from upstream." in (await alice.get(f"{six}?done=refresh")).text
    assert (await alice.press(six, "pin")).status == 303
    assert "pinned" in (await alice.get(six)).text
    assert (await alice.press(six, "unpin")).status == 303
    assert (await alice.press(six, "purge", which="1.0")).status == 303
    assert "not cached" in (await alice.get(six)).text
    assert (await alice.press(lib, "yank", which="1.0", reason="loses <data>")).status == 303
    assert "yanked: loses <data>" in (await alice.get(lib)).text
    assert (await alice.press(lib, "yank", which="9.0")).status == 404
    assert (await alice.press(lib, "unyank", which="1.0")).status == 303
    await proxy.stop()
    lines = [json.loads(each) for each in (tmp_path / "data" / "audit.jsonl").read_text().splitlines()]
    found = [(each["action"], each["outcome"]) for each in lines if each["who"] == "user:alice" and each.get("project")]
    done = [(each, "done") for each in ("refresh", "pin", "unpin", "purge", "yank")]
    assert found == [*done, ("yank", "failed"), ("unyank", "done")]
    assert lines[[each["action"] for each in lines].index("yank")]["what"] == "which=1.0 reason=loses <data>"


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_undone_is_asked_for_once_more(
    serve: Start, access: AccessSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = (hosted("corp", overwrite=True), hosted("stage", default=False), hosted("vault", default=False))
    grants = (
        GrantSettings(role="admin", principals=("user:alice",), indexes=("corp", "stage")),
        GrantSettings(role="reader", principals=("user:bob",), indexes=("corp",)),
        GrantSettings(role="maintainer", principals=("user:bob",), indexes=("corp",)),
    )
    proxy = await serve(indexes=indexes, access=access, grants=grants)
    anybody = Browser(proxy)
    first, rebuilt = [wheel("corp-lib", "1.0", seed=seed, size=100) for seed in (1, 2)]
    assert (first.filename, len(rebuilt.data)) == (LIB.filename, len(first.data))
    newer = wheel("corp-lib", "2.0")
    for each in (first, newer):
        assert await upload(proxy.service.receiving["corp"], each, by="user:bob") is Uploaded.NEW
    alice, bob = await anybody.login("alice"), await anybody.login("bob")
    lib = "/-/project/corp/corp-lib"
    page = await alice.get(lib)
    assert [each.text for each in page.all("option")] == ["stage"]  # not vault, where she may not upload
    # Who maintains it may upload nowhere else.
    assert "promote" not in [each.attributes.get("value") for each in (await bob.get(lib)).all("input")]

    async def asked(reply: Reply, *files: str) -> dict[str, str]:
        assert reply.status == 200, reply
        page = Page(reply, "/-/act")
        assert list(page.faults()) == []
        assert [each.text.split()[0] for each in page.all("li")] == list(files)
        assert page.links["Cancel"] == lib
        return dict(hidden_pairs(page))

    # Promote: seen first, then done.
    fields = await asked(await alice.press(lib, "promote", version="1.0", target="stage"), LIB.filename)
    assert (await proxy.get("/index/stage/simple/corp-lib/", Accept=JSON, Authorization=basic("alice", "alice!"))).status == 404
    assert (await alice.send("/-/act", {**fields, "target": "vault"})).status == 404
    assert (await alice.send("/-/act", {**fields, "target": "nowhere"})).status == 404
    assert (await alice.send("/-/act", {**fields, "token": "0" * 64})).status == 400
    assert (await bob.send("/-/act", {**fields, "token": hidden(await bob.get(lib), "delete")["token"]})).status == 404
    reply = await alice.send("/-/act", fields)
    assert (reply.status, reply.headers["location"]) == (303, "project/stage/corp-lib?done=promote"), reply
    page = await alice.get("/-/project/stage/corp-lib?done=promote")
    assert "promoted to this index" in page.text
    assert LIB.filename in page.text
    assert (await alice.send("/-/act", fields)).status == 400  # all of it is there now
    assert (await alice.press(lib, "promote", target="stage")).status == 400  # no version

    # Delete: what was confirmed, and nothing else.
    fields = await asked(await bob.press(lib, "delete"), LIB.filename, newer.filename)
    late = wheel("corp-lib", "3.0")
    assert await upload(proxy.service.receiving["corp"], late, by="user:bob") is Uploaded.NEW
    reply = await bob.send("/-/act", fields)
    assert b"Meanwhile, the files have changed." in reply.body
    await asked(reply, LIB.filename, newer.filename, late.filename)
    fields = await asked(await bob.press(lib, "delete", which="1.0"), LIB.filename)
    assert await upload(proxy.service.receiving["corp"], rebuilt, by="user:bob") is Uploaded.NEW
    reply = await bob.send("/-/act", fields)
    assert b"Meanwhile, the files have changed." in reply.body
    reply = await bob.send("/-/act", await asked(reply, LIB.filename))
    assert (reply.status, reply.headers["location"]) == (303, "project/corp/corp-lib?done=delete")
    page = await bob.get(f"{lib}?done=delete")
    assert "The files were deleted." in page.text
    assert LIB.filename not in page.text
    reply = await bob.press(lib, "delete", which="1.0")
    page = Page(reply, "/-/act")
    assert (reply.status, list(page.faults()), page.links["Back to corp-lib"]) == (404, [], lib)
    assert "corp-lib has no file or version 1.0 on index corp; it has 3.0, 2.0" in page.text
    fields = await asked(await bob.press(lib, "delete"), newer.filename, late.filename)
    latest, delete = wheel("corp-lib", "4.0"), Editing.delete

    async def just_before(editing: Editing, *arguments: Any) -> Any:
        monkeypatch.setattr(Editing, "delete", delete)
        assert await upload(proxy.service.receiving["corp"], latest, by="user:bob") is Uploaded.NEW
        return await delete(editing, *arguments)

    monkeypatch.setattr(Editing, "delete", just_before)
    reply = await bob.send("/-/act", fields)
    assert b"Meanwhile, the files have changed." in reply.body
    fields = await asked(reply, newer.filename, late.filename, latest.filename)
    replacing, remove = wheel("corp-lib", "4.0", seed=7), Folder.remove_same

    def replaced(folder: Folder, project: str, file: StandingFile) -> bool:
        if file.filename == latest.filename:
            file.path.write_bytes(replacing.data)
        return remove(folder, project, file)

    monkeypatch.setattr(Folder, "remove_same", replaced)
    reply = await bob.send("/-/act", fields)
    assert f"not deleted: {latest.filename} of corp-lib; 2 other files deleted".encode() in reply.body
    monkeypatch.setattr(Folder, "remove_same", remove)
    fields = await asked(reply, latest.filename)
    reply = await bob.send("/-/act", fields)
    assert (reply.status, b"has no files of corp-lib any more" in reply.body) == (200, True)
    await proxy.stop()
    lines = [json.loads(each) for each in (tmp_path / "data" / "audit.jsonl").read_text().splitlines()]
    found = [(each["who"], each["action"], each.get("what")) for each in lines if each["action"] in ("promote", "delete")]
    assert found == [
        ("user:alice", "promote", "version=1.0 target=stage"),
        ("user:bob", "delete", "which=1.0"),
        ("user:bob", "delete", None),  # refused: a file had landed
        ("user:bob", "delete", None),  # all but one, which was replaced
        ("user:bob", "delete", None),
    ]


@pytest_twisted.ensureDeferred
async def test_nothing_is_changed_by_who_may_not_and_by_no_page_of_another_site(
    upstream: FakeUpstream, run: Start, access: AccessSettings
) -> None:
    anybody = await started(upstream, run, access)
    proxy = anybody.proxy
    assert (await proxy.get(await proxy.link("six", SIX.filename))).status == 200
    alice, bob = await anybody.login("alice"), await anybody.login("bob")
    fields = hidden(await alice.get("/-/project/pypi/six"), "purge")
    for browser, sent, headers, status in (
        (anybody, fields, {}, 401),
        (bob, fields, {}, 404),
        (alice, {**fields, "token": "0" * 64}, {}, 400),
        (alice, {**fields, "token": ""}, {}, 400),
        (alice, {**fields, "token": "é"}, {}, 400),
        (alice, {**fields, "index": "nowhere"}, {}, 400),
        (alice, {**fields, "project": "../six"}, {}, 400),
        (alice, {**fields, "action": "delete"}, {}, 400),
        (alice, {**fields, "shown": "//evil.example"}, {}, 404),
        (alice, fields, {"Origin": "https://evil.example"}, 400),
        (alice, fields, {"Origin": "null"}, 400),
        (alice, fields, {"Sec_Fetch_Site": "cross-site"}, 400),
        (alice, fields, {"Sec_Fetch_Site": "same-site"}, 400),
        (alice, {**fields, "which": "x" * 9000}, {}, 413),
    ):
        reply = await browser.send("/-/act", sent, **headers)
        assert reply.status == status, (sent, headers, reply)
    assert (await post(proxy.port, "/-/act", urlencode(fields).encode(), FORM, Cookie=alice.cookie)).status == 400
    assert (
        await post(proxy.port, "/-/act", json.dumps(fields).encode(), "application/json", Cookie=alice.cookie)
    ).status == 400
    assert (await proxy.get("/-/act", Cookie=alice.cookie)).status == 405
    assert "1 of them cached" in (await alice.get("/-/project/pypi/six")).text
    assert (await alice.send("/-/act", fields)).status == 303
    assert "0 of them cached" in (await alice.get("/-/project/pypi/six")).text


@pytest_twisted.ensureDeferred
async def test_who_would_have_to_log_in_to_promote_is_challenged(serve: Start, access: AccessSettings) -> None:
    grants = [
        GrantSettings(role="admin", principals=(who,), indexes=(index,))
        for who, index in (("anonymous", "corp"), ("user:alice", "stage"))
    ]
    proxy = await serve(indexes=(hosted("corp"), hosted("stage", default=False)), access=access, grants=tuple(grants))
    assert await upload(proxy.service.receiving["corp"], LIB) is Uploaded.NEW
    anybody = Browser(proxy)
    fields = hidden(await anybody.get("/-/project/corp/corp-lib"), "yank")  # there is no button to promote
    reply = await anybody.send("/-/act", {**fields, "action": "promote", "version": "1.0", "target": "stage"})
    assert (reply.status, reply.headers.get("www-authenticate", "").partition(" ")[0]) == (401, "Basic")


@pytest_twisted.ensureDeferred
async def test_nobody_is_asked_for_a_password_that_others_could_read(
    upstream: FakeUpstream, run: Start, access: AccessSettings
) -> None:
    proxy = await run(upstream, access=access)
    site = BoundedSite(proxy.service.front, reactor, 4, 60.0, lambda full: None)
    reply = await from_elsewhere(site, "/-/login", Connection="close", **BROWSER)
    page = Page(reply, "/-/login")
    assert (reply.status, page.all("form"), list(page.faults())) == (403, [], [])
    assert "not taken over plain http" in page.text


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
@pytest_twisted.ensureDeferred
async def test_over_https_the_cookie_is_sent_over_https_alone(
    upstream: FakeUpstream, run: Start, access: AccessSettings, logged: list[LogEvent], trusted: tuple[str, ...]
) -> None:
    def complaints() -> int:
        return len([each for each in logged if "sends no X-Forwarded-Proto" in each.get("log_format", "")])

    proxy = await run(upstream, access=access, trusted_proxies=trusted)
    sent = {"user": "alice", "password": "alice!"}
    reply = await Browser(proxy).send("/-/login", sent, X_Forwarded_Proto="https", X_Forwarded_For="192.0.2.1")
    said = reply.headers["set-cookie"]
    assert (said.startswith("__Host-pypiproxy="), said.endswith("; Secure")) == (bool(trusted), bool(trusted))
    assert complaints() == 0
    # A trusted proxy that does not say so is reported, once.
    for _ in range(2):
        reply = await Browser(proxy).send("/-/login", sent, X_Forwarded_For="192.0.2.1")
        assert not reply.headers["set-cookie"].endswith("; Secure")
    assert complaints() == len(trusted)


@pytest_twisted.ensureDeferred
async def test_what_was_begun_at_a_listener_of_the_dashboard_ends_before_the_proxy_does(
    upstream: FakeUpstream, run: Start, access: AccessSettings
) -> None:
    anybody = await started(upstream, run, access, dashboard_listen=(LOOPBACK,))
    ((port,),) = (each.ports for each in anybody.proxy.service.dashboard_listenings)
    anybody.proxy.port = port.getHost().port  # type: ignore[attr-defined]  # a TCP port's address has one
    alice = await anybody.login("alice")
    fields = hidden(await alice.get("/-/project/pypi/six"), "refresh")
    gate = upstream.hold("/simple/six/")
    pressed = ensureDeferred(alice.send("/-/act", fields))
    await upstream.until(lambda: upstream.in_progress > 0)
    reloaded = alice.proxy.service.succeed(alice.proxy.service.settings)
    with capturedLogs() as logged:
        stopped = ensureDeferred(alice.proxy.stop())
        while not (pressed.called or any("responses may go on" in formatEvent(each) for each in logged)):
            await deferLater(reactor, 0.001)
    assert [each.called for each in (pressed, reloaded, stopped)] == [False] * 3
    gate.release()
    reply = await pressed
    assert (reply.status, reply.headers["location"]) == (303, "project/pypi/six?done=refresh"), reply
    await stopped
    await reloaded
