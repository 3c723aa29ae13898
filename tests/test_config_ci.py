"""``[ci]``: what is accepted, what the file that is in effect says of it, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.config import load
from proxy.config.effective import effective
from proxy.errors import ConfigError
from proxy.settings import CiRule, CiSettings, IssuerSettings

GITHUB = "https://token.actions.githubusercontent.com"
INDEXES = """
[[index]]
name = "internal"
kind = "hosted"

[[index]]
name = "pypi"
upstreams = ["pypi"]

[[index]]
name = "all"
kind = "group"
members = ["internal", "pypi"]
default = true
"""
ISSUERS = f"""
[ci]
audience = "packages.corp.example"

[ci.issuer.github]
url = "{GITHUB}"

[ci.issuer.cluster]
url = "https://kubernetes.default.svc"
jwks_url = "https://10.0.0.1:6443/openid/v1/jwks"
"""
RULES = """
[[ci.rule]]
name = "release"
issuer = "github"
claims = { repository = "acme/widgets", ref = ["refs/heads/main", "refs/tags/v*"], run_attempt = 1, ref_protected = true }
role = "uploader"
indexes = ["internal"]
projects = ["Acme_*"]
lifetime = "1h"

[[ci.rule]]
name = "builds"
issuer = "cluster"
claims = { "kubernetes.io" = { namespace = "ci", serviceaccount = { name = "*" } } }
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "pypiproxy.toml"
    file.write_text(INDEXES + text, "utf-8")
    return file


def test_rules_and_issuers_are_read(tmp_path: Path) -> None:
    assert load(written(tmp_path, ISSUERS + RULES), environ={}).ci == CiSettings(
        audience="packages.corp.example",
        issuers=(
            IssuerSettings(name="github", url=GITHUB),
            IssuerSettings(
                name="cluster", url="https://kubernetes.default.svc", jwks_url="https://10.0.0.1:6443/openid/v1/jwks"
            ),
        ),
        rules=(
            CiRule(
                name="release",
                issuer="github",
                claims=(
                    (("repository",), ("acme/widgets",)),
                    (("ref",), ("refs/heads/main", "refs/tags/v*")),
                    (("run_attempt",), ("1",)),
                    (("ref_protected",), ("true",)),
                ),
                role="uploader",
                indexes=("internal",),
                projects=("acme-*",),
                lifetime=3600.0,
            ),
            CiRule(
                name="builds",
                issuer="cluster",
                claims=((("kubernetes.io", "namespace"), ("ci",)), (("kubernetes.io", "serviceaccount", "name"), ("*",))),
                indexes=("*",),
                projects=("*",),
            ),
        ),
    )


def test_without_the_table_no_job_is_given_anything(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), environ={}).ci is None


def test_the_file_in_effect_leads_to_the_same_and_has_no_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-secret-token")
    text = ISSUERS + 'token_file = "token"\noutbound_proxy = "http://me:a-secret-password@proxy.example:3128"\n' + RULES
    settings = load(written(tmp_path, text), environ={})
    assert settings.ci is not None
    shown = effective(settings)
    assert "a-secret" not in shown
    again = tmp_path / "again.toml"
    again.write_text(shown, "utf-8")
    github, cluster = settings.ci.issuers
    cluster = replace(cluster, outbound_proxy="http://***@proxy.example:3128")
    assert load(again, environ={}).ci == replace(settings.ci, issuers=(github, cluster))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[ci]\naudience = ""', "ci.audience = "),
        ('[ci]\naudience = "a b"', "without spaces"),
        ("[ci]\nlifetime = 1", "ci.lifetime: there is no such key"),
        ("[ci.issuer.x]", "ci.issuer.x.url: missing"),
        ('[ci.issuer.x]\nurl = "http://ci.example"', "(http only on loopback)"),
        ('[ci.issuer.x]\nurl = "https://me:secret@ci.example"', '"https://***@ci.example": expected an https URL'),
        ('[ci.issuer.x]\nurl = "https://ci.example?a"', "expected an https URL"),
        ('[ci.issuer.x]\nurl = "ftp://ci.example"', "expected an https URL"),
        ('[ci.issuer.x]\nurl = "https://ci.example"\njwks_url = "http://ci.example/keys"', "ci.issuer.x.jwks_url"),
        ('[ci.issuer.x]\nurl = "https://ci.example"\nkeys = "no"', "there is no such key"),
        ('[ci.issuer.x]\nurl = "https://ci.example"\n[ci.issuer.y]\nurl = "https://ci.example"', "ci.issuer.y.url"),
        ('[ci.issuer."X Y"]\nurl = "https://ci.example"', "ci.issuer.X Y.NAME: the table's name is to be a name of a-z"),
        ("[[ci.rule]]", "ci.rule[0].name: missing"),
        ("[[ci.rule]]", "ci.rule[0].issuer: missing"),
        ("[[ci.rule]]", "ci.rule[0].claims: missing"),
        ("[ci.rule]", "ci.rule: expected tables [[ci.rule]]"),
        ("[ci]\nissuer = 1", "ci.issuer: expected tables [ci.issuer.NAME]"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(written(tmp_path, text), environ={})
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            'name = "a"\nissuer = "gitlab"\nclaims = { sub = "x" }',
            'there is no issuer "gitlab"; expected one of: cluster, github',
        ),
        ('name = "a"\nissuer = "cluster"\nclaims = {}', "a table of at least one claim"),
        ('name = "a"\nissuer = "cluster"\nclaims = "x"', "claims with a text or a list of texts"),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = [] }', "claims with a text or a list of texts"),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = 1.5 }', "claims with texts of at most"),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = "a*a*a*a*a*a*a*a*a*" }', "at most 8 times"),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = "x" }\nrole = "admin"', '"reader" or "uploader" or "maintainer"'),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = "x" }\nprojects = ["x"]', "there is no role"),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = "x" }\nlifetime = "5m"', 'at least "15m" and at most "6h"'),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = "x" }\nlifetime = "7h"', 'at least "15m" and at most "6h"'),
        (
            'name = "a"\nissuer = "cluster"\nclaims = { sub = "x" }\nrole = "reader"\nindexes = ["all"]',
            'no index "all" with rights',
        ),
        ('name = "a"\nissuer = "cluster"\nclaims = { sub = "x" }\nrole = "reader"\nindexes = ["none"]', 'no index "none"'),
        ('name = "release"\nissuer = "cluster"\nclaims = { sub = "x" }', "ci.rule[0] has it already"),
    ],
)
def test_a_wrong_rule_is_told(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(written(tmp_path, f"{ISSUERS}{RULES}\n[[ci.rule]]\n{rule}\n"), environ={})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("claims", "accepted"),
    [
        ('ref = "refs/heads/main"', False),
        ('repository = "acme/widgets"', True),
        ('repository = "acme/*"', True),
        ('repository = "acme*/widgets"', False),
        ('repository = "*/widgets"', False),
        ('repository = "**"', False),
        ('repository = ["acme/widgets", "*/widgets"]', False),
        ('repository_owner = "acme"', True),
        ('repository_owner = "acme*"', False),
        ("repository_owner_id = 1234", True),
        ('sub = "repo:acme/widgets:**"', True),
        ('sub = "repo:*/widgets:environment:release"', False),
        ('sub = "repo:**"', False),
        ('sub = "repo:**", repository_owner = "acme"', True),
    ],
)
def test_an_issuer_of_everybody_needs_a_claim_that_says_whose_job_it_is(tmp_path: Path, claims: str, accepted: bool) -> None:
    file = written(tmp_path, f'{ISSUERS}\n[[ci.rule]]\nname = "a"\nissuer = "github"\nclaims = {{ {claims} }}\n')
    if accepted:
        assert load(file, environ={}).ci is not None
        return
    with pytest.raises(ConfigError, match="vouches for the jobs of everybody"):
        load(file, environ={})
