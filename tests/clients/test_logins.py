"""pip and uv log in at a restricted index: by URL, by netrc and by keyring, with a password and with a token."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_twisted

from proxy.accounts.passwords import hashed
from tests.clients.place import LOCAL, Place
from tests.clients.shop import INSTALLED, fill
from tests.support import wire
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess

USER, PASSWORD = "alice", "correct horse:battery"
QUOTED = "correct%20horse%3Abattery"
GRANT = '[[grant]]\nrole = "reader"\nprincipals = ["user:alice"]\n'
#: What a keyring does that is asked by its command: uv asks for a password, pip for both as JSON.
KEYRING = f"""#!{sys.executable}
import json, sys
options, asked = ([each for each in sys.argv[1:] if each.startswith("--") is of] for of in (True, False))
if asked[:1] != ["get"] or asked[2:] != ["{USER}"]:
    sys.exit(1)
json_wanted = "--output=json" in options
print(json.dumps({{"username": "{USER}", "password": "{PASSWORD}"}}) if json_wanted else "{PASSWORD}")
"""

MakeGuarded = Callable[[], Awaitable[Place]]


@pytest.fixture
def guarded(
    make_upstream: Callable[..., FakeUpstream], make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> Iterator[MakeGuarded]:
    """Makes a place whose proxy lets in alice alone."""
    made: list[Place] = []

    async def make() -> Place:
        upstream = fill(make_upstream())
        proxy = make_proxy(upstream.url, config=GRANT)
        proxy.data_dir.mkdir(mode=0o700)
        (proxy.data_dir / "users").write_text(f"{USER}:{hashed(PASSWORD.encode())}\n")
        await proxy.started()
        made.append(Place(tmp_path, proxy, upstream, make_upstream(), LOCAL, None))
        return made[-1]

    yield make
    for each in made:
        each.check()
        assert PASSWORD not in each.proxy.log
        assert QUOTED not in each.proxy.log


async def install(place: Place, client: str, variables: Mapping[str, str], status: int = 0) -> dict[str, str]:
    """What *client* installs of the shop."""
    scratch = Scratch(place.folder)
    commands = {
        "pip": ("pip", "--python", scratch.python, "install", "--no-compile"),
        "uv": ("uv", "pip", "install", "--no-cache", "--python", scratch.python),
    }
    await place.run(client, *commands[client], "shop-app", variables=variables, status=status)
    return scratch.installed


def at(place: Place, client: str, login: str) -> dict[str, str]:
    """The variables that name the index, with *login* in its URL."""
    url = f"http://{login}127.0.0.1:{place.proxy.port}/simple/"
    return {"pip": {"PIP_INDEX_URL": url}, "uv": {"UV_DEFAULT_INDEX": url}}[client]


@pytest.mark.parametrize("client", ["pip", "uv"])
@pytest_twisted.ensureDeferred
async def test_by_url(guarded: MakeGuarded, client: str) -> None:
    place = await guarded()
    assert await install(place, client, at(place, client, f"{USER}:{QUOTED}@")) == INSTALLED


@pytest.mark.parametrize("client", ["pip", "uv"])
@pytest_twisted.ensureDeferred
async def test_by_netrc(guarded: MakeGuarded, client: str) -> None:
    place = await guarded()
    netrc = place.home / ".netrc"
    netrc.write_text(f'machine 127.0.0.1\nlogin {USER}\npassword "{PASSWORD}"\n')
    netrc.chmod(0o600)
    assert await install(place, client, {**at(place, client, ""), "NETRC": str(netrc)}) == INSTALLED


@pytest.mark.parametrize("client", ["pip", "uv"])
@pytest_twisted.ensureDeferred
async def test_by_keyring(guarded: MakeGuarded, client: str) -> None:
    """Both ask it when they have been answered 401, for the name that is in the URL."""
    place = await guarded()
    commands = place.folder / "commands"
    commands.mkdir()
    (commands / "keyring").write_text(KEYRING)
    (commands / "keyring").chmod(0o755)
    variables = {
        **at(place, client, f"{USER}@"),
        "PIP_KEYRING_PROVIDER": "subprocess",
        "UV_KEYRING_PROVIDER": "subprocess",
        "PATH": f"{commands}:/usr/bin:/bin",
    }
    assert await install(place, client, variables) == INSTALLED


@pytest.mark.parametrize("client", ["pip", "uv"])
@pytest_twisted.ensureDeferred
async def test_without_a_credential_and_with_a_wrong_one_nothing_is_installed(guarded: MakeGuarded, client: str) -> None:
    place = await guarded()
    for login in ("", f"{USER}:wrong@"):
        assert await install(place, client, at(place, client, login), status=1) == {}
    reply = await wire.fetch(place.proxy.port, "/simple/shop-app/")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Basic realm="pypiproxy"')
