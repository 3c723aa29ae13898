"""Secrets that every user of the machine can read are told, at the start and by check-config."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from click.testing import CliRunner
from msgspec.structs import replace
from twisted.logger import LogEvent, formatEvent

from proxy.cli import main
from proxy.composition.exposed import exposed
from proxy.mechanism.secret_files import read_by_all
from proxy.settings import ServerSettings, Settings
from tests.inprocess import LOOPBACK, Start, upstream_settings
from tests.support import certs
from tests.support.fake_upstream import FakeUpstream

SECRET = "hunter2"


def told(key: str, path: Path) -> str:
    return f"{key} = {path}: every user of this machine can read this secret (mode 0644): chmod o-r {path}"


@pytest.fixture
def tmp_path(open_to_all: Path) -> Path:
    return open_to_all


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("key", ["password_file", "token_file", "netrc", "client_key", "client_cert"])
def test_every_file_with_a_secret_is_looked_at(tmp_path: Path, secret: Path, key: str) -> None:
    other = {"client_cert": tmp_path / "no-secret"} if key == "client_key" else {}
    upstream = upstream_settings("http://127.0.0.1/", "corp", **{key: secret, **other})
    settings = Settings(server=ServerSettings(data_dir=tmp_path), upstreams=(upstream,), indexes=())
    assert exposed(settings) == [told(f"upstream.corp.{key}", secret)]
    secret.chmod(0o640)
    assert exposed(settings) == []


@pytest.mark.parametrize(("mode", "found"), [(0o644, 0o644), (0o604, 0o604), (0o640, None), (0o600, None), (0o622, None)])
def test_a_file_that_every_user_may_read_is_known(secret: Path, mode: int, found: int | None) -> None:
    secret.chmod(mode)
    assert read_by_all(secret) == found


@pytest.mark.parametrize(
    ("mode", "found"), [(0o755, 0o644), (0o711, 0o644), (0o701, 0o644), (0o700, None), (0o750, None), (0o754, None)]
)
def test_a_file_below_a_directory_that_others_cannot_enter_is_read_by_none_of_them(
    tmp_path: Path, secret: Path, mode: int, found: int | None
) -> None:
    closed, link = tmp_path / "closed", tmp_path / "link"
    (closed / "deeper").mkdir(parents=True)
    inside = secret.rename(closed / "deeper" / "secret")
    link.symlink_to(inside)
    closed.chmod(mode)
    assert [read_by_all(each) for each in (inside, link)] == [found, found]
    # Where a link is does not matter.
    outside = tmp_path / "outside"
    outside.write_text(SECRET)
    outside.chmod(0o644)
    (closed / "link").symlink_to(outside)
    assert read_by_all(closed / "link") == 0o644


def test_what_is_no_file_is_read_by_nobody(tmp_path: Path) -> None:
    assert read_by_all(tmp_path / "missing") is None
    assert read_by_all(tmp_path) is None


def test_what_is_no_secret_may_be_read(tmp_path: Path, secret: Path) -> None:
    upstream = upstream_settings("http://127.0.0.1/", "corp", ca_file=secret)
    assert exposed(Settings(server=ServerSettings(data_dir=tmp_path), upstreams=(upstream,), indexes=())) == []


@pytest.mark.parametrize(
    "endpoint", ["ssl:0:privateKey={0}/a.pem", "ssl:0:privateKey={0}/a.pem:certKey={0}/b.pem", "tls:{0}:0"]
)
def test_the_keys_of_listeners_are_looked_at(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "a.pem").write_bytes(certs.server().certificate_pem + certs.server().key_pem)
    (tmp_path / "b.pem").write_bytes(certs.server().certificate_pem)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    server = ServerSettings(data_dir=tmp_path, listen=(LOOPBACK, endpoint.format(tmp_path)))
    settings = Settings(server=server, upstreams=(), indexes=())
    assert exposed(settings) == [told("server.listen: a key", tmp_path / "a.pem")]
    assert exposed(replace(settings, server=replace(server, listen=("tls:/nonexistent:0",)))) == []


@pytest_twisted.ensureDeferred
async def test_the_start_tells_it_once(upstream: FakeUpstream, run: Start, secret: Path, logged: list[LogEvent]) -> None:
    proxy = await run(upstream_settings(upstream.url, "corp", token=SECRET, token_file=secret))
    for _ in range(3):
        assert (await proxy.get("/-/ready")).body == b"ready\n"
    said = [text for event in logged if "every user" in (text := str(formatEvent(event)))]
    assert said == [told("upstream.corp.token_file", secret)]
    assert SECRET not in repr(logged)


def test_check_config_tells_it_and_is_content(tmp_path: Path, secret: Path) -> None:
    file = tmp_path / "proxy.toml"
    corp = '[upstream.corp]\nurl = "https://packages.example/simple/"\ntoken_file = "secret"\n'
    file.write_text(f'{corp}[[index]]\nname = "main"\nupstreams = ["corp"]\n')
    result = CliRunner().invoke(main, ["check-config", str(file)])
    assert result.exit_code == 0
    assert f"  warning: {told('upstream.corp.token_file', secret)}\n" in result.output
    secret.chmod(0o600)
    assert "warning" not in CliRunner().invoke(main, ["check-config", str(file)]).output
