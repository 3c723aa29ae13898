"""ID tokens of a real OpenID provider: npm's oidc-provider, which is certified, with its own discovery, keys and signatures."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from msgspec import Struct
from twisted.internet.defer import Deferred

from proxy.settings import CiRule
from tests.clients.tools import node_package
from tests.support.exchanges import ExchangePlace
from tests.support.logins import basic

AUDIENCE, SECRET = "https://packages.example", "the-runner-s-own"
_SCRIPT = Path(__file__).parent / "provider.mjs"


class Provider(Struct):
    """A provider at *url*."""

    url: str

    def token(self, audience: str = AUDIENCE) -> str:
        """What it signs for its only job."""
        form = f"grant_type=client_credentials&resource={audience}".encode()
        request = urllib.request.Request(f"{self.url}/token", form, {"Authorization": basic("job-1", SECRET)})  # loopback
        with urllib.request.urlopen(request, timeout=20) as reply:  # loopback
            token: str = json.load(reply)["access_token"]
            return token


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    folder = node_package("oidc-provider")
    shutil.copy(_SCRIPT, folder)  # Node looks for packages beside the script
    command = ["node", str(folder / _SCRIPT.name), AUDIENCE, SECRET]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    yield Provider(next(line.strip() for line in lines if line.startswith("http")))
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.fixture
def place(provider: Provider, _clean_reactor: None, tmp_path: Path) -> Iterator[ExchangePlace]:
    rule = CiRule(
        name="release",
        issuer="github",
        claims=((("repository",), ("acme/*",)), (("sub",), ("job-1",))),
        role="uploader",
        indexes=("*",),
        projects=("*",),
    )
    made = ExchangePlace(provider.url, (rule,), tmp_path, AUDIENCE)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.close()))


@pytest_twisted.ensureDeferred
async def test_what_it_signs_is_exchanged(provider: Provider, place: ExchangePlace) -> None:
    principal = await place.who(await place.exchanged(provider.token()))
    assert str(principal).endswith(" of ci:release")


@pytest_twisted.ensureDeferred
async def test_what_it_signs_for_others_is_not(provider: Provider, place: ExchangePlace) -> None:
    status, code, said = await place.refusal(provider.token("https://elsewhere.example"))
    assert (status, code) == (422, "invalid-token")
    assert said == f"the token is not for this proxy; ask for one for the audience {AUDIENCE!r}"
