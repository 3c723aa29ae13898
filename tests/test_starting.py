"""What keeps a proxy from starting: users that there are not, and credentials that others could read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from proxy.accounts.passwords import hashed
from proxy.composition.starting import refuse_start
from proxy.config import CommandLine, load
from proxy.errors import ConfigError
from tests.support.fake_upstream import FakeUpstream
from tests.support.logins import QUICK
from tests.support.process import ProxyProcess

GRANT = '[[grant]]\nrole = "reader"\nprincipals = ["user:alice", "group:web"]\n[access.groups]\nweb = ["alice", "bob"]\n'
HASH = hashed(b"secret", QUICK)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "proxy.toml"


def refusal(file: Path, text: str, *listen: str, users: str | None = f"alice:{HASH}\nbob:{HASH}\n") -> str:
    """Why no proxy starts with the configuration *text* and these *users*; empty if one does."""
    file.write_text(f'{text}\n[server]\ndata_dir = "data"\n')
    (file.parent / "data").mkdir(exist_ok=True)
    if users is not None:
        (file.parent / "data" / "users").write_text(users)
    try:
        refuse_start(load(file, CommandLine(listen=listen), {}), file)
    except ConfigError as error:
        return str(error)
    return ""


# -- users ---------------------------------------------------------------------------------------------------------------------


def test_users_that_there_are_not_are_told_with_file_key_and_value(file: Path) -> None:
    said = refusal(file, GRANT, users=f"bob:{HASH}\n")
    users = file.parent / "data" / "users"
    expected = "expected one of: bob, or pypiproxy user add alice before the start"
    assert f'{file}: grant[0].principals: there is no user "alice" in {users}; {expected}' in said
    assert f'{file}: access.groups.web: there is no user "alice" in {users}; {expected}' in said
    assert '"bob"' not in said
    assert refusal(file, GRANT) == ""


def test_where_there_is_no_file_of_users_there_are_none(file: Path) -> None:
    said = refusal(file, GRANT, users=None)
    assert f'there is no user "alice" in {file.parent / "data" / "users"}; expected a user, or pypiproxy user add alice' in said


def test_where_the_users_cannot_be_read_nothing_is_said_of_them(file: Path) -> None:
    assert refusal(file, GRANT, users="nonsense\n") == ""


def test_a_directory_is_no_file_of_users(file: Path) -> None:
    (file.parent / "data" / "people").mkdir(parents=True)
    said = refusal(file, '[access]\nusers_file = "data/people"\n')
    people = file.parent / "data" / "people"
    assert f'{file}: access.users_file = "{people}": it is a directory; expected a file with a line name:hash' in said
    (file.parent / "data" / "users").unlink()
    (file.parent / "data" / "users").mkdir()
    said = refusal(file, "", users=None)
    assert f"{file.parent / 'data' / 'users'}: it is a directory; expected a file" in said


def test_users_of_a_directory_need_not_be_in_the_file(file: Path) -> None:
    stated = '[access.reverse_proxy]\nuser_header = "X-User"\n[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    (file.parent / "data").mkdir()
    file.write_text(f'{GRANT}{stated}data_dir = "data"\n')
    refuse_start(load(file, environ={}), file)


def test_who_has_a_grant_and_a_hash_of_no_use_is_told(file: Path) -> None:
    said = refusal(file, GRANT, users=f"alice:$apr1$x$y\nbob:{HASH}\n")
    assert "the user alice cannot log in: the hash is neither argon2id nor bcrypt" in said


# -- unencrypted credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listen",
    ["3143", "0.0.0.0:3143", "tcp:3143", "tcp:3143:interface=192.0.2.1", "tcp:3143:192.0.2.1", r"tcp6:3143:interface=\:\:"],
)
def test_a_plain_listener_that_others_reach_is_refused_where_somebody_can_log_in(file: Path, listen: str) -> None:
    said = refusal(file, GRANT, listen)
    assert "passwords and tokens would arrive there unencrypted from other machines; expected an ssl: or tls: endpoint" in said
    assert listen.rpartition(":")[2].strip("\\") in said
    assert refusal(file, f"{GRANT}[access]\nallow_plaintext_auth = true", listen) == ""
    for key in ("dashboard_listen", "metrics_listen"):
        aside = f'[server]\nmetrics_for = ["authenticated"]\n{key} = ["{listen}"]\n'.replace("\\", r"\\")
        file.write_text(aside + GRANT)
        with pytest.raises(ConfigError, match=f"server.{key} = .*unencrypted"):
            refuse_start(load(file, CommandLine(listen=("127.0.0.1:3143",), data_dir=file.parent / "data"), {}), file)
    trusted = GRANT.replace("[[grant]]", '[server]\ntrusted_proxies = ["192.0.2.7"]\n[[grant]]')
    file.write_text(trusted)
    refuse_start(load(file, CommandLine(listen=(listen,), data_dir=file.parent / "data"), {}), file)


@pytest.mark.parametrize(
    "listen",
    ["127.0.0.1:3143", "[::1]:3143", "tcp:3143:interface=127.0.0.2", "tcp:3143:interface=localhost", "unix:/run/p.sock"],
)
def test_one_that_others_do_not_reach_is_not(file: Path, listen: str) -> None:
    assert refusal(file, GRANT, listen) == ""


def test_where_nobody_can_log_in_any_listener_is_fine(file: Path) -> None:
    for text in ("", '[[grant]]\nrole = "uploader"\nprincipals = ["anonymous"]\n'):
        assert refusal(file, text, "tcp:3143", users=None) == ""
    assert refusal(file, '[access]\nusers_file = "users"\n', "tcp:3143", users=None) != ""
    assert refusal(file, "", "tcp:3143") != ""


@pytest_twisted.ensureDeferred
async def test_the_start_ends_with_a_message_and_status_1(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = make_proxy(upstream.url, config='[[grant]]\nrole = "reader"\nprincipals = ["user:alice"]\n')
    proxy.data_dir.mkdir(mode=0o700)
    (proxy.data_dir / "users").write_text(f"bob:{HASH}\n")
    proxy.start()
    assert proxy.process is not None
    ended = await proxy.process.end()
    assert ended.status == 1
    assert 'grant[0].principals: there is no user "alice"' in ended.output


# -- directories of hosted indexes ---------------------------------------------------------------------------------------------


def hosted(name: str, path: str | None = None, *more: str) -> str:
    """The table of a hosted index."""
    return "\n".join(["[[index]]", f'name = "{name}"', 'kind = "hosted"', *([f'path = "{path}"'] if path else []), *more, ""])


FIRST = "default = true"


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("packages", "packages"),
        ("packages", "./packages/"),
        ("packages", "packages/inner"),
        ("packages/inner", "packages"),
        ("packages", "link"),
        (None, "data/hosted/first"),
        ("packages", "data/hosted/first"),
    ],
)
def test_two_hosted_indexes_do_not_have_one_directory(file: Path, path: str | None, other: str) -> None:
    (file.parent / "link").symlink_to("packages")
    said = refusal(file, hosted("first", path, FIRST) + hosted("second", other))
    assert f'{file}: index[1].path = "{file.parent}' in said
    assert "the index first has " in said


def test_directories_side_by_side_and_below_a_flat_one_are_fine(file: Path) -> None:
    flat = 'layout = "flat"'
    assert refusal(file, hosted("first", "packages", flat, FIRST) + hosted("second", "packages/inner")) == ""
    assert refusal(file, hosted("first", "packages", FIRST) + hosted("second", "packages2") + hosted("third")) == ""
    assert "the index first has" in refusal(file, hosted("first", "p", flat, FIRST) + hosted("second", "p", flat))


@pytest.mark.parametrize("path", ["data", "data/files", "data/hosted", "data/ledger/x"])
def test_no_hosted_index_is_in_the_data_directory_but_where_they_belong(file: Path, path: str) -> None:
    said = refusal(file, hosted("first", path))
    assert f'index[0].path = "{file.parent / path}": the proxy keeps other data there' in said
    assert refusal(file, hosted("first", "data/hosted/of-old")) == ""
