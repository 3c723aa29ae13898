"""Values do not show what is secret where they are printed."""

from __future__ import annotations

from msgspec import Struct

from proxy.access.credentials import PasswordLogin
from proxy.representing import repr_without
from proxy.settings import UpstreamSettings


class Letter(Struct, frozen=True):
    to: str
    seal: bytes
    text: str = "hello"

    __repr__ = repr_without("seal", "text")


class Reply(Letter, frozen=True):
    about: str = ""


def test_what_is_hidden_is_not_shown_and_the_rest_is() -> None:
    assert repr(Letter("me", b"red")) == "Letter(to='me')"
    assert repr([Reply("me", b"red", about="it")]) == "[Reply(to='me', about='it')]"


def test_what_is_hidden_counts_when_values_are_compared() -> None:
    assert Letter("me", b"red") != Letter("me", b"blue")
    assert Letter("me", b"red") == Letter("me", b"red")


def test_settings_and_logins_do_not_show_passwords() -> None:
    upstream = UpstreamSettings(name="corp", url="https://corp.example/simple/", password="hunter2", token="hunter3")
    shown = f"{upstream!r} {PasswordLogin('me', b'hunter4')!r}"
    assert "corp.example" in shown
    assert "hunter" not in shown
