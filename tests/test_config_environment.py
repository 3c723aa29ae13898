"""Environment variables that set keys of the configuration: which ones, what overrides what, and what a mistake looks like."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, fields

from proxy.config import CommandLine, load
from proxy.errors import ConfigError
from proxy.settings import MIB, ServerSettings, Settings, UpstreamSettings

CORP = '[upstream.corp]\nurl = "https://corp.example/simple/"\nusername = "ci"\npassword_env = "PW"\n'
INDEXES = (
    '[[index]]\nname = "main"\ndefault = true\nupstreams = ["corp", "pypi"]\n[[index]]\nname = "b"\nupstreams = ["pypi"]\n'
)

#: Each key of ``[server]``: how a variable has it, and what that means.
SERVER: dict[str, tuple[str, Any]] = {
    "listen": ("3143, [::1]:3144", ("3143", "[::1]:3144")),
    "data_dir": ("/srv/pypiproxy", Path("/srv/pypiproxy")),
    "metrics_listen": ("3145, [::1]:3146", ("3145", "[::1]:3146")),
    "metrics_for": ("user:prometheus, user:alice", ("user:prometheus", "user:alice")),
    "dashboard": ("false", False),
    "dashboard_listen": ("3146", ("3146",)),
    "contact": ("build-team@corp.example", "build-team@corp.example"),
    "probe_listen": ("127.0.0.1:3144,[::1]:3144", ("127.0.0.1:3144", "[::1]:3144")),
    "stop_pause": ("1s", 1.0),
    "drain_time": ("5s", 5.0),
    "max_connections": ("100", 100),
    "max_waiting": ("50", 50),
    "idle_timeout": ("1m", 60.0),
    "stall_timeout": ("90s", 90.0),
    "trusted_proxies": ("127.0.0.1,10.0.0.0/8", ("127.0.0.1/32", "10.0.0.0/8")),
    "max_size": ("200GB", 200_000_000_000),
    "min_free": ("20GB", 20_000_000_000),
    "page_memory": ("64MiB", 64 * MIB),
}


def given(environ: dict[str, str], text: str | None = None, place: Path | None = None, **command_line: Any) -> Settings:
    file = None
    if text is not None:
        assert place is not None
        file = place / "proxy.toml"
        file.write_text(text)
    return load(file, CommandLine(**command_line), {"PW": "secret", **environ})


def refusal(environ: dict[str, str], text: str | None = None, place: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        given(environ, text, place)
    return str(caught.value)


def by_name(settings: Settings) -> dict[str, UpstreamSettings]:
    return {upstream.name: upstream for upstream in settings.upstreams}


def test_every_key_of_the_server_can_be_set() -> None:
    assert set(SERVER) == {field.name for field in fields(ServerSettings)}
    settings = given({f"PYPIPROXY_SERVER__{key.upper()}": text for key, (text, _) in SERVER.items()})
    assert asdict(settings.server) == {key: value for key, (_, value) in SERVER.items()}


def test_words_for_no_limit_are_understood() -> None:
    text = '[server]\nmax_size = "1GB"\nmin_free = "1GB"\n'
    assert tomllib.loads(text)
    server = given({"PYPIPROXY_SERVER__MAX_SIZE": "unlimited", "PYPIPROXY_SERVER__MIN_FREE": "off"}).server
    assert (server.max_size, server.min_free) == (None, None)


def test_the_command_line_overrides_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    text = '[server]\nlisten = ["1"]\ndrain_time = "1s"\nidle_timeout = "1s"\n'
    environ = {"PYPIPROXY_SERVER__LISTEN": "2", "PYPIPROXY_SERVER__DRAIN_TIME": "2s"}
    server = given(environ, text, tmp_path).server
    assert (server.listen, server.drain_time, server.idle_timeout) == (("2",), 2.0, 1.0)
    assert given(environ, text, tmp_path, listen=("3",)).server.listen == ("3",)


def test_what_the_variable_overrides_in_the_file_may_be_wrong(tmp_path: Path) -> None:
    assert given({"PYPIPROXY_SERVER__DRAIN_TIME": "2s"}, '[server]\ndrain_time = "soon"\n', tmp_path).server.drain_time == 2.0


def test_a_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert given({"PYPIPROXY_SERVER__DATA_DIR": "data"}, "", tmp_path).server.data_dir == elsewhere / "data"


def test_without_a_file_the_public_index_is_fetched_from_elsewhere() -> None:
    upstream = by_name(given({"PYPIPROXY_UPSTREAM__URL": "https://mirror.example/simple"}))["pypi"]
    assert upstream.url == "https://mirror.example/simple/"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_connections", "7", 7),
        ("max_rate", "2.5", 2.5),
        ("partial", "true", True),
        ("allow_private_addresses", "false", False),
        ("forbidden", "missing", "missing"),
        ("file_hosts", "a.example,*.b.example", ("a.example", "*.b.example")),
        ("outbound_proxy", "http://proxy.example:3128", "http://proxy.example:3128"),
    ],
)
def test_other_keys_of_that_upstream_can_be_set_too(key: str, text: str, value: object) -> None:
    assert getattr(by_name(given({f"PYPIPROXY_UPSTREAM__{key.upper()}": text}))["pypi"], key) == value


def test_they_are_those_of_the_upstream_that_the_default_index_prefers(tmp_path: Path) -> None:
    found = by_name(given({"PYPIPROXY_UPSTREAM__MAX_QUEUE": "3"}, CORP + INDEXES, tmp_path))
    assert (found["corp"].max_queue, found["pypi"].max_queue) == (3, 3000)
    assert (found["corp"].username, found["corp"].password) == ("ci", "secret")


def test_a_url_of_the_environment_gets_no_credentials_of_the_file(tmp_path: Path) -> None:
    environ = {"PYPIPROXY_UPSTREAM__URL": "https://other.example/simple/"}
    upstream = by_name(given(environ, CORP + INDEXES, tmp_path))["corp"]
    assert (upstream.url, upstream.username, upstream.password) == ("https://other.example/simple/", None, None)
    environ |= {"PYPIPROXY_UPSTREAM__TOKEN_ENV": "TOKEN", "TOKEN": "t"}
    assert by_name(given(environ, CORP + INDEXES, tmp_path))["corp"].token == "t"


def test_upstreams_of_the_command_line_take_nothing_from_the_environment() -> None:
    environ = {"PYPIPROXY_UPSTREAM__URL": "https://other.example/simple/"}
    assert by_name(given(environ, upstreams=("pypi",)))["pypi"].url == by_name(given({}))["pypi"].url


def test_an_offline_default_index_has_no_upstream_to_set(tmp_path: Path) -> None:
    said = refusal({"PYPIPROXY_UPSTREAM__URL": "https://a.example/"}, '[[index]]\nname = "main"\noffline = true\n', tmp_path)
    assert "PYPIPROXY_UPSTREAM__URL is for that one" in said


def test_variables_of_others_are_ignored() -> None:
    others = {
        "PYPIPROXY_PORT": "tcp://10.0.0.1:3143",
        "PYPIPROXY_PORT_3143_TCP": "tcp://10.0.0.1:3143",
        "PYPIPROXY_SERVICE_HOST": "10.0.0.1",
        "PYPIPROXY_SERVER_PORT": "tcp://10.0.0.1:80",
        "PYPIPROXY_SERVER__CONTACT": "",
        # Those of services that are called pypiproxy-server--x and pypiproxy-upstream--x.
        "PYPIPROXY_SERVER__X_SERVICE_HOST": "10.0.0.1",
        "PYPIPROXY_SERVER__X_SERVICE_PORT": "3143",
        "PYPIPROXY_SERVER__X_SERVICE_PORT_HTTP": "3143",
        "PYPIPROXY_SERVER__X_PORT": "tcp://10.0.0.1:3143",
        "PYPIPROXY_SERVER__X_PORT_3143_TCP": "tcp://10.0.0.1:3143",
        "PYPIPROXY_UPSTREAM__X_PORT_3143_TCP_PROTO": "tcp",
        "PYPIPROXY_UPSTREAM__X_PORT_3143_TCP_ADDR": "10.0.0.1",
    }
    assert given(others) == given({})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SERVER__DRAIN_TIME", "soon", '= "soon": expected a duration, such as "500ms"'),
        ("SERVER__MAX_CONNECTIONS", "many", '= "many": expected a whole number, at least 1'),
        ("SERVER__MAX_CONNECTIONS", "0", '= "0": expected a whole number, at least 1'),
        ("SERVER__TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.1/8", 'write "10.0.0.0/8" for the network'),
        ("SERVER__LISTEN", "1,1", "expected each only once"),
        ("SERVER__LISTN", "1", ": there is no such variable; did you mean PYPIPROXY_SERVER__LISTEN?"),
        ("SERVER__ZZZZ", "1", "expected one of PYPIPROXY_SERVER__CONTACT, PYPIPROXY_SERVER__DASHBOARD"),
        ("UPSTREAM__URL", "mirror", '= "mirror": expected the http or https URL of a simple index'),
        ("UPSTREAM__PARTIAL", "maybe", '= "maybe": expected true or false'),
        ("UPSTREAM__URLS", "x", "did you mean PYPIPROXY_UPSTREAM__URL?"),
        ("UPSTREAM__PASSWORD", "hunter2", "name a file with PYPIPROXY_UPSTREAM__PASSWORD_FILE"),
    ],
)
def test_a_mistake_names_the_variable_its_value_and_what_is_expected(name: str, value: str, said: str) -> None:
    message = refusal({f"PYPIPROXY_{name}": value})
    assert message.startswith(f"PYPIPROXY_{name}")
    assert said in message
    assert "hunter2" not in message
    assert "quotes" not in message


def test_mistakes_of_the_file_and_of_the_environment_are_told_together(tmp_path: Path) -> None:
    message = refusal({"PYPIPROXY_SERVER__DRAIN_TIME": "soon"}, "[server]\nidle_timeout = 1\n", tmp_path)
    assert message.startswith("2 mistakes in the configuration:")
    assert f"{tmp_path}/proxy.toml: server.idle_timeout = 1" in message


def test_no_key_has_the_form_of_a_variable_of_kubernetes() -> None:
    listed = refusal({"PYPIPROXY_SERVER__ZZZZ": "1", "PYPIPROXY_UPSTREAM__ZZZZ": "1"})
    keys = set(re.findall(r"PYPIPROXY_(?:SERVER|UPSTREAM)__([A-Z_]+)", listed)) - {"ZZZZ"}
    assert {"LISTEN", "URL"} <= keys
    assert not [key for key in keys if key.endswith("_PORT") or "_SERVICE_" in key]
