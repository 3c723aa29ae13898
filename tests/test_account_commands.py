"""``pypiproxy user`` and ``token``, with a proxy that runs and without one; and that no secret is seen anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from proxy.access.tokens import PREFIX
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.logins import basic
from tests.support.process import ROOT, Ended, ProxyProcess, Running, environment
from tests.support.wire import reactor

GRANTS = '[[grant]]\nrole = "reader"\nprincipals = ["authenticated"]\n'
PASSWORD, OTHER = "correct-horse-battery", "staple-tr0ubador"


class Operating:
    """Commands on *data_dir*, which get secrets on standard input; if they are *watched*, their command lines are kept."""

    def __init__(self, home: Path, data_dir: Path, *, watched: bool = False) -> None:
        self._home = home
        self._data_dir = data_dir
        self._watched = watched
        #: The command lines of all processes, as any user of the machine sees them, while commands ran.
        self.seen = ""

    async def run(self, *command: str, said: str = "", place: bool = True) -> Ended:
        line = [sys.executable, "-c", "from proxy.cli import main; main()", *command]
        line += ["--data-dir", str(self._data_dir)] if place else []
        # Only that of a fresh one is to be seen.
        running = Running().spawn(line, environment(self._home, PYTHONPATH=str(ROOT)), self._home, fresh=self._watched)
        running.transport.write(f"{said}\n".encode())
        running.transport.closeStdin()
        while self._watched and running.ended is None:
            self.seen += command_lines()
            await deferLater(reactor, 0.05)
        return await running.end()

    async def json(self, *command: str, said: str = "") -> list[Any]:
        ended = await self.run(*command, "--json", said=said)
        assert ended.status == 0, ended.output
        return [json.loads(line) for line in ended.output.splitlines()]


def command_lines() -> str:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                found.append((place / "cmdline").read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
    return "\n".join(found)


@pytest.fixture
def operating(tmp_path: Path, _clean_reactor: None) -> Operating:
    (tmp_path / "data").mkdir(mode=0o700)
    return Operating(tmp_path, tmp_path / "data")


async def status(proxy: ProxyProcess, login: str | None, path: str = "/simple/six/") -> int:
    headers = {} if login is None else {"Authorization": login}
    return (await wire.fetch(proxy.port, path, **headers)).status


@pytest_twisted.ensureDeferred
async def test_users_and_tokens_without_a_proxy(operating: Operating, tmp_path: Path) -> None:
    (tmp_path / "data").rmdir()  # users are added before the first start
    for user in ("alice", "bob"):
        assert (await operating.run("user", "add", user, said=PASSWORD)).output == f"{user} is added\n"
    hashes = dict(line.split(":") for line in (tmp_path / "data" / "users").read_text().splitlines())
    assert [each.split("$")[1:4] for each in hashes.values()] == [["argon2id", "v=19", "m=19456,t=2,p=1"]] * 2
    again = await operating.run("user", "add", "alice", said=PASSWORD)
    assert (again.status, again.output) == (
        1,
        "there is a user alice already: pypiproxy user passwd alice sets another password\n",
    )
    (made,) = await operating.json("token", "create", "--user", "alice", "--role", "uploader", "--projects", "Acme_*")
    assert (made["user"], made["role"], made["indexes"], made["projects"]) == ("alice", "uploader", ["*"], ["acme-*"])
    expected = {key: value for key, value in made.items() if key != "token"}
    assert await operating.json("token", "list") == [expected | {"known": True}]
    assert [each["tokens"] for each in await operating.json("user", "list")] == [1, 0]
    shown = (await operating.run("token", "list")).output
    assert made["id"] in shown
    assert made["token"] not in shown
    removed = await operating.run("user", "remove", "alice")
    assert removed.output == f"token {made['id']} is revoked\nalice is removed, with 1 token\n"
    assert await operating.json("token", "list") == []
    assert [each["user"] for each in await operating.json("user", "list")] == ["bob"]


@pytest_twisted.ensureDeferred
async def test_a_token_is_narrowed_without_any_proxy_or_data_directory(operating: Operating) -> None:
    (made,) = await operating.json("token", "create", "--user", "ci")
    narrow = await operating.run("token", "narrow", "--projects", "acme-*", said=made["token"], place=False)
    assert narrow.output.startswith(f"{PREFIX}{made['id']}_")
    for arguments, said in ((("--projects", "a/b"), made["token"]), ((), made["token"]), (("--index", "x"), "hunter2")):
        ended = await operating.run("token", "narrow", *arguments, said=said, place=False)
        assert ended.status in (1, 2)
        assert said not in ended.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("user", "passwd", "carol"), "there is no user carol: pypiproxy user list prints those that there are"),
        (("user", "remove", "carol"), "there is no user carol"),
        (("user", "add", "a:b"), "'a:b' is no name of a user"),
        (("token", "revoke", "nothing"), "there is no token 'nothing': pypiproxy token list prints those that are valid"),
        (("token", "create", "--user", "ci", "--role", "owner"), "there is no role 'owner'; there is reader, uploader"),
        (("token", "create", "--user", "ci", "--index", "pypi"), "indexes and projects are those of a role"),
        (("token", "create", "--user", "ci", "--role", "reader", "--index", "corp"), "there is no index named 'corp' here"),
        (("token", "create", "--user", "ci", "--role", "reader", "--projects", "a/b"), "'a/b' is no pattern"),
        (("token", "create", "--user", "ci", "--expires", "soon"), "expected a duration"),
        (("token", "create", "--user", "ci", "--expires", "0s"), "'0s': expected a duration above 0 and of at most 36500d"),
        (("token", "create", "--user", "ci", "--expires", "90000000d"), "expected a duration above 0 and of at most 36500d"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_makes_no_sense_is_refused_in_words(operating: Operating, command: tuple[str, ...], said: str) -> None:
    ended = await operating.run(*command, said=PASSWORD)
    assert ended.status in (1, 2)
    assert said in ended.output
    assert PASSWORD not in ended.output


@pytest_twisted.ensureDeferred
async def test_changes_take_effect_at_once_in_the_running_proxy_and_no_secret_is_seen(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await make_proxy(upstream.url, config=GRANTS, options=["--access-log", "full", "--log-level", "debug"]).started()
    operating = Operating(tmp_path, proxy.data_dir, watched=True)
    assert await status(proxy, None) == 401
    await operating.run("user", "add", "alice", said=PASSWORD)
    right, wrong = basic("alice", PASSWORD), basic("alice", OTHER)
    for _ in range(3):
        assert await status(proxy, right) == 200
    assert await status(proxy, wrong) == 401
    await operating.run("user", "passwd", "alice", said=OTHER)
    assert [await status(proxy, each) for each in (right, wrong)] == [401, 200]

    (made,) = await operating.json("token", "create", "--user", "alice", "--expires", "1h")
    bearer = f"Bearer {made['token']}"
    narrow = (await operating.run("token", "narrow", "--projects", "flask", said=made["token"], place=False)).output.strip()
    for _ in range(3):
        assert await status(proxy, bearer) == 200
    assert [await status(proxy, basic("any", narrow), f"/simple/{name}/") for name in ("six", "flask")] == [404, 404]
    assert upstream.count("/simple/flask/") > 0
    (listed,) = await operating.json("token", "list")
    assert listed["used"] is not None
    await operating.run("token", "revoke", made["id"])
    assert [await status(proxy, each) for each in (bearer, basic("any", narrow))] == [401, 401]
    await operating.run("user", "remove", "alice")
    assert await status(proxy, wrong) == 401
    metrics = (await wire.fetch(proxy.port, "/-/metrics")).body.decode()

    log = proxy.log
    await proxy.stop()
    assert "token\0narrow\0--projects\0flask" in operating.seen
    secrets = [PASSWORD, OTHER, made["token"], narrow, right.split()[1], wrong.split()[1], made["token"].split("_", 2)[2]]
    kept = [path for path in proxy.data_dir.rglob("*") if path.is_file() and path.name != "cache.db"]
    stored = {path.name: path.read_bytes() for path in kept}
    for secret in secrets:
        assert secret not in proxy.log
        assert secret not in metrics
        assert secret not in operating.seen
        for name, data in stored.items():
            assert secret.encode() not in data, name
    assert made["id"] not in log  # a token in a URL, or in a message, would show it
    lines = [json.loads(line) for line in stored["audit.jsonl"].decode().splitlines()]
    told = [(each["who"], each["action"], each["outcome"]) for each in lines]
    for each in (
        ("part:admin", "user_add", "done"),
        ("user:alice", "log in", "done"),
        ("user:alice", "log in", "wrong credential"),
        ("part:admin", "token_create", "done"),
        (f"token:{made['id']} of user:alice", "read", "refused"),
        ("part:admin", "token_revoke", "done"),
        ("part:admin", "user_remove", "done"),
        ("anonymous", "read", "login required"),
    ):
        assert each in told, told
