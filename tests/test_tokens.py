"""Tokens as text: what is one, what proves it, and that who narrows one never widens it."""

from __future__ import annotations

import os

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.credentials import PasswordLogin, TokenLogin, login_of
from proxy.access.principals import Principal, PrincipalKind
from proxy.access.rights import Access, GrantedRights
from proxy.access.roles import ALL, Extent, Permission, Role, Scope
from proxy.access.tokens import (
    LONGEST,
    PREFIX,
    BadToken,
    Block,
    Confinement,
    Token,
    confinements,
    is_token,
    narrowed,
    new_token,
    read_token,
)
from tests.support.logins import basic

TOKEN, KEY = new_token(bytes(range(40)))
OTHER, OTHER_KEY = new_token(bytes(range(40, 80)))
ACME = Confinement(projects=("acme-*",))
WEB = Confinement(projects=("*-web",), expires=2_000_000_000.0)


def test_a_token_survives_its_text() -> None:
    text = str(TOKEN)
    assert text.startswith(PREFIX)
    assert is_token(text)
    assert read_token(text) == TOKEN
    assert confinements(read_token(text), KEY) == []
    assert TOKEN.private.hex() not in repr(TOKEN)


def test_what_proves_a_token_is_no_part_of_it() -> None:
    assert KEY not in TOKEN.private
    with pytest.raises(BadToken, match="not what was issued"):
        confinements(OTHER, KEY)
    # What is stored is not enough to log in.
    with pytest.raises(BadToken, match="not what was issued"):
        confinements(Token(TOKEN.id, KEY), KEY)


def test_who_has_a_token_narrows_it_again_and_again_without_the_server() -> None:
    once = read_token(str(narrowed(TOKEN, ACME, os.urandom(32))))
    twice = read_token(str(narrowed(once, WEB, os.urandom(32))))
    assert confinements(once, KEY) == [ACME]
    assert confinements(twice, KEY) == [ACME, WEB]
    assert once.id == twice.id == TOKEN.id
    for each in (once, twice):
        assert TOKEN.private not in each.private + b"".join(block.signed for block in each.blocks)


def forged(token: Token, confinement: Confinement) -> Block:
    """The last block of *token*, permitting something else."""
    last = token.blocks[-1]
    return Block(last.key + msgspec.json.encode(confinement), last.signature)


NARROW = narrowed(narrowed(TOKEN, ACME, bytes(32)), WEB, bytes(range(32)))


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("without its blocks", Token(NARROW.id, NARROW.private)),
        ("without the last block", Token(NARROW.id, NARROW.private, NARROW.blocks[:1])),
        ("without the first block", Token(NARROW.id, NARROW.private, NARROW.blocks[1:])),
        ("with its blocks in another order", Token(NARROW.id, NARROW.private, NARROW.blocks[::-1])),
        ("with another block", Token(NARROW.id, NARROW.private, (NARROW.blocks[0], forged(NARROW, Confinement())))),
        ("under another id", Token(OTHER.id, NARROW.private, NARROW.blocks)),
        ("with the key of another", Token(NARROW.id, OTHER.private, NARROW.blocks)),
    ],
)
def test_a_narrowed_token_that_was_changed_proves_nothing(why: str, changed: Token) -> None:
    with pytest.raises(BadToken, match="not what was issued"):
        confinements(read_token(str(changed)), KEY)


def test_a_block_that_cannot_be_understood_is_no_permission() -> None:
    signed = KEY + b'{"projects":["acme-*"],"except":["acme-web"]}'
    key = Ed25519PrivateKey.from_private_bytes(TOKEN.private)
    block = Block(signed, key.sign(b"pypiproxy token block 1\0" + TOKEN.id.encode() + b"\0" + signed))
    with pytest.raises(BadToken, match="cannot be understood"):
        confinements(Token(TOKEN.id, TOKEN.private, (block,)), KEY)


def test_a_token_is_not_narrowed_until_no_header_takes_it() -> None:
    token = TOKEN
    with pytest.raises(BadToken, match="narrowed too often"):  # noqa: PT012  # each step makes the next one
        while True:
            token = narrowed(token, ACME, os.urandom(32))
    assert len(token.blocks) >= 8
    assert len(str(token)) <= LONGEST


@given(st.data())
def test_a_text_with_any_other_character_is_no_token(data: st.DataObject) -> None:
    text = str(NARROW)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcxyz27ABC_-. \n").filter(lambda each: each != text[place]))
    changed = text[:place] + other + text[place + 1 :]
    assert not is_token(changed)
    assert not is_token(text[:place])


@given(st.one_of(st.text(max_size=200), st.builds(lambda rest: PREFIX + rest, st.text(max_size=200))))
def test_other_text_is_no_token(text: str) -> None:
    assert not is_token(text)
    with pytest.raises(BadToken):
        read_token(text)


# -- narrowing never widens ----------------------------------------------------------------------------------------------------

patterns = st.sampled_from([(ALL,), ("acme-*",), ("*-web", "six"), ("acme-web",)])
confined = st.builds(Confinement, st.sampled_from([(ALL,), ("internal",)]), patterns)


@given(st.sampled_from(Role), patterns, st.lists(confined, max_size=3), confined, st.sampled_from(Permission))
def test_a_holder_narrows_and_never_widens(
    role: Role, projects: tuple[str, ...], before: list[Confinement], added: Confinement, permission: Permission
) -> None:
    rights = GrantedRights()

    def allowed(token: Token) -> set[tuple[str, str]]:
        own = (Scope(role, Extent(("internal",), projects)),)
        extents = tuple(each.extent for each in confinements(token, KEY))
        who = Principal(PrincipalKind.TOKEN, token.id, user="ci", own=own, narrowed=extents)
        asked = [(index, project) for index in ("internal", "pypi") for project in ("acme-web", "acme-ci", "six")]
        return {each for each in asked if rights.may(who, permission, *each) is Access.ALLOWED}

    token = TOKEN
    for each in before:
        token = narrowed(token, each, os.urandom(32))
    narrower = read_token(str(narrowed(token, added, os.urandom(32))))
    assert allowed(narrower) <= allowed(token) <= allowed(TOKEN)


# -- the field Authorization ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "login"),
    [
        (basic("alice", "secret"), PasswordLogin("alice", b"secret")),
        (basic("alice", "a:b:c"), PasswordLogin("alice", b"a:b:c")),
        (basic("alice", ""), PasswordLogin("alice", b"")),
        (basic("", "x"), PasswordLogin("", b"x")),
        (basic("alice", "pässword"), PasswordLogin("alice", "pässword".encode())),
        (basic("alice", "pässword", "latin-1"), PasswordLogin("alice", "pässword".encode())),
        (basic("a", "b").replace("Basic", "bAsIc"), PasswordLogin("a", b"b")),
        (basic("__token__", str(TOKEN)), TokenLogin(str(TOKEN))),
        (basic("whoever", str(NARROW)), TokenLogin(str(NARROW))),
        (f"Bearer {TOKEN}", TokenLogin(str(TOKEN))),
        (f"bearer  {TOKEN} ", TokenLogin(str(TOKEN))),
        (f"Bearer {str(TOKEN)[:-1]}", None),
        ("Bearer secret", None),
        (f"Token {TOKEN}", None),
        ("Basic", None),
        ("Basic ", None),
        ("Basic YWxpY2U=", None),  # no colon
        ("Basic YWxpY2U6c2VjcmV0!", None),
        ("Basic YWxp Y2U6c2Vj", None),
        ('Digest username="alice"', None),
        (basic("alice", "x" * 1025), None),
        (basic("a" * 1025, "x"), None),
        ("", None),
    ],
)
def test_what_the_field_says(value: str, login: object) -> None:
    assert login_of(value.encode("latin-1")) == login


@given(st.binary(max_size=300))
def test_whatever_the_field_says_it_is_understood_or_not(value: bytes) -> None:
    for each in (value, b"Basic " + value, b"Bearer " + value):
        login_of(each)
