"""The configuration: what is accepted, what becomes of it, and what the message says when it is refused."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from distlib.index import DEFAULT_INDEX
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from proxy.config import CommandLine, default_data_dir, load, quantities
from proxy.config.effective import effective_tables
from proxy.errors import ConfigError
from proxy.settings import (
    AccessSettings,
    CiRule,
    CiSettings,
    GrantSettings,
    GroupSettings,
    HostedSettings,
    IndexSettings,
    IssuerSettings,
    LdapSettings,
    PageLimits,
    ReverseProxySettings,
    ServerSettings,
    Settings,
    UpstreamSettings,
    WarmSettings,
)

PUBLIC = urljoin(DEFAULT_INDEX, "/simple/")
EXAMPLE = Path(__file__).parent.parent / "conf" / "pypiproxy.toml"
CORP = '[upstream.corp]\nurl = "https://corp.example/simple/"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "proxy.toml"


def settings(file: Path, text: str, *, environ: dict[str, str] | None = None, **command_line: Any) -> Settings:
    file.write_text(text)
    return load(file, CommandLine(**command_line), environ or {})


def refusal(file: Path, text: str, *, environ: dict[str, str] | None = None, **command_line: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(file, text, environ=environ, **command_line)
    return str(caught.value)


def upstream_of(file: Path, keys: str, *, environ: dict[str, str] | None = None) -> UpstreamSettings:
    """The settings of an upstream with *keys*, used by an index."""
    text = f'{CORP}{keys}\n[[index]]\nname = "main"\nupstreams = ["corp"]\n'
    (upstream,) = settings(file, text, environ=environ).upstreams
    return upstream


def index_with(keys: str) -> str:
    return f'[[index]]\nname = "main"\nupstreams = ["pypi"]\n{keys}\n'


def offline_with(keys: str) -> str:
    return f'[[index]]\nname = "main"\noffline = true\n{keys}\n'


# -- defaults -----------------------------------------------------------------------------------------------------------------


def test_without_a_file_the_public_index_is_served() -> None:
    found = load(None, environ={})
    assert found.upstreams == (UpstreamSettings(name="pypi", url=PUBLIC),)
    assert found.indexes == (IndexSettings(name="pypi", upstreams=("pypi",), default=True),)
    assert found.server == ServerSettings(data_dir=default_data_dir())


def test_an_empty_file_is_the_same_as_none(file: Path) -> None:
    assert settings(file, "") == load(None, environ={})


def test_the_public_index_can_be_tuned_without_repeating_its_url(file: Path) -> None:
    (upstream,) = settings(file, "[upstream.pypi]\nmax_connections = 5\n").upstreams
    assert (upstream.url, upstream.max_connections) == (PUBLIC, 5)


def test_pypi_stands_for_the_public_index_as_a_url(file: Path) -> None:
    text = '[upstream.public]\nurl = "pypi"\n[[index]]\nname = "main"\nupstreams = ["public"]\n'
    assert settings(file, text).upstreams == (UpstreamSettings(name="public", url=PUBLIC),)


def test_an_offline_index_needs_no_upstreams_and_those_of_it_alone_are_not_opened(file: Path) -> None:
    assert settings(file, offline_with("")).indexes == (IndexSettings(name="main", default=True, offline=True),)
    found = settings(file, CORP + offline_with('upstreams = ["corp"]'))
    assert (found.indexes[0].upstreams, found.upstreams) == (("corp",), ())


def test_an_upstream_on_the_command_line_for_an_offline_index_is_refused(file: Path) -> None:
    said = refusal(file, offline_with(""), upstreams=("pypi",))
    assert said == f"{file}: index.main is offline and the default index, and --upstream is for that one: leave out either"


def test_an_only_index_is_the_default_one(file: Path) -> None:
    assert settings(file, index_with("")).indexes[0].default


# -- hosted indexes and groups ------------------------------------------------------------------------------------------------

TWO_HOSTED = """
    [[index]]
    name = "internal"
    kind = "hosted"

    [[index]]
    name = "all"
    kind = "group"
    default = true
"""


def test_a_hosted_index_and_a_group_arrive(file: Path) -> None:
    found = settings(
        file,
        """
        [[index]]
        name = "internal"
        kind = "hosted"
        path = "packages"
        owns = ["Acme_*", "tool.?"]
        max_files = 1000
        max_size = "5GB"

        [[index]]
        name = "all"
        kind = "group"
        members = ["internal", "pypi"]
        merge = ["Foo.Bar"]
        default = true

        [[index]]
        name = "pypi"
        upstreams = ["pypi"]
        """,
    )
    hosted, group, _ = found.indexes
    assert hosted.hosted == HostedSettings(
        path=file.parent / "packages", owns=("acme-*", "tool-?"), max_files=1000, max_size=5_000_000_000
    )
    assert group.group == GroupSettings(members=("internal", "pypi"), merge=("foo-bar",))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ("", 'members: missing; expected a list of names of indexes, such as ["internal", "pypi"]'),
        ("members = []", 'members = []: expected a list in brackets, such as ["…", "…"]'),
        ('members = ["internal", "pipy"]', 'members: there is no index "pipy"; expected one of: internal'),
        ('members = ["internal", "internal"]', 'members = ["internal", "internal"]: expected each only once'),
        (
            'members = ["internal", "all"]',
            "members: the group all consists of all; expected groups that do not contain themselves",
        ),
    ],
)
def test_wrong_members_of_a_group_are_told(file: Path, members: str, complaint: str) -> None:
    assert f"{file}: index[1].{complaint}" in refusal(file, TWO_HOSTED + members)


def test_a_group_that_contains_itself_by_way_of_another_is_refused(file: Path) -> None:
    said = refusal(
        file,
        """
        [[index]]
        name = "a"
        kind = "group"
        members = ["b"]
        default = true

        [[index]]
        name = "b"
        kind = "group"
        members = ["a"]
        """,
    )
    assert "index[0].members: the group a consists of b consists of a; expected groups that do not contain themselves" in said


# -- rights -------------------------------------------------------------------------------------------------------------------

#: A hosted index, and a group with it.
GRANTED = TWO_HOSTED + 'members = ["internal"]\n[access.groups]\nweb = ["alice"]\n'


def test_rights_arrive(file: Path) -> None:
    found = settings(
        file,
        GRANTED
        + """
        [access]
        users_file = "secrets/users"
        allow_plaintext_auth = true
        audit_size = "1MB"
        audit_files = 2

        [[grant]]
        role = "uploader"
        indexes = ["internal"]
        projects = ["Acme_*"]
        principals = ["user:alice@corp.example", "group:web", "token:k3x", "authenticated", "part:warm"]

        [[grant]]
        role = "reader"
        principals = ["anonymous"]
        """,
    )
    assert found.access == AccessSettings(
        users_file=file.parent / "secrets" / "users",
        allow_plaintext_auth=True,
        audit_size=1_000_000,
        audit_files=2,
        groups={"web": ("alice",)},
    )
    principals = ("user:alice@corp.example", "group:web", "token:k3x", "authenticated", "part:warm")
    assert found.grants == (
        GrantSettings(role="uploader", indexes=("internal",), projects=("acme-*",), principals=principals),
        GrantSettings(role="reader", principals=("anonymous",)),
    )


@pytest.mark.parametrize(
    ("grant", "complaint"),
    [
        ("", 'role: missing; expected "reader" or "uploader" or "maintainer" or "admin"'),
        ("", 'principals: missing; expected a list such as ["user:alice", "group:web", "authenticated"]'),
        ('role = "owner"', 'role = "owner": expected "reader" or "uploader" or "maintainer" or "admin"'),
        ('indexes = ["pypi"]', 'indexes: there is no index "pypi"; expected one of: internal, or "*" for all'),
        (
            'indexes = ["all"]',
            'indexes: "all" is a group, in which the rights on its members count; expected one of: internal',
        ),
        ('projects = ["acme/*"]', 'projects = ["acme/*"]: expected the name of a project, in which * stands for any'),
        ("projects = []", 'projects = []: expected a list in brackets, such as ["…", "…"]'),
        ('principals = ["group:wbe"]', 'principals: there is no group "wbe"; expected one of: web'),
        (
            'principals = ["ci:relaese"]',
            'principals: there is no rule "relaese" for CI jobs; expected a table [[ci.rule]] with name = "relaese"',
        ),
        (
            'principals = ["ci:relaese"]\n[ci.issuer.ours]\nurl = "https://ci.example"\n'
            '[[ci.rule]]\nname = "release"\nissuer = "ours"\nclaims = { sub = "a" }',
            'principals: there is no rule "relaese" for CI jobs; expected one of: release',
        ),
        ('principals = ["alice"]', 'principals = ["alice"]: expected "user:NAME", "group:NAME", "token:ID"'),
        ('principals = ["user:a b"]', 'principals = ["user:a b"]: expected "user:NAME"'),
        ('principals = ["anonymous:x"]', 'principals = ["anonymous:x"]: expected "user:NAME"'),
        ('principals = ["part:bellows"]', 'principals = ["part:bellows"]: expected "user:NAME"'),
        ('principal = ["anonymous"]', "principal: there is no such key; did you mean principals?"),
    ],
)
def test_wrong_grants_are_told(file: Path, grant: str, complaint: str) -> None:
    assert f"{file}: grant[0].{complaint}" in refusal(file, f"{GRANTED}[[grant]]\n{grant}\n")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('[access.groups]\n"The Web" = ["alice"]', "access.groups.The Web: the group's name is to be a name of a-z"),
        ('[access.groups]\nweb = ["a:b"]', 'access.groups.web = ["a:b"]: expected the name of a user'),
        ("[access]\ngroups = 1", "access.groups: expected a table [access.groups]"),
        ("[access]\naudit_files = 0", "access.audit_files = 0: expected a whole number, at least 1"),
        ('[access]\nuser_file = "x"', "access.user_file: there is no such key; did you mean users_file?"),
    ],
)
def test_mistakes_in_who_may_log_in(file: Path, table: str, complaint: str) -> None:
    assert f"{file}: {complaint}" in refusal(file, table)


# -- the example file ---------------------------------------------------------------------------------------------------------


def test_the_example_file_says_the_defaults() -> None:
    assert load(EXAMPLE, environ={}) == load(None, environ={})


def test_the_example_file_has_every_key_and_only_such_that_exist(tmp_path: Path) -> None:
    """With all its commented keys in place, it is read without a complaint but for files that are not there."""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    uncommented = [re.sub(r"^# (?=[a-z_]+ = |\[)", "", line) for line in lines]
    whole = tmp_path / "whole.toml"
    whole.write_text("\n".join(uncommented))
    values = tomllib.loads(whole.read_text())

    with pytest.raises(ConfigError) as caught:
        load(whole, environ={"CORP_PASSWORD": "p", "CORP_TOKEN": "t", "LDAP_PASSWORD": "p"})
    assert "no such key" not in str(caught.value)
    assert set(re.findall(r"(\w+) = ", str(caught.value))) == {
        "password_file",
        "token_file",
        "ca_file",
        "client_cert",
        "client_key",
        "files",
        "bind_password_file",
    }

    secrets = {"password", "token"}
    sources = {"password_file", "password_env", "token_file", "token_env", "netrc"}
    assert set(values["server"]) == {each.name for each in fields(ServerSettings)}
    assert set(values["upstream"]["pypi"]) | set(values["upstream"]["corp"]) == (
        {each.name for each in fields(UpstreamSettings)} - {"name", "of_command_line", "other_table"} - secrets | sources
    )
    of_every_kind, of_one = {"name", "kind"}, {"limits", "hosted", "group"}
    assert set(values["index"][0]) == (
        {each.name for each in fields(IndexSettings)} - of_one | {each.name for each in fields(PageLimits)}
    )
    assert set(values["index"][1]) == of_every_kind | {each.name for each in fields(HostedSettings)}
    assert set(values["index"][2]) == of_every_kind | {each.name for each in fields(GroupSettings)}
    assert set(values["warm"]) == {each.name for each in fields(WarmSettings)}
    assert set(values["access"]) == {each.name for each in fields(AccessSettings)}
    ways = {"bind_password_file", "bind_password_env"}
    assert set(values["access"]["ldap"]) == {each.name for each in fields(LdapSettings)} - {"bind_password"} | ways
    assert set(values["access"]["reverse_proxy"]) == {each.name for each in fields(ReverseProxySettings)}
    assert set(values["grant"][0]) == {each.name for each in fields(GrantSettings)}
    assert set(values["ci"]) == {each.name for each in fields(CiSettings)} - {"issuers", "rules"} | {"issuer", "rule"}
    assert set(values["ci"]["issuer"]["github"]) == {each.name for each in fields(IssuerSettings)} - {"name", "token"}
    assert set(values["ci"]["rule"][0]) == {each.name for each in fields(CiRule)}


def test_the_effective_configuration_has_every_key() -> None:
    """What it lacks is compared by nobody: ``config diff`` and a reload would never report that it has changed."""
    settings = Settings(
        server=ServerSettings(data_dir=Path("/srv/data")),
        upstreams=(UpstreamSettings(name="pypi", url="https://up.example/", password="p", password_file=Path("/p")),),
        indexes=(
            IndexSettings(name="pypi", upstreams=("pypi",)),
            IndexSettings(name="own", kind="hosted", hosted=HostedSettings()),
            IndexSettings(name="all", kind="group", group=GroupSettings(members=("own", "pypi"))),
        ),
        warm=WarmSettings(),
        access=AccessSettings(
            ldap=LdapSettings(url="ldaps://ldap.example", group_base="dc=example"),
            reverse_proxy=ReverseProxySettings(user_header="X-User"),
        ),
        grants=(GrantSettings(role="reader", principals=("anonymous",)),),
        ci=CiSettings(
            issuers=(IssuerSettings(name="github", url="https://ci.example"),),
            rules=(CiRule(name="job", issuer="github", claims=(), role="reader"),),
        ),
    )
    shown = [(heading.strip("[]"), {key for key, _ in lines}) for heading, lines, _ in effective_tables(settings)]

    def keys(of: type, *apart: str) -> set[str]:
        return {each.name for each in fields(of)} - set(apart)

    every_index = {"name", "kind", "default"}
    assert shown == [
        ("server", keys(ServerSettings)),
        # A secret is shown as the name of its file; the last three are no keys of the table.
        ('upstream."pypi"', keys(UpstreamSettings, "password", "token", "netrc", "name", "of_command_line", "other_table")),
        ("index", keys(IndexSettings, "limits", "hosted", "group") | keys(PageLimits)),
        ("index", every_index | keys(HostedSettings)),
        ("index", every_index | keys(GroupSettings)),
        ("warm", keys(WarmSettings)),
        ("access", keys(AccessSettings, "groups", "ldap", "reverse_proxy")),
        ("access.ldap", keys(LdapSettings, "bind_password")),
        ("access.reverse_proxy", keys(ReverseProxySettings)),
        ("grant", keys(GrantSettings)),
        ("ci", keys(CiSettings, "issuers", "rules")),
        ('ci.issuer."github"', keys(IssuerSettings, "name", "token")),
        ("ci.rule", keys(CiRule)),
    ]


# -- what is kept ready -------------------------------------------------------------------------------------------------------


def test_what_is_kept_ready_arrives(file: Path) -> None:
    (file.parent / "requirements.txt").touch()
    found = settings(
        file,
        """
        [warm]
        files = ["requirements.txt"]
        projects = ["pip", "setuptools >= 77"]
        recent = "30d"
        interval = "5m"
        python = ["3.12"]
        platform = ["win_amd64"]
        pin = true
        """,
    )
    assert found.warm == WarmSettings(
        files=(file.parent / "requirements.txt",),
        projects=("pip", "setuptools>=77"),
        recent=30 * 86400.0,
        interval=300.0,
        python=("3.12",),
        platform=("win_amd64",),
        pin=True,
    )
    assert load(None, environ={}).warm is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('files = ["gone.txt"]', 'warm.files = ["gone.txt"]: expected a file that can be read'),
        ('projects = ["a b"]', 'warm.projects = ["a b"]: expected a requirement such as'),
        ('projects = ["a @ https://files.example/a.zip"]', "without a URL"),
        ('interval = "1s"', 'warm.interval = "1s": expected at least 60s'),
        ('python = ["2.7"]', "warm.python: expected a version such as 3.12"),
        ('platform = ["amiga"]', "warm.platform: expected a wheel's platform tag"),
        ('often = "1h"', "warm.often: there is no such key"),
    ],
)
def test_mistakes_in_what_is_kept_ready(file: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(file, f"[warm]\n{line}\n")
    assert said in str(caught.value)


# -- values -------------------------------------------------------------------------------------------------------------------


def test_every_value_arrives(file: Path) -> None:
    found = settings(
        file,
        """
        [server]
        listen = ["tcp:1", "tcp:2"]
        probe_listen = ["127.0.0.1:3"]
        data_dir = "data"
        metrics_listen = ["tcp:3", "tcp:4"]
        metrics_for = ["user:prometheus"]
        dashboard = false
        dashboard_listen = ["tcp:5"]
        contact = "ci@corp.example"
        stop_pause = "5s"
        drain_time = "1m30s"
        max_connections = 7
        max_waiting = 6
        idle_timeout = "500ms"
        stall_timeout = "2h"
        trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
        page_memory = "20MB"
        max_size = "200GB"
        min_free = "20GiB"
        [upstream.corp]
        url = "http://corp.example:8080/mirror/simple"
        connect_timeout = "1s"
        first_byte_timeout = "2s"
        body_idle_timeout = "3s"
        max_connections = 4
        max_queue = 5
        max_rate = 0.5
        partial = true
        authoritative = true
        forbidden = "missing"
        redirect_hosts = ["login.corp.example"]
        max_lag = "1d"
        file_hosts = ["files.example", "*.cdn.example"]
        allow_private_addresses = true
        outbound_proxy = "http://u:p@out.example:3128/"
        [[index]]
        name = "main"
        upstreams = ["corp", "pypi"]
        default = true
        ttl = "1h"
        soft_deadline = "0s"
        stale_if_error = "1w"
        negative_ttl = "10s"
        policy = "fastest"
        hedge_after = "700ms"
        [[index]]
        name = "other"
        upstreams = ["pypi"]
        """,
    )
    assert found.server == ServerSettings(
        data_dir=file.parent / "data",
        listen=("tcp:1", "tcp:2"),
        metrics_listen=("tcp:3", "tcp:4"),
        metrics_for=("user:prometheus",),
        dashboard=False,
        dashboard_listen=("tcp:5",),
        contact="ci@corp.example",
        probe_listen=("127.0.0.1:3",),
        stop_pause=5,
        drain_time=90,
        max_connections=7,
        max_waiting=6,
        idle_timeout=0.5,
        stall_timeout=7200,
        trusted_proxies=("127.0.0.1/32", "10.0.0.0/8"),
        page_memory=20_000_000,
        max_size=200_000_000_000,
        min_free=20 * 1024**3,
    )
    assert found.upstreams[0] == UpstreamSettings(
        name="corp",
        url="http://corp.example:8080/mirror/simple/",
        connect_timeout=1,
        first_byte_timeout=2,
        body_idle_timeout=3,
        max_connections=4,
        max_queue=5,
        max_rate=0.5,
        partial=True,
        authoritative=True,
        forbidden="missing",
        redirect_hosts=("login.corp.example",),
        max_lag=86400,
        file_hosts=("files.example", "*.cdn.example"),
        allow_private_addresses=True,
        outbound_proxy="http://u:p@out.example:3128",
    )
    assert found.indexes[0] == IndexSettings(
        name="main",
        upstreams=("corp", "pypi"),
        default=True,
        limits=PageLimits(ttl=3600, soft_deadline=0, stale_if_error=604800, negative_ttl=10),
        policy="fastest",
        hedge_after=0.7,
    )
    assert found.indexes[1] == IndexSettings(name="other", upstreams=("pypi",))


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0B", 0), ("1kB", 1000), ("1KB", 1000), ("1KiB", 1024), ("20GB", 20 * 10**9), ("1.5MiB", 1536 * 1024), ("1 TB", 10**12)],
)
def test_sizes_are_decimal_unless_they_say_binary(text: str, bytes_: int) -> None:
    assert quantities.bytes_in(text) == bytes_


@given(st.integers(0, 10**6), st.sampled_from(sorted(quantities.DURATION_UNITS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert quantities.seconds_in(f"{number}{unit}") == number * quantities.DURATION_UNITS[unit] / 1000


@pytest.mark.parametrize("text", ["", "10", "m", "10 minutes", "-1s", "1h later", "1e3s", "٣s", "nan", "infs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text.strip())}$"):
        quantities.seconds_in(text)


# -- mistakes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nlistn = 1", ["server.listn", "no such key", "did you mean listen?"]),
        ("[servers]\n", ["servers", "did you mean server?"]),
        ("[server]\nlisten = 3143", ["server.listen = 3143", "a list"]),
        ("[server]\nlisten = []", ["server.listen = []", "a list"]),
        ('[server]\nlisten = ["tcp:1", "tcp:1"]', ["server.listen", "only once"]),
        (
            '[server]\ntrusted_proxies = ["127.0.0.1", "10.1.0.1/16"]',
            ["server.trusted_proxies", '"10.1.0.1/16" is an address', 'write "10.1.0.0/16" for the network (host bits set)'],
        ),
        ('[server]\ntrusted_proxies = ["::1", "nginx"]', ["server.trusted_proxies", "IP addresses", '"nginx" is neither']),
        ("[server]\nidle_timeout = 10", ["server.idle_timeout = 10", '"10s"']),
        ('[server]\nidle_timeout = "0s"', ['server.idle_timeout = "0s"', "above 0"]),
        ('[server]\nprobe_listen = ["unix:/run/a"]', ['server.probe_listen = ["unix:/run/a"]', "a port of TCP without TLS"]),
        ('[server]\nprobe_listen = ["::1"]', ['server.probe_listen = ["::1"]', '"[::1]:3144"']),
        ("[server]\nmax_waiting = 0", ["server.max_waiting = 0", "at least 1"]),
        ("[server]\nmax_connections = true", ["server.max_connections = true", "at least 1"]),
        ('[server]\nmax_connections = "9"', ['server.max_connections = "9"', "without quotes"]),
        ('[server]\npage_memory = "20"', ['server.page_memory = "20"', '"1GiB"']),
        ('[server]\nmax_size = "0GB"', ['server.max_size = "0GB"', "above 0", '"unlimited"']),
        ("[server]\nmin_free = 20", ["server.min_free = 20", "a size in quotes", '"off"']),
        ("[server]\nmetrics_listen = 3145", ["server.metrics_listen = 3145", "a list"]),
        ('[server]\nmetrics_for = ["prometheus"]', ["server.metrics_for", "user:"]),
        ('[server]\nmetrics_for = ["group:ops"]', ["server.metrics_for", 'no group "ops"', "[access.groups]"]),
        ('[server]\ncontact = "me (at) home"', ["server.contact", "without parentheses"]),
        ('[server]\ncontact = "a\\r\\nHost: b"', ["server.contact"]),
        ("server = 1", ["server", "a table [server]"]),
        ("[index]\nname = 'a'", ["index", "[[index]]"]),
        ("[upstream]\nurl = 'pypi'", ["upstream.url", "[upstream.NAME]"]),
        ("[[upstream]]\nurl = 'pypi'", ["upstream", "[upstream.NAME]"]),
        ("[upstream.Corp]\nurl = 'pypi'", ["upstream.Corp", "a-z"]),
        ("[upstream.corp]", ["upstream.corp.url", "missing"]),
        (CORP, ["upstream.corp", "no index uses it"]),
        ("[upstream.pypi]\nmax_rate = 0", ["upstream.pypi.max_rate = 0", '"unlimited"']),
        ("[upstream.pypi]\nmax_lag = 'never'", ['upstream.pypi.max_lag = "never"', 'or "off"']),
        ("[upstream.pypi]\nfile_hosts = ['https://a.example/']", ["upstream.pypi.file_hosts", '"*.files.example"']),
        ("[upstream.pypi]\nforbidden = 'no'", ["upstream.pypi.forbidden", '"auto" or "missing" or "failure"']),
        ("[upstream.pypi]\npartial = 'yes'", ["upstream.pypi.partial", "true or false"]),
        (
            "[upstream.pypi]\noutbound_proxy = 'proxy.example:3128'",
            ["upstream.pypi.outbound_proxy", '"http://proxy.example:3128"'],
        ),
        ("[upstream.pypi]\noutbound_proxy = 'http://proxy.example'", ["upstream.pypi.outbound_proxy", "port"]),
        (index_with("ttl = '10x'"), ['index[0].ttl = "10x"', '"10m"']),
        (index_with("kind = 'mirror'"), ['index[0].kind = "mirror"', '"proxy" or "hosted" or "group"']),
        (index_with("policy = 'random'"), ['index[0].policy = "random"', '"ordered" or "fastest"']),
        (index_with("").replace("main", "../main"), ["index[0].name", "a-z"]),
        (index_with("").replace("pypi", "corp"), ["index[0].upstreams", '"corp"', "[upstream.corp]", "pypi"]),
        ("[[index]]\nname = 'a'", ["index[0].upstreams", "missing"]),
        ("[[index]]\nupstreams = ['pypi']", ["index[0].name", "missing"]),
        (index_with("default = true") * 2, ["index[1].name", "index[0] has it already"]),
        (index_with("default = true") + index_with("default = true").replace("main", "b"), ["index[1].default", "index[0]"]),
        (index_with("") + index_with("").replace("main", "b"), ["none is the default", "default = true"]),
    ],
)
def test_a_mistake_is_named_with_file_key_value_and_what_is_expected(file: Path, text: str, said: list[str]) -> None:
    message = refusal(file, text)
    assert str(file) in message
    for each in said:
        assert each in message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "corp.example/simple",
        "ftp://corp.example/",
        "https://",
        "https:///simple",
        "http://[::1/",
        "http://a.example:99999/",
        "http://a b/",
        "https://münchen.example/",
        "https://a.example/?x=1",
        "https://a.example/#x",
        "https://a.example\\\\@b.example/",
        "file:///x",
    ],
)
def test_a_url_that_no_index_can_have_is_refused(file: Path, url: str) -> None:
    assert "upstream.corp.url = " in refusal(file, f'[upstream.corp]\nurl = "{url}"\n')


def test_an_at_sign_in_the_path_is_no_credential(file: Path) -> None:
    text = CORP.replace("/simple/", "/feed@Local/simple/") + '[[index]]\nname = "main"\nupstreams = ["corp"]\n'
    assert settings(file, text).upstreams[0].url.endswith("/feed@Local/simple/")


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    message = refusal(file, "[server]\nlistn = 1\nidle_timeout = 3\n" + index_with("ttl = 5"), upstreams=("nonsense",))
    assert message.startswith("4 mistakes")
    for key in ("server.listn", "server.idle_timeout", "index[0].ttl", "--upstream"):
        assert key in message


def test_broken_toml_is_told_with_its_line(file: Path) -> None:
    message = refusal(file, "[server]\nlisten = \n")
    assert str(file) in message
    assert "line 2" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nlisten = tcp:3143\n", "line 2: listen: expected a value: text, durations and sizes in quotes"),
        ("[server]\ndrain_time = 10m\n", "line 2: drain_time: expected nothing after the value"),
        ("[server]\n\nlisten\n", 'line 3: expected a line such as key = "value"'),
        ("[server]\nmax_connections = 1\nmax_connections = 2\n", "line 3: max_connections: expected each key once per table"),
        ('[index]\nname = "a"\n[[index]]\nname = "b"\n', "line 3: [index] is above, with one bracket: expected [[index]]"),
        ("[server]\n[upstream.a]\n[server]\n", "line 3: expected each table once"),
        ('[server]\ncontact = "me\n', "line 2: contact: expected a closing quote on the same line"),
        ('[server]\ndata_dir = "C:\\data"\n', "line 2: data_dir: expected backslashes to be doubled"),
        ('[server]\nlisten = ["tcp:3143"\n', "expected a ] at the end of the list"),
        ("[server\n", "line 1: expected a ] at the end of the table's name"),
        ("[[index]\n", "line 1: expected ]] at the end of the table's name"),
    ],
)
def test_broken_toml_is_explained_as_wrong_values_are(file: Path, text: str, said: str) -> None:
    message = refusal(file, text)
    assert message.startswith(f"{file}: line ")
    assert said in message


def test_the_value_of_a_broken_line_is_not_shown(file: Path) -> None:
    assert "hunter2" not in refusal(file, '[upstream.a]\npassword = "hunter2\n')


def test_a_file_that_is_not_there_or_not_text_is_told(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(file, environ={})
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file, environ={})


def test_a_long_value_is_cut_in_the_message(file: Path) -> None:
    assert len(refusal(file, f'[server]\nidle_timeout = "{"9" * 10000}"')) < 500


# -- secrets ------------------------------------------------------------------------------------------------------------------


def test_a_password_comes_from_a_file_beside_the_configuration(file: Path) -> None:
    (file.parent / "password").write_text("hunter2\n")
    upstream = upstream_of(file, 'username = "ci"\npassword_file = "password"')
    assert (upstream.username, upstream.password, upstream.token) == ("ci", "hunter2", None)
    assert "hunter2" not in repr(upstream)
    assert upstream.password_file == file.parent / "password"


@pytest.mark.parametrize("variable", ["$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"])
def test_credentials_of_the_service_manager_are_file_names(file: Path, variable: str) -> None:
    directory = file.parent / "credentials:x"
    directory.mkdir()
    for name in ("token", "key.pem"):
        (directory / name).write_text("hunter2\n")
    environ = {"CREDENTIALS_DIRECTORY": str(directory)}
    upstream = upstream_of(file, f'token_file = "{variable}/token"', environ=environ)
    assert (upstream.token, upstream.token_file) == ("hunter2", directory / "token")
    endpoint = f"ssl:1:privateKey={variable}/key.pem"
    file.write_text(f'[server]\nlisten = ["{endpoint}"]\n')
    expected = ("ssl:1:privateKey={}/key.pem".format(str(directory).replace(":", "\\:")),)
    assert load(file, environ=environ).server.listen == expected
    assert load(None, CommandLine(listen=(endpoint,)), environ).server.listen == expected


def test_credentials_that_the_service_does_not_have_are_a_mistake(file: Path) -> None:
    path = "$CREDENTIALS_DIRECTORY/token"
    upstream = f'{CORP}token_file = "{path}"\n[[index]]\nname = "main"\nupstreams = ["corp"]\n'
    for text in (upstream, f'[server]\nlisten = ["ssl:1:privateKey={path}"]\n'):
        assert "LoadCredential= in the unit" in refusal(file, text)
    with pytest.raises(ConfigError, match=r"--listen = .*LoadCredential= in the unit"):
        load(None, CommandLine(listen=(f"ssl:1:privateKey={path}",)), {})


def test_a_secret_from_a_pipe_is_read_once(file: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hunter2\n")
    os.close(writing)
    try:
        upstream = upstream_of(file, f'token_file = "/dev/fd/{reading}"')
    finally:
        os.close(reading)
    assert (upstream.token, upstream.token_file) == ("hunter2", None)


def test_a_password_or_token_comes_from_the_environment(file: Path) -> None:
    upstream = upstream_of(file, 'username = "ci"\npassword_env = "PW"', environ={"PW": "hunter2"})
    assert upstream.password == "hunter2"
    upstream = upstream_of(file, 'token_env = "PW"', environ={"PW": "hunter2"})
    assert (upstream.username, upstream.token) == (None, "hunter2")


def test_netrc_gives_the_entry_of_the_upstreams_host(file: Path) -> None:
    netrc = file.parent / "netrc"
    netrc.write_text("machine other.example login a password b\nmachine corp.example login ci password hunter2\n")
    upstream = upstream_of(file, "netrc = true", environ={"NETRC": str(netrc)})
    assert (upstream.username, upstream.password) == ("ci", "hunter2")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('password = "hunter2"', "password_file"),
        ('token = "hunter2"', "token_file"),
        ('pasword = "hunter2"', "no such key"),
        ('token_env = "hunter2-hunter2"', "the name of an environment variable"),
        ('token_env = "UNSET"', "that is set"),
        ('token_env = "EMPTY"', "it is empty"),
        ('token_env = "TWO_LINES"', "control characters"),
        ('password_env = "PW"', "username: missing"),
        ('username = "ci"', "expected password_file or password_env"),
        ('username = "ci"\npassword_env = "PW"\ntoken_env = "PW"', "one of them"),
        ("netrc = true", "no login and password for machine corp.example"),
        ('token_file = "missing"', "can be read"),
        ('url = "https://ci:hunter2@corp.example/simple/"', "go into username"),
        ('url = "https://ci:hunter2/x@corp.example/simple/"', "url = "),
        ('url = "https://corp.example/simple/?token=hunter2"', "without a query"),
        ('outbound_proxy = "http://ci:hunter2@out.example"', "outbound_proxy"),
        ('outbound_proxy = "ci:hunter2@out.example:99"', "outbound_proxy"),
    ],
)
def test_a_mistake_with_a_secret_does_not_tell_the_secret(file: Path, keys: str, said: str) -> None:
    netrc = file.parent / "netrc"
    netrc.write_text("machine other.example login a password hunter2\n")
    environ = {"PW": "hunter2", "EMPTY": "", "TWO_LINES": "hunter2\nhunter2", "NETRC": str(netrc)}
    table = f"[upstream.corp]\n{keys}\n" if keys.startswith("url") else f"{CORP}{keys}\n"
    message = refusal(file, f'{table}[[index]]\nname = "main"\nupstreams = ["corp"]\n', environ=environ)
    assert said in message
    assert "hunter2" not in message


def test_an_unreadable_netrc_does_not_tell_what_it_holds(file: Path) -> None:
    netrc = file.parent / "netrc"
    netrc.write_text("machine corp.example login ci hunter2\n")
    text = f'{CORP}netrc = true\n[[index]]\nname = "main"\nupstreams = ["corp"]\n'
    message = refusal(file, text, environ={"NETRC": str(netrc)})
    assert "cannot be understood" in message
    assert "hunter2" not in message


def test_certificates_have_to_be_pem(file: Path) -> None:
    (file.parent / "x.pem").write_text("no certificate")
    text = f'{CORP}ca_file = "x.pem"\nclient_cert = "x.pem"\n[[index]]\nname = "main"\nupstreams = ["corp"]\n'
    message = refusal(file, text)
    assert "upstream.corp.ca_file" in message
    assert "upstream.corp.client_cert" in message


# -- the command line ---------------------------------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_file(file: Path, tmp_path: Path) -> None:
    text = '[server]\nlisten = ["tcp:1"]\ndata_dir = "a"\n' + index_with("") + CORP
    found = settings(file, text, listen=("tcp:2",), data_dir=tmp_path / "b", upstreams=("corp", "pypi"))
    assert found.server.listen == ("tcp:2",)
    assert found.server.data_dir == tmp_path / "b"
    assert found.indexes[0].upstreams == ("corp", "pypi")


def test_an_upstream_on_the_command_line_may_be_a_new_url() -> None:
    urls = ("http://127.0.0.1:8000/simple", "https://a.example/simple/", "https://a.example/other/", "pypi")
    found = load(None, CommandLine(upstreams=urls), {})
    assert [upstream.name for upstream in found.upstreams if upstream.name in found.indexes[0].upstreams]
    assert found.indexes[0].upstreams == ("127.0.0.1-8000", "a.example", "a.example-2", "pypi")
    assert {upstream.url for upstream in found.upstreams} == {
        "http://127.0.0.1:8000/simple/",
        "https://a.example/simple/",
        "https://a.example/other/",
        PUBLIC,
    }


def test_a_url_of_a_configured_upstream_brings_its_settings(file: Path) -> None:
    found = settings(file, CORP + "max_connections = 3\n", upstreams=("https://corp.example/simple",))
    assert found.indexes[0].upstreams == ("corp",)
    assert found.upstreams[0].max_connections == 3


def test_only_the_default_index_is_changed_by_the_command_line(file: Path) -> None:
    text = CORP + index_with("default = true") + index_with("").replace("main", "other")
    found = settings(file, text, upstreams=("corp",))
    assert [index.upstreams for index in found.indexes] == [("corp",), ("pypi",)]


def test_an_upstream_on_the_command_line_that_is_none_is_refused_without_its_secrets() -> None:
    with pytest.raises(ConfigError, match=r'--upstream = "corp": expected .*, or "pypi"$'):
        load(None, CommandLine(upstreams=("corp",)), {})
    with pytest.raises(ConfigError, match=r'--upstream = "pipy": expected .*, or "pypi"; did you mean "pypi"\?$'):
        load(None, CommandLine(upstreams=("pipy",)), {})
    with pytest.raises(ConfigError) as caught:
        load(None, CommandLine(upstreams=("https://ci:hunter2@corp.example/",)), {})
    assert "hunter2" not in str(caught.value)


def test_a_working_directory_that_has_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    with pytest.raises(ConfigError, match="the working directory cannot be found: No such file or directory"):
        load(None, CommandLine())
