"""Credentials as clients send them, and the users who have them."""

from __future__ import annotations

import base64
from pathlib import Path

from proxy.accounts.passwords import HashingCost, hashed

#: Of hashes in tests, which are no secrets: some microseconds in place of the milliseconds that make guessing slow.
QUICK = HashingCost(memory=8, passes=1, lanes=1)


def basic(user: str, password: str, encoding: str = "utf-8") -> str:
    """The value of ``Authorization`` for *user* with *password*."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode(encoding)).decode()}"


def write_users(path: Path, *names: str, **passwords: str) -> Path:
    """Write a file of users: *names*, whose passwords are these with ``!``, and others by *passwords*.  Returns *path*."""
    users = {**{name: f"{name}!" for name in names}, **passwords}
    path.write_text("".join(f"{name}:{hashed(each.encode(), QUICK)}\n" for name, each in users.items()), "utf-8")
    return path
