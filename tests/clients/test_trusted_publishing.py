"""uv and twine exchange ID tokens by themselves: over https, at the host of the upload URL."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from proxy.core.audited import AuditOutcome
from proxy.settings import CiRule
from tests.clients.tools import tool
from tests.support import certs
from tests.support.exchanges import ExchangePlace
from tests.support.issuer import FakeIssuer
from tests.support.process import Ended, run
from tests.support.wheels import wheel

RULE = CiRule(
    name="release",
    issuer="github",
    claims=((("repository",), ("acme/widgets",)),),
    role="uploader",
    indexes=("internal",),
    projects=("acme-*",),
)
#: Exchanges an ID token as `twine upload` does, which it does for the public index alone.
_TWINE = """
import sys
from twine.auth import CredentialInput, Resolver
print(Resolver({"repository": sys.argv[1]}, CredentialInput()).make_trusted_publishing_token())
"""


class Place:
    """An issuer with a runner, and a site over https with an index ``internal``; *folder* is where jobs run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer = FakeIssuer().start()
        self.site = ExchangePlace(self.issuer.url, (RULE,), folder, "packages.example", tls=certs.server_context())
        self.authority = folder / "ca.pem"
        self.authority.write_bytes(certs.authority().certificate_pem)

    @property
    def url(self) -> str:
        """Where uploads go."""
        return f"https://127.0.0.1:{self.site.counter.port}/index/internal/"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a job has."""
        authority = str(self.authority)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SSL_CERT_FILE": authority,
            "REQUESTS_CA_BUNDLE": authority,
            **self.issuer.environment,
        }

    def file(self, project: str, version: str = "1.0") -> str:
        """The path of a wheel of *project*."""
        made = wheel(project, version)
        path = self.folder / made.filename
        path.write_bytes(made.data)
        return str(path)

    async def publish(self, *files: str, **variables: str) -> Ended:
        """What comes of ``uv publish``."""
        command = [str(tool("uv") / "uv"), "publish", "--trusted-publishing", "always", "--publish-url", self.url, *files]
        return await run(command, {**self.environment, **variables}, self.folder)

    async def close(self) -> None:
        await self.site.close()
        self.issuer.stop()


@pytest.fixture
def place(_clean_reactor: None, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.close()))


@pytest_twisted.ensureDeferred
async def test_uv_publishes_without_a_secret(place: Place) -> None:
    ended = await place.publish(place.file("acme-widgets"), place.file("acme-widgets", "1.1"))
    assert ended.status == 0, ended.output
    assert sorted(place.site.shop.files) == ["acme_widgets-1.0-py3-none-any.whl", "acme_widgets-1.1-py3-none-any.whl"]
    assert set(place.site.shop.sent_by.values()) == {"ci:release"}
    assert [(each.who, each.action) for each in place.site.audit.entries if each.outcome is AuditOutcome.DONE] == [
        ("ci:release", "exchange an ID token"),
        ("ci:release", "give back a token"),
    ]


@pytest_twisted.ensureDeferred
async def test_uv_is_told_why_it_may_not(place: Place) -> None:
    place.issuer.claims["repository"] = "evil/widgets"
    ended = await place.publish(place.file("acme-widgets"))
    assert ended.status != 0
    assert "no rule of this proxy is for its job" in ended.output
    assert place.site.shop.files == {}


@pytest_twisted.ensureDeferred
async def test_uv_may_publish_what_its_rule_says_alone(place: Place) -> None:
    ended = await place.publish(place.file("other"))
    assert ended.status != 0
    assert place.site.shop.files == {}


@pytest_twisted.ensureDeferred
async def test_uv_in_gitlab_takes_the_token_that_is_named_after_the_audience(place: Place) -> None:
    id_token = place.issuer.token({"aud": "packages.example"})
    job = {"GITHUB_ACTIONS": "false", "GITLAB_CI": "true", "PACKAGES_EXAMPLE_ID_TOKEN": id_token}
    ended = await place.publish(place.file("acme-widgets"), **job)
    assert ended.status == 0, ended.output
    assert list(place.site.shop.sent_by.values()) == ["ci:release"]


@pytest_twisted.ensureDeferred
async def test_twine_uploads_with_what_it_exchanged(place: Place) -> None:
    python = tool("twine") / "python"
    exchanged = await run([str(python), "-c", _TWINE, place.url], place.environment, place.folder)
    assert exchanged.status == 0, exchanged.output
    token = next(line for line in exchanged.output.splitlines() if line.startswith("ppx_"))
    credential = {"TWINE_USERNAME": "__token__", "TWINE_PASSWORD": token, "TWINE_NON_INTERACTIVE": "1"}
    command = [str(python), "-m", "twine", "upload", "--repository-url", place.url, place.file("acme-widgets")]
    ended = await run(command, {**place.environment, **credential}, place.folder)
    assert ended.status == 0, ended.output
    assert list(place.site.shop.sent_by.values()) == ["ci:release"]


@pytest_twisted.ensureDeferred
async def test_the_commands_of_the_manual_exchange_and_upload(place: Place) -> None:
    missing = [each for each in ("curl", "jq") if subprocess.run(["which", each], check=False, capture_output=True).returncode]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not here (Debian: apt install curl jq)")
    base = place.url.removesuffix("/index/internal/")
    script = f"""
set -eu
ID_TOKEN=$(curl -sSf -H "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \\
    "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=packages.example" | jq -r .value)
curl -sSf --cacert "$SSL_CERT_FILE" {base}/_/oidc/mint-token \\
    --json "{{\\"token\\": \\"$ID_TOKEN\\"}}" | jq -r .token
"""
    ended = await run(["sh", "-c", script], place.environment, place.folder)
    assert ended.status == 0, ended.output
    principal = await place.site.who(ended.output.strip())
    assert principal is not None
    assert principal.uploads_as == "ci:release"
