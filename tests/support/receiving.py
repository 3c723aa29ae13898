"""An index in memory that takes uploads: the smallest one, which keeps what the port promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from msgspec import Struct, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from proxy.core.uploads import BLAKE2B_256, Uploaded, UploadForm
from proxy.errors import BadUpload, FileExists, StorageFailed, TooMuch
from proxy.interfaces import IIncoming, IReceiving

_HASHES: dict[str, Callable[[bytes], str]] = {
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    BLAKE2B_256: lambda data: hashlib.blake2b(data, digest_size=32).hexdigest(),
}


@implementer(IReceiving)
class Shop(Struct):
    """Takes files into memory.  *largest* are the bytes that it may have, *room* those that its disk takes in all."""

    name: str = "internal"
    takes_uploads: bool = True
    largest: int | None = None
    room: int | None = None
    #: What was taken, who sent it, and its form, by file name.
    files: dict[str, bytes] = field(default_factory=dict)
    sent_by: dict[str, str] = field(default_factory=dict)
    forms: dict[str, UploadForm] = field(default_factory=dict)
    #: What the uploader of a project should know.
    remarks: dict[str, str] = field(default_factory=dict)
    #: What was begun and has not ended.
    under_way: list[Arriving] = field(default_factory=list)
    #: The requests that were begun, by what is known of them then.
    begun: list[tuple[str | None, int | None]] = field(default_factory=list)
    #: What a write, and what a file that is complete, waits for.
    writing: Deferred[None] | None = None
    adding: Deferred[None] | None = None

    async def begin(self, filename: str | None, length: int | None) -> IIncoming:
        self.begun.append((filename, length))
        if self.largest is not None and length is not None and length > self.largest:
            raise TooMuch(f"the index {self.name} may have {self.largest} bytes")
        self.under_way.append(Arriving(self))
        return self.under_way[-1]

    def remark(self, project: str) -> str | None:
        return self.remarks.get(project)


@implementer(IIncoming)
class Arriving(Struct, eq=False):
    """One file on its way into *shop*."""

    shop: Shop
    data: bytearray = field(default_factory=bytearray)
    #: The longest piece that was written at once.
    longest: int = 0
    busy: bool = False

    @property
    def size(self) -> int:
        return len(self.data)

    async def write(self, data: bytes) -> None:
        assert not self.busy, "the next call waits for the one before"
        if self.shop.writing is not None:
            self.busy = True
            await self.shop.writing
            self.busy = False
        if self.shop.room is not None and self.size + len(data) > self.shop.room:
            raise StorageFailed("there is no room in the data directory: No space left on device")
        if self.shop.largest is not None and self.size + len(data) > self.shop.largest:
            raise TooMuch(f"the index {self.shop.name} may have {self.shop.largest} bytes")
        self.data += data
        self.longest = max(self.longest, len(data))

    async def accept(self, form: UploadForm, by: str) -> Uploaded:
        assert not self.busy, "the next call waits for the one before"
        if self.shop.adding is not None:
            await self.shop.adding
        data = bytes(self.data)
        for algorithm, stated in form.digests.items():
            if (found := _HASHES[algorithm](data)) != stated:
                raise BadUpload(f"{form.filename} has the {algorithm} {found}, and the form states {stated}")
        there = self.shop.files.get(form.filename)
        if there is not None and there != data:
            raise FileExists(f"{form.filename} is on the index {self.shop.name} with other bytes")
        self.shop.files[form.filename] = data
        self.shop.forms[form.filename] = form
        self.shop.sent_by.setdefault(form.filename, by)
        return Uploaded.NEW if there is None else Uploaded.SAME

    async def discard(self) -> None:
        assert not self.busy, "the next call waits for the one before"
        if self in self.shop.under_way:
            self.shop.under_way.remove(self)
