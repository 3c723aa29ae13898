"""Forms of uploads, as tools send them: their fields, and the bytes that these amount to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from tests.support.wheels import Distribution

BOUNDARY = "76a0b3fc8e5246e1"
#: One field: its name, its file name if it has one, and its value.
Field = tuple[str, str | None, bytes]


def text(name: str, value: str) -> Field:
    return (name, None, value.encode())


class Form(Struct, frozen=True):
    """A form with *fields* in their order, between lines of *boundary*."""

    fields: tuple[Field, ...]
    boundary: str = BOUNDARY

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def body(self) -> bytes:
        """As requests, and so twine and poetry, write it."""
        parts = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (self.boundary.encode(), _head(each), each[2]) for each in self.fields]
        return b"".join([*parts, f"--{self.boundary}--\r\n".encode()])

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.fields]

    def without(self, *names: str) -> Form:
        return replace(self, fields=tuple(each for each in self.fields if each[0] not in names))

    def replaced(self, **values: str) -> Form:
        """With other values; one underscore at the beginning of a name stands for a colon."""
        named = {f":{name[1:]}" if name.startswith("_") else name: value for name, value in values.items()}
        missing = tuple(text(name, value) for name, value in named.items() if name not in self.names)
        kept = tuple((each[0], each[1], named[each[0]].encode()) if each[0] in named else each for each in self.fields)
        return replace(self, fields=(*missing, *kept))

    def with_file(self, filename: str | None = None, data: bytes | None = None) -> Form:
        """With another name of the file, or other bytes in it."""

        def changed(each: Field) -> Field:
            if each[0] != "content":
                return each
            return (each[0], each[1] if filename is None else filename, each[2] if data is None else data)

        return replace(self, fields=tuple(map(changed, self.fields)))

    def in_order(self, order: Sequence[int]) -> Form:
        return replace(self, fields=tuple(self.fields[place] for place in order))


def _head(each: Field) -> bytes:
    name, filename, _ = each
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is None:
        return head.encode()
    return f'{head}; filename="{filename}"\r\nContent-Type: application/octet-stream'.encode()


def upload_of(made: Distribution, **values: str) -> Form:
    """What twine sends for *made*, with *values* besides or instead."""
    is_wheel = made.filename.endswith(".whl")
    _, version = made.filename.removesuffix(".tar.gz").split("-")[:2]
    fields = [
        text("name", made.project),
        text("version", version),
        text("filetype", "bdist_wheel" if is_wheel else "sdist"),
        text("pyversion", "py3" if is_wheel else "source"),
        text("metadata_version", "2.1"),
        text("summary", "made for a test"),
        *(text("classifiers", f"Topic :: {topic}") for topic in ("Internet", "Utilities")),
        text("md5_digest", hashlib.md5(made.data, usedforsecurity=False).hexdigest()),
        text("sha256_digest", made.sha256),
        text("blake2_256_digest", hashlib.blake2b(made.data, digest_size=32).hexdigest()),
        text(":action", "file_upload"),
        text("protocol_version", "1"),
        ("content", made.filename, made.data),
    ]
    return Form(tuple(fields)).replaced(**values)


def distutils_body(made: Distribution) -> tuple[str, bytes]:
    """Content type and body of what the command ``upload`` of distutils and of setuptools before 72 sends for *made*.

    It begins with an empty line, and MD5 is in the base64 of URLs, as ``pypi.python.org`` had it.
    """
    boundary = "--------------GHSKFJDLGDS7543FJKLFHRE75642756743254"
    _, version = made.filename.removesuffix(".tar.gz").split("-")[:2]
    md5 = base64.urlsafe_b64encode(hashlib.md5(made.data, usedforsecurity=False).digest()).rstrip(b"=").decode()
    fields: list[tuple[str, str | tuple[str, bytes]]] = [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("name", made.project),
        ("version", version),
        ("content", (made.filename, made.data)),
        ("filetype", "sdist"),
        ("pyversion", ""),
        ("md5_digest", md5),
        ("metadata_version", "1.0"),
        ("home_page", "UNKNOWN"),
        ("requires_python", "UNKNOWN"),
        ("classifiers", "Topic :: Internet"),
        ("classifiers", "Topic :: Utilities"),
        ("comment", ""),
    ]
    body = b""
    for name, value in fields:
        title = f'\r\nContent-Disposition: form-data; name="{name}"'
        data = value if isinstance(value, str) else value[1]
        if not isinstance(value, str):
            title += f'; filename="{value[0]}"'
        body += b"\r\n--" + boundary.encode() + title.encode() + b"\r\n\r\n"
        body += data.encode() if isinstance(data, str) else data
    body += b"\r\n--" + boundary.encode() + b"--\r\n"
    return f"multipart/form-data; boundary={boundary}", body
