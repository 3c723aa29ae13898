"""The stylesheet and the script of the dashboard, served below ``/-/static/`` under names that change with their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct

from proxy.errors import NotFound
from proxy.web.answers import Answer, Ask

_DIRECTORY = Path(__file__).with_name("static")
_TYPES = {"dashboard.css": "text/css; charset=utf-8", "dashboard.js": "text/javascript; charset=utf-8"}


class Asset(Struct, frozen=True):
    """A file with its media type and a digest of its bytes."""

    media: str
    digest: str
    data: bytes


class Assets:
    """The files, which are few and small, in memory."""

    def __init__(self) -> None:
        self._assets = {name: _read(name, media) for name, media in _TYPES.items()}

    def path(self, name: str) -> str:
        """Where *name* is served, below ``/``."""
        return f"-/static/{self._assets[name].digest}/{name}"

    def answer(self, digest: str, name: str, ask: Ask) -> Answer:
        """The answer to *ask*, for the file *name* with that *digest*.  Raises NotFound."""
        asset = self._assets.get(name)
        if asset is None or digest != asset.digest:
            raise NotFound(f"there is no such file: {', '.join(self.path(each) for each in self._assets)}")
        headers = [
            ("Content-Type", asset.media),
            ("Cache-Control", "public, max-age=31536000, immutable"),
            ("ETag", f'"{asset.digest}"'),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if f'"{asset.digest}"' in (ask.header("if-none-match") or ""):
            return Answer(304, headers[1:])
        return Answer(200, headers, asset.data)


def _read(name: str, media: str) -> Asset:
    data = (_DIRECTORY / name).read_bytes()
    return Asset(media, hashlib.sha256(data).hexdigest()[:16], data)
