"""Every place of the dashboard, for every kind of principal, for projects of proxy, hosted and group indexes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest_twisted
from msgspec import Struct

from proxy.core.uploads import Uploaded
from proxy.settings import AccessSettings, GrantSettings, GroupSettings, IndexSettings
from proxy.web.dashboard.places import PLACES, POSTED
from tests.hosting import hosted, upload
from tests.inprocess import Running, Start
from tests.support.browser import BROWSER
from tests.support.counter import post
from tests.support.fake_upstream import FakeUpstream
from tests.support.logins import basic, write_users
from tests.support.wheels import wheel

SECRET, SIX = wheel("secret-lib", "1.0"), wheel("six", "1.0")
INDEXES = (
    IndexSettings(name="pypi", upstreams=("up0",), prefetch=False),
    hosted("corp", default=False),
    IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=("corp", "pypi"))),
)
GRANTS = (
    GrantSettings(role="reader", principals=("user:alice",), indexes=("corp",)),
    GrantSettings(role="admin", principals=("user:root",), indexes=("*",)),
)
FORM = "application/x-www-form-urlencoded"


class Kind(Struct, frozen=True):
    """A principal that sends *login*: whether its credential is *known*, and it *reads* what corp has."""

    login: str | None
    known: bool = True
    reads: bool = False


async def kinds(proxy: Running) -> Mapping[str, Kind]:
    async def token(**scope: object) -> str:
        made = await proxy.service.administration.perform("token_create", **scope)
        return basic("__token__", made["token"])

    return {
        "nobody": Kind(None),
        "a wrong password": Kind(basic("alice", "bob!"), known=False),
        "a user with the right": Kind(basic("alice", "alice!"), reads=True),
        "a user without": Kind(basic("bob", "bob!")),
        "an administrator": Kind(basic("root", "root!"), reads=True),
        "a token of a user": Kind(await token(user="alice"), reads=True),
        "a token of a user without": Kind(await token(user="bob")),
        "a token that reads": Kind(await token(user="ci", role="reader", indexes=["corp"], projects=["secret-*"]), reads=True),
        "a token of another pattern": Kind(await token(user="ci", role="reader", indexes=["corp"], projects=["other-*"])),
        "a token that uploads elsewhere": Kind(await token(user="ci", role="uploader", indexes=["pypi"])),
    }


def table(static: str) -> Mapping[str, Mapping[str, str]]:
    """By place: the paths there, and what is expected of each; *static* is the path of what all pages load.

    ``open`` is for everybody whose credential is not wrong, ``private`` for those who read corp; ``form`` takes forms.
    """
    return {
        "static": {static: "all"},
        "events": {"/-/events": "stream"},
        "setup": {"/-/setup": "open"},
        "search": {"/-/search": "open", "/-/search?q=lib": "open", "/-/search?q=secret-lib": "open"},
        "project": {
            "/-/project/pypi/six": "open",
            "/-/project/all/six": "open",
            "/-/project/corp/secret-lib": "private",
            "/-/project/all/secret-lib": "private",
            "/-/project/corp/Secret_Lib": "private",
        },
        "login": {"/-/login": "all"},
        "logout": {"/-/logout": "form"},
        "act": {"/-/act": "form"},
    }


def status(expected: str, kind: Kind, *, is_secret: bool) -> int:
    if expected in ("all", "form"):
        return 200 if expected == "all" else 405
    if not kind.known:
        return 401
    if expected == "open" or kind.reads:
        return 200
    return 401 if kind.login is None and is_secret else 404


@pytest_twisted.ensureDeferred
async def test_every_place_lets_in_whom_it_should_and_names_what_they_may_read(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    file = write_users(tmp_path / "users", "alice", "bob", "root")
    proxy = await run(upstream, indexes=INDEXES, access=AccessSettings(users_file=file), grants=GRANTS)
    assert await upload(proxy.service.receiving["corp"], SECRET, by="user:alice") is Uploaded.NEW
    home = (await proxy.get("/", **BROWSER)).body.decode()
    places = table("/-/static/" + home.partition("-/static/")[2].partition('"')[0])
    assert places.keys() == PLACES
    assert {(place,) for place, paths in places.items() if "form" in paths.values() or place == "login"} == POSTED
    wrong = []
    for name, kind in (await kinds(proxy)).items():
        headers = {} if kind.login is None else {"Authorization": kind.login}
        # Each wrong credential is answered later than the one before: one path of each place is enough.
        asked = [each for paths in places.values() for each in list(paths.items())[: None if kind.known else 1]]
        for path, expected in asked:
            if expected == "stream":
                client = await proxy.connect(path, **headers)
                await client.until(lambda client=client: client.body.count(b"event: part") >= 3 or b" 401 " in client.received)  # type: ignore[misc]
                found, body = 200 if b" 200 " in client.received[:20] else 401, bytes(client.received)
                await client.close()
                expected_status = 200 if kind.known else 401
            else:
                reply = await proxy.get(path, **BROWSER, **headers)
                found, body = reply.status, reply.body
                expected_status = status(expected, kind, is_secret=expected == "private")
            told = b"secret-lib" in body.replace(b"q=secret-lib", b"").replace(path.encode(), b"")
            if found != expected_status or (told and not kind.reads and "secret" not in path):
                wrong.append((name, path, found, told))
            if expected == "private" and not kind.reads:
                assert SECRET.filename.encode() not in body
        for place in POSTED if kind.known else ():
            fields = urlencode({"action": "purge", "index": "corp", "project": "secret-lib"}).encode()
            reply = await post(proxy.port, f"/-/{'/'.join(place)}", fields, FORM, **headers)
            if not 400 <= reply.status < 500:
                wrong.append((name, "/".join(place), reply.status, False))
    assert wrong == []
    assert [each.name for each in (tmp_path / "data/hosted/corp/secret-lib").glob("*.whl")] == [SECRET.filename]
