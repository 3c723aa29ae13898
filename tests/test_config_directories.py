"""``[access.ldap]`` and ``[access.reverse_proxy]``: what is accepted, what the file in effect says of it, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import load
from proxy.config.effective import effective
from proxy.errors import ConfigError
from proxy.settings import LdapSettings, ReverseProxySettings

INDEX = '[[index]]\nname = "pypi"\nupstreams = ["pypi"]\n'
LDAP = """
[access.ldap]
url = "ldaps://ldap.corp.example:1636/"
start_tls = false
bind_dn = "cn=reader,dc=corp"
bind_password_file = "password"
base = "ou=people,dc=corp"
user_attribute = "sAMAccountName"
user_filter = "(&(objectClass=person)(!(locked=*)))"
group_base = "ou=groups,dc=corp"
group_filter = "(member:1.2.840.113556.1.4.1941:={dn})"
group_attribute = "name"
timeout = "2s"
"""
STATED = (
    '[server]\ntrusted_proxies = ["10.0.0.1"]\n[access.reverse_proxy]\nuser_header = "X-User"\ngroups_header = "X-Groups"\n'
)


def written(folder: Path, text: str) -> Path:
    (folder / "password").write_text("a-secret\n")
    file = folder / "pypiproxy.toml"
    file.write_text(text + INDEX, "utf-8")
    return file


def test_a_directory_is_read(tmp_path: Path) -> None:
    pytest.importorskip("ldap", reason="python-ldap is not here (pip install 'pypiproxy[ldap]')")
    settings = load(written(tmp_path, LDAP), environ={})
    assert settings.access.ldap == LdapSettings(
        url="ldaps://ldap.corp.example:1636",
        start_tls=False,
        bind_dn="cn=reader,dc=corp",
        bind_password="a-secret",
        bind_password_file=tmp_path / "password",
        base="ou=people,dc=corp",
        user_attribute="sAMAccountName",
        user_filter="(&(objectClass=person)(!(locked=*)))",
        group_base="ou=groups,dc=corp",
        group_filter="(member:1.2.840.113556.1.4.1941:={dn})",
        group_attribute="name",
        timeout=2.0,
    )
    shown = effective(settings)
    assert "a-secret" not in shown
    again = tmp_path / "again.toml"
    again.write_text(shown, "utf-8")
    assert load(again, environ={}).access == settings.access


def test_headers_of_a_reverse_proxy_are_read(tmp_path: Path) -> None:
    text = f'{STATED}[access.groups]\nweb = ["alice", "group:Web Developers, Inc."]\n'
    settings = load(written(tmp_path, text), environ={})
    assert settings.access.reverse_proxy == ReverseProxySettings(user_header="X-User", groups_header="X-Groups")
    assert settings.access.groups == {"web": ("alice", "group:Web Developers, Inc.")}
    again = tmp_path / "again.toml"
    again.write_text(effective(settings), "utf-8")
    assert load(again, environ={}).access == settings.access


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[access.reverse_proxy]\nuser_header = "X-User"',
            "nobody is believed; expected server.trusted_proxies with their addresses",
        ),
        ("[access.reverse_proxy]", "access.reverse_proxy.user_header: missing"),
        ('[access.reverse_proxy]\nuser_header = "X User"', "the name of a header"),
        ('[access.reverse_proxy]\nuser_header = "Authorization"', "means nothing else"),
        ('[access.reverse_proxy]\nuser_header = "X-Forwarded-For"', "means nothing else"),
        ('[access.reverse_proxy]\nuser_header = "X-User"\ngroups_header = "x-user"', "it is the header of the user"),
        ('[access.reverse_proxy]\nuser = "X-User"', "access.reverse_proxy.user: there is no such key"),
        ('[access.groups]\nweb = ["group:Web"]', 'access.groups.web: nobody states "group:Web"'),
        ('[access.groups]\nweb = ["group:"]', '"group:" and the name of a group'),
        ('[access.groups]\nweb = ["group:a\\nb"]', '"group:" and the name of a group'),
        ("[access.ldap]", "access.ldap.url: missing"),
        ("[access.ldap]", "access.ldap.base: missing"),
        ('[access.ldap]\nurl = "http://ldap.example"', "an ldaps or ldap URL"),
        ('[access.ldap]\nurl = "ldap://ldap.example/dc=corp"', "an ldaps or ldap URL"),
        ('[access.ldap]\nurl = "ldap://me:a-secret@ldap.example"', "an ldaps or ldap URL"),
        ('[access.ldap]\nurl = "ldap://a.example ldap://b.example"', "an ldaps or ldap URL"),
        ('[access.ldap]\nuser_attribute = "a b"', "the name of an attribute"),
        ('[access.ldap]\nuser_attribute = "uid=*)(x"', "the name of an attribute"),
        ('[access.ldap]\nuser_filter = "uid=x"', "a filter in brackets"),
        ('[access.ldap]\nuser_filter = "(uid=x"', "a filter in brackets"),
        ('[access.ldap]\nuser_filter = "(a=b)(c=d)"', "a filter in brackets"),
        ('[access.ldap]\nuser_filter = "(a=b))((c=d)"', "a filter in brackets"),
        ('[access.ldap]\nbind_dn = "cn=x"', "a name needs a password"),
        ('[access.ldap]\nbind_password_file = "password"', "a name needs a password"),
        ('[access.ldap]\nbind_password = "a-secret"', "secrets are not kept in this file"),
        ('[access.ldap]\ngroup_filter = "(a=b)"', "no groups are looked for"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(written(tmp_path, f"{text}\n"), environ={})
    assert said in str(refused.value)
    assert "a-secret" not in str(refused.value)
