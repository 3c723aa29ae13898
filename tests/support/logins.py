"""Credentials as clients send them."""

from __future__ import annotations

import base64


def basic(user: str, password: str, encoding: str = "utf-8") -> str:
    """The value of ``Authorization`` for *user* with *password*."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode(encoding)).decode()}"
