"""Users whom a reverse proxy states: who is read from its headers, and who is nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.principals import ANONYMOUS, Principal, PrincipalKind
from proxy.access.stated import StatedUsers

STATED = StatedUsers("X-Remote-User", "X-Remote-Groups")


def head(*fields: str) -> bytes:
    return "\r\n".join(["GET /simple/ HTTP/1.1", "Host: proxy.example", *fields, "", ""]).encode()


def user(name: str, *groups: str) -> Principal:
    return Principal(PrincipalKind.USER, name, groups=frozenset(groups))


@pytest.mark.parametrize(
    ("fields", "principal"),
    [
        (["X-Remote-User: alice"], user("alice")),
        (["x-remote-user:alice"], user("alice")),
        (["X-REMOTE-USER:\t alice \t"], user("alice")),
        (["X-Remote-User: alice@corp.example"], user("alice@corp.example")),
        (["X-Remote-User: alice", "X-Remote-Groups: web"], user("alice", "web")),
        (["X-Remote-Groups: Web Developers, admins ,,", "X-Remote-User: alice"], user("alice", "Web Developers", "admins")),
        (["X-Remote-User: alice", "X-Remote-Groups: Bürö"], user("alice", "Bürö")),
        (["X-Remote-User: alice", "X-Remote-Groups:"], user("alice")),
        ([], ANONYMOUS),
        (["X-Remote-User:"], ANONYMOUS),
        (["X-Remote-User: -"], ANONYMOUS),
        (["X-Remote-User: two words"], ANONYMOUS),
        (["X-Remote-User: alice, bob"], ANONYMOUS),
        (["X-Remote-User: ../alice"], ANONYMOUS),
        (["X-Remote-User: user:alice"], ANONYMOUS),
        (["X-Remote-User: " + "a" * 1000], ANONYMOUS),
        (["X-Remote-Groups: web"], ANONYMOUS),
        # what a client sent, and what the proxy added
        (["X-Remote-User: alice", "X-Remote-User: bob"], ANONYMOUS),
        (["X-Remote-User: bob", "x-remote-user: bob"], ANONYMOUS),
        (["X-Remote-User: alice", "X-Remote-Groups: web", "X-Remote-Groups: admins"], ANONYMOUS),
        (["X_Remote_User: alice"], ANONYMOUS),
        (["X-Remote-Users: alice"], ANONYMOUS),
        (["Not-X-Remote-User: alice"], ANONYMOUS),
        (["Comment: X-Remote-User: alice"], ANONYMOUS),
    ],
)
def test_a_user_is_who_one_header_states(fields: list[str], principal: Principal) -> None:
    assert STATED.principal(head(*fields)) == principal


def test_groups_are_read_if_there_is_a_header_for_them() -> None:
    fields = head("X-Remote-User: alice", "X-Remote-Groups: web")
    assert StatedUsers("X-Remote-User", None).principal(fields) == user("alice")


@given(st.binary(max_size=60).filter(lambda value: b"\r" not in value and b"\n" not in value))
def test_no_header_does_harm(value: bytes) -> None:
    principal = STATED.principal(b"GET / HTTP/1.1\r\nX-Remote-User:" + value + b"\r\nX-Remote-Groups:" + value + b"\r\n\r\n")
    assert principal.is_anonymous or principal.name.encode() == value.strip(b" \t")
