"""ID tokens: which are accepted, with which keys, and what the others fail with."""

from __future__ import annotations

import base64
import json
import time
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from proxy.identity.idtokens import LEEWAY, LONGEST, BadIdToken, stated, verified
from proxy.identity.keys import ALGORITHMS, read_discovery, read_keys
from tests.support.issuer import FakeIssuer, rsa_key

ISSUER = FakeIssuer()
NOW = int(time.time())
EC = ECKey.generate_key("P-256", {"kid": "e"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "o"})


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer's clock stands still, however long other tests take."""
    monkeypatch.setattr(ISSUER, "clock", lambda: float(NOW))


def rsa() -> RSAKey:
    return rsa_key("r")


def weak() -> RSAKey:
    """A key that can be factored, as the library says too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return rsa_key("weak", 1024)


def claims_of(token: str, key: Key | None = None, audience: str = "pypiproxy", now: float = NOW) -> Any:
    return verified(token, stated(token), key or ISSUER.key, audience, now)


def is_accepted(token: str) -> bool:
    try:
        claims_of(token)
    except BadIdToken:
        return False
    return True


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def test_a_token_of_its_issuer_is_accepted() -> None:
    for key in (rsa(), EC, OKP):
        claims = claims_of(ISSUER.token(key=key), key)
        assert claims["repository"] == "acme/widgets"
        assert claims["iss"] == ISSUER.url


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name[:2] in ("RS", "PS")])
def test_every_algorithm_of_rsa_is_accepted(algorithm: str) -> None:
    assert claims_of(ISSUER.token(key=rsa(), header={"alg": algorithm}), rsa())["sub"] == ISSUER.claims["sub"]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"aud": "pypi"}, "is not for this proxy"),
        ({"aud": ["pypi", "other"]}, "is not for this proxy"),
        ({"aud": "pypiprox"}, "is not for this proxy"),
        ({"aud": []}, "is not for this proxy"),
        ({"aud": None}, "lacks what has to be in it: aud"),
        ({"exp": NOW - LEEWAY}, "has expired"),
        ({"exp": None}, "lacks what has to be in it: exp"),
        ({"exp": "tomorrow"}, "a claim that cannot be right: exp"),
        ({"exp": True}, "a claim that cannot be right: exp"),
        ({"nbf": NOW + LEEWAY + 1}, "is not valid yet"),
        ({"iat": NOW + LEEWAY + 1}, "is not valid yet"),
        ({"iat": None}, "lacks what has to be in it: iat"),
        ({"sub": None}, "lacks what has to be in it: sub"),
        ({"sub": 1}, "a claim that cannot be right: sub"),
    ],
)
def test_claims_that_are_not_for_here_and_now_are_refused(claims: dict[str, object], said: str) -> None:
    with pytest.raises(BadIdToken, match=said) as refused:
        claims_of(ISSUER.token(claims))
    assert refused.value.code == "invalid-token"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", "pypiproxy"]},
        {"exp": NOW - LEEWAY + 1},
        {"exp": NOW + 0.5},
        {"nbf": NOW + LEEWAY},
        {"iat": NOW + LEEWAY},
        {"nbf": None},
        {"validate_exp": 1, "options": {}, "now": 0},
    ],
)
def test_clocks_may_differ_a_little(claims: dict[str, object]) -> None:
    assert claims_of(ISSUER.token(claims))


def test_a_token_is_good_for_its_time_alone() -> None:
    token = ISSUER.token({"iat": 1000, "nbf": 1000, "exp": 1300})
    assert claims_of(token, now=1000)
    assert claims_of(token, now=1300 + LEEWAY - 1)
    for now in (1000 - LEEWAY - 1, 1300 + LEEWAY):
        with pytest.raises(BadIdToken):
            claims_of(token, now=now)


def forged() -> dict[str, str]:
    """Tokens that their issuer has not signed."""
    head, payload, signature = ISSUER.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other = rsa_key("first")
    public = ISSUER.key.as_pem(private=False)  # type: ignore[union-attr]  # an RSA key has that
    shared = OctKey.import_key(base64.b64encode(public))
    return {
        "of another key": ISSUER.token(key=other),
        "with other claims": f"{head}.{part({**claims, 'repository': 'acme/other'})}.{signature}",
        "with another head": f"{part({'alg': 'RS512', 'kid': 'first'})}.{payload}.{signature}",
        "with half a signature": f"{head}.{payload}.{signature[:100]}",
        "unsigned": f"{part({'alg': 'none'})}.{payload}.AAAA",
        "with the public key as a secret": jws.serialize_compact({"alg": "HS256", "kid": "first"}, json.dumps(claims), shared),
        "with demands": f"{part({'alg': 'RS256', 'crit': ['x'], 'x': 1})}.{payload}.{signature}",
    }


def test_a_token_that_its_issuer_has_not_signed_is_refused() -> None:
    assert [how for how, token in forged().items() if is_accepted(token)] == []
    assert is_accepted(ISSUER.token())


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "RS1", "", "EdDSA"])
def test_algorithms_that_prove_nothing_are_not_looked_at(algorithm: str) -> None:
    token = f"{part({'alg': algorithm})}.{part({'iss': ISSUER.url})}.AAAA"
    with pytest.raises(BadIdToken) as refused:
        stated(token)
    assert refused.value.code == "invalid-algorithm"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        f"{part([])}.{part({'iss': 'x'})}.AAAA",
        f"{part({'alg': 'RS256'})}.{part([1])}.AAAA",
        f"{part({'alg': 'RS256'})}.{part({})}.AAAA",
        f"{part({'alg': 'RS256'})}.{part({'iss': 1})}.AAAA",
        f"{part({'alg': 'RS256', 'kid': 1})}.{part({'iss': 'x'})}.AAAA",
        f"{part(b'[' * 5000)}.{part({'iss': 'x'})}.AAAA",
        f"{part(bytes([255]))}.{part({'iss': 'x'})}.AAAA",
        "A" * (LONGEST + 1),
        ISSUER.token(key=EC) + "\n",
        ISSUER.token(key=EC) + "=",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadIdToken) as refused:
        stated(token)
    assert refused.value.code == "invalid-payload"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(), lambda each: st.lists(each), max_leaves=5
)
_members = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "iss", "aud", "exp", "sub", "jwk"]), _json)


@given(_members, _members, st.binary(max_size=50))
def test_no_token_does_harm(head: dict[str, Any], payload: dict[str, Any], signature: bytes) -> None:
    token = f"{part({'alg': 'RS256', **head})}.{part({'iss': 'x', **payload})}.{part(signature)}"
    with pytest.raises(BadIdToken):
        claims_of(token)


@given(_members)
def test_whatever_an_issuer_signs_is_accepted_or_refused(claims: dict[str, Any]) -> None:
    token = jws.serialize_compact({"alg": "ES256"}, json.dumps({"iss": "x", "exp": NOW, **claims}), EC)
    try:
        found = claims_of(token, EC)
    except BadIdToken:
        return
    assert found["aud"] == "pypiproxy" or "pypiproxy" in found["aud"]


# -- keys --------------------------------------------------------------------------------------------------------------------


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": [each if isinstance(each, dict) else each.as_dict(private=False) for each in keys]}).encode()  # type: ignore[attr-defined]


def test_keys_are_found_by_name_and_algorithm() -> None:
    keys = read_keys(key_set(rsa(), EC, OKP))
    assert keys.find("r", "PS512") == keys.usable[0]
    assert keys.find("e", "ES256") == keys.usable[1]
    assert keys.find("o", "Ed25519") == keys.usable[2]
    assert keys.find("e", "ES384") is None
    assert keys.find("e", "RS256") is None
    assert keys.find("r2", "RS256") is None


def test_a_token_without_a_key_name_is_of_the_only_key_that_fits() -> None:
    second = rsa_key("s")
    assert read_keys(key_set(rsa(), EC)).find(None, "RS256") is not None
    assert read_keys(key_set(rsa(), EC, second)).find(None, "RS256") is None


def test_a_key_for_one_algorithm_is_used_for_that_alone() -> None:
    keys = read_keys(key_set({**rsa().as_dict(private=False), "alg": "RS256"}))
    assert keys.find("r", "RS256") is not None
    assert keys.find("r", "PS256") is None


@pytest.mark.parametrize(
    "key",
    [
        weak,
        {"kty": "oct", "k": "AAAA", "kid": "k"},
        {"kty": "new", "kid": "k"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 1, "e": []},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {},
        lambda: {**rsa().as_dict(private=False), "use": "enc"},
        lambda: {**rsa().as_dict(private=False), "use": "sig", "key_ops": ["encrypt"]},
        lambda: rsa().as_dict(private=True),
    ],
)
def test_what_cannot_verify_is_left_out(key: object) -> None:
    keys = read_keys(key_set(key() if callable(key) else key, EC))
    assert [each.kid for each in keys.usable] == ["e"]


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b"\xff", b"[" * 100_000])
def test_a_document_that_is_none_is_told(document: bytes) -> None:
    with pytest.raises(ValueError, match="its keys are none"):
        read_keys(document)
    with pytest.raises(ValueError, match="its discovery document is none"):
        read_discovery(document, "https://ci.example")


def test_the_discovery_document_of_another_issuer_is_refused() -> None:
    document = json.dumps({"issuer": "https://ci.example/", "jwks_uri": "https://ci.example/keys"}).encode()
    assert read_discovery(document, "https://ci.example/") == "https://ci.example/keys"
    with pytest.raises(ValueError, match=r"that of 'https://ci\.example/'"):
        read_discovery(document, "https://ci.example")
