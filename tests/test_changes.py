"""Maintainers change their own projects over HTTP: with requests, and with the commands that operators use on the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner, Result
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.threads import deferToThread

from proxy.cli import main
from proxy.core.uploads import Uploaded
from proxy.settings import AccessSettings, GrantSettings
from tests.hosting import hosted, upload
from tests.inprocess import Running, Start
from tests.support.counter import post
from tests.support.logins import basic, write_users
from tests.support.wheels import sdist, wheel
from tests.support.wire import Reply

APP, SOURCE, NEXT, OTHER = wheel("acme-app", "1.0"), sdist("acme-app", "1.0"), wheel("acme-app", "2.0"), wheel("other", "1.0")
ALICE, BOB = basic("alice", "alice!"), basic("bob", "bob!")
GRANTS = (
    GrantSettings(role="reader", principals=("authenticated",), indexes=("dev", "stable")),
    GrantSettings(role="maintainer", principals=("user:alice", "user:bob"), indexes=("dev",)),
    GrantSettings(role="uploader", principals=("user:alice",), indexes=("stable",)),
)


class Site(Struct, frozen=True):
    """A proxy whose index ``dev`` has acme-app of Alice and other of somebody else; Alice may publish to ``stable`` too."""

    proxy: Running
    audit: Path

    async def change(self, path: str, said: Any, login: str | None = ALICE, **headers: str) -> Reply:
        """What is answered to the change *said* of what is at *path* below the projects of ``dev``."""
        if login is not None:
            headers["Authorization"] = login
        kind = headers.pop("Content_Type", "application/json")
        return await post(self.proxy.port, f"/index/dev/projects/{path}", json.dumps(said).encode(), kind, **headers)

    async def yanked(self) -> dict[str, bool | str]:
        """What is yanked of acme-app, and why."""
        reply = await self.proxy.get(
            "/index/dev/simple/acme-app/", Accept="application/vnd.pypi.simple.v1+json", Authorization=ALICE
        )
        return {each["filename"]: each["yanked"] for each in reply.json["files"]} if reply.status == 200 else {}

    async def command(self, *line: str, token: str = "", as_json: bool = False) -> Result:
        """A command with ``--url``, in a thread: it waits for the proxy, which is here."""
        arguments = [*line, "--url", self.proxy.base, *(["--json"] if as_json else [])]
        environ = {"PYPIPROXY_TOKEN": token, "NETRC": "/nonexistent", "HOME": "/nonexistent"}
        return await deferToThread(lambda: CliRunner().invoke(main, arguments, env=environ))


@pytest.fixture
def access(tmp_path: Path) -> AccessSettings:
    return AccessSettings(users_file=write_users(tmp_path / "users", "alice", "bob"))


async def started(serve: Start, access: AccessSettings, tmp_path: Path) -> Site:
    indexes = (hosted("dev", default=False), hosted("stable", default=False, uploads=False))
    proxy = await serve(indexes=indexes, access=access, grants=GRANTS)
    for each, by in ((APP, "user:alice"), (SOURCE, "user:alice"), (NEXT, "user:alice"), (OTHER, "user:carol")):
        assert await upload(proxy.service.receiving["dev"], each, by=by) is Uploaded.NEW
    return Site(proxy, tmp_path / "data" / "audit.jsonl")


async def token(site: Site, *, user: str = "alice", role: str = "maintainer") -> str:
    made = await site.proxy.service.administration.perform("token_create", user=user, role=role, indexes=["dev"])
    text: str = made["token"]
    return text


@pytest_twisted.ensureDeferred
async def test_a_maintainer_changes_the_projects_that_it_began(serve: Start, access: AccessSettings, tmp_path: Path) -> None:
    site = await started(serve, access, tmp_path)
    reply = await site.change("Acme_App/yank", {"which": "1.0", "reason": "loses data"})
    assert reply.status == 200, reply
    assert {(each["filename"], each["yanked"]) for each in reply.json} == {
        (APP.filename, "loses data"),
        (SOURCE.filename, "loses data"),
    }
    assert await site.yanked() == {APP.filename: "loses data", SOURCE.filename: "loses data", NEXT.filename: False}
    assert (await site.change("acme-app/unyank", {"which": SOURCE.filename})).status == 200
    assert (await site.yanked())[SOURCE.filename] is False
    reply = await site.change("acme-app/delete", {"which": "2.0", "dry": True})
    assert [each["filename"] for each in reply.json] == [NEXT.filename]
    assert NEXT.filename in await site.yanked()
    reply = await site.change("acme-app/promote", {"target": "stable", "version": "1.0"})
    assert (reply.status, len(reply.json["new"])) == (200, 2), reply
    assert (await site.change("acme-app/delete", {"which": "2.0"})).status == 200
    assert NEXT.filename not in await site.yanked()
    reply = await site.change("acme-app/status", {"status": "quarantined", "reason": "looks bad"})
    assert reply.json == {"index": "dev", "project": "acme-app", "status": "quarantined", "reason": "looks bad"}
    assert await site.yanked() == {}
    reply = await site.change("acme-app/promote", {"target": "stable", "version": "1.0"})
    assert (reply.status, "is quarantined on index dev, and nothing of it is promoted" in reply.json["detail"]) == (400, True)

    # All else that may be answered says what is wrong, in the form of all errors.
    for path, said, status in (
        ("acme-app/yank", {"which": "9.0"}, 404),
        ("acme-app/yank", {"which": "1.0", "why": "x"}, 400),
        ("acme-app/yank", [], 400),
        ("acme-app/delete", {}, 400),
        ("acme-app/status", {"status": "gone"}, 400),
        ("acme-app/yank", {"which": "x" * 20_000}, 413),
        ("acme-app/promote", {"target": "dev2", "version": "1.0"}, 404),
    ):
        reply = await site.change(path, said)
        assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json"), (path, said, reply)
    await site.proxy.stop()
    lines = [json.loads(each) for each in site.audit.read_text().splitlines()]
    done = [(each["action"], each["outcome"]) for each in lines if each.get("project") == "acme-app"]
    assert done[:5] == [(each, "done") for each in ("yank", "unyank", "delete", "promote", "delete")]
    yank = next(each for each in lines if each["action"] == "yank")
    assert (yank["who"], yank["from"], yank["what"]) == ("user:alice", "127.0.0.1", "which=1.0 reason=loses data")


@pytest_twisted.ensureDeferred
async def test_who_uploads_first_to_a_name_that_an_operator_has_claimed_maintains_it(
    serve: Start, access: AccessSettings, tmp_path: Path
) -> None:
    site = await started(serve, access, tmp_path)
    first, second = wheel("later", "1.0"), wheel("later", "2.0")
    await site.proxy.service.administration.perform("claim_add", index="dev", projects=["later"])
    (before,) = [each for each in await site.proxy.service.administration.perform("claims") if each["project"] == "later"]
    for each, by in ((first, "user:alice"), (second, "user:bob")):
        assert await upload(site.proxy.service.receiving["dev"], each, by=by) is Uploaded.NEW
    (after,) = [each for each in await site.proxy.service.administration.perform("claims") if each["project"] == "later"]
    assert (before["by"], after) == ("an operator", before | {"by": "user:alice"})
    assert (await site.change("later/yank", {"which": "2.0"})).status == 200
    assert (await site.change("later/yank", {"which": "1.0"}, BOB)).status == 404
    # It is so after the files are deleted, and after a decision of the operator.
    for each in (first, second):
        assert (await site.change("later/delete", {"which": each.filename})).status == 200
    await site.proxy.service.administration.perform("claim_add", index="dev", projects=["later"])
    assert await upload(site.proxy.service.receiving["dev"], second, by="user:bob") is Uploaded.NEW
    assert (await site.change("later/yank", {"which": "2.0"}, BOB)).status == 404
    assert (await site.change("later/yank", {"which": "2.0"})).status == 200


@pytest_twisted.ensureDeferred
async def test_who_uploads_next_does_not_maintain_what_others_uploaded_to_a_name_that_an_operator_has_claimed(
    serve: Start, access: AccessSettings, tmp_path: Path
) -> None:
    site = await started(serve, access, tmp_path)
    # An earlier version left such claims: an operator's, with files.
    book = site.proxy.service.caches.claims
    await book.put([replace(book.of("acme-app")["dev"], by="an operator")])
    assert await upload(site.proxy.service.receiving["dev"], wheel("acme-app", "3.0"), by="user:bob") is Uploaded.NEW
    assert (await site.change("acme-app/delete", {"which": None}, BOB)).status == 404
    assert book.of("acme-app")["dev"].by == "an operator"


@pytest_twisted.ensureDeferred
async def test_nobody_else_does_and_no_page_of_another_site(serve: Start, access: AccessSettings, tmp_path: Path) -> None:
    site = await started(serve, access, tmp_path)
    yank = {"which": "1.0"}
    hidden = await site.change("acme-none/yank", yank, BOB)
    assert hidden.status == 404
    for login in (BOB, f"Bearer {await token(site, user='bob')}", f"Bearer {await token(site, role='uploader')}"):
        reply = await site.change("acme-app/yank", yank, login)
        assert (reply.status, reply.json["detail"]) == (404, hidden.json["detail"].replace("none", "app")), reply
    assert (await site.change("other/yank", yank)).status == 404
    reply = await site.change("acme-app/yank", yank, None)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Basic realm="pypiproxy"')
    assert (await site.change("acme-app/yank", yank, Content_Type="text/plain")).status == 400
    form = "multipart/form-data; boundary=x"
    assert (await site.change("acme-app/yank", yank, Content_Type=form)).status == 405
    for page in ("cross-site", "same-site"):
        assert (await site.change("acme-app/yank", yank, Sec_Fetch_Site=page)).status == 400
    assert (await site.proxy.get("/index/dev/projects/acme-app/yank", Authorization=ALICE)).status == 405
    assert (await site.change("acme-app/promote", {"target": "stable", "version": "1.0"}, BOB)).status == 404
    assert set((await site.yanked()).values()) == {False}
    reply = await site.change("acme-app/yank", yank, f"Bearer {await token(site)}", Sec_Fetch_Site="same-origin")
    assert reply.status == 200, reply


@pytest_twisted.ensureDeferred
async def test_the_commands_of_operators_ask_a_proxy_on_another_machine(
    serve: Start, access: AccessSettings, tmp_path: Path
) -> None:
    site = await started(serve, access, tmp_path)
    mine = await token(site)
    said = await site.command("yank", "dev", "acme-app", "2.0", "--reason", "breaks", token=mine)
    assert (said.exit_code, said.output) == (0, f"{NEXT.filename} (dev)\n1 file yanked\n"), said
    assert (await site.yanked())[NEXT.filename] == "breaks"
    said = await site.command("unyank", "dev", "acme-app", "2.0", token=mine, as_json=True)
    assert json.loads(said.output)["yanked"] is False
    said = await site.command("status", "dev", "acme-app", "deprecated", token=mine)
    assert (said.exit_code, said.output) == (0, "acme-app (dev): deprecated\n")
    assert (await site.command("status", "dev", "acme-app", token=mine)).output == "acme-app (dev): deprecated\n"
    said = await site.command("delete", "dev", "acme-app", "--all", token=mine)
    assert "3 files deleted" in said.output
    # A token of the role maintainer does not publish, and another index is not its own.
    said = await site.command("promote", "dev", "stable", "acme-app", "1.0", token=mine)
    assert (said.exit_code, "404" in said.output) == (1, True)
    said = await site.command("yank", "dev", "other", "1.0", token=mine)
    assert (said.exit_code, "404 there is nothing at" in said.output) == (1, True)
    said = await site.command("yank", "dev", "acme-app", "1.0")
    assert (said.exit_code, "401 a user name and a password are needed" in said.output) == (1, True)
    for wrong, words in (("ftp://x/", "is no URL of a proxy"), ("http://bob:pw@x/", "everybody on this machine can see")):
        refused = CliRunner().invoke(main, ["yank", "dev", "app", "1.0", "--url", wrong])
        assert (refused.exit_code, words in refused.output, "pw@" in refused.output) == (2, True, False)
    refused = CliRunner().invoke(main, ["yank", "dev", "app", "1.0", "--url", "http://127.0.0.1:9/"])
    assert (refused.exit_code, "http://127.0.0.1:9/: " in refused.output) == (1, True)
