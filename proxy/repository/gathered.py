"""A small file that is delivered into memory, and looked at before anybody sees a byte of it."""

from __future__ import annotations

import hashlib

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from proxy.errors import Attempted, DigestMismatch
from proxy.interfaces import IOffload, ISink
from proxy.model import Digest, FileFacts
from proxy.settings import KIB

#: Data up to this size (bytes) is hashed, and read from memory, where it is needed (50 µs): a worker thread costs more.
FEW_BYTES = 32 * KIB


@implementer(ISink)
class Gathered:
    """What is called *name*, of at most *limit* bytes; *expected* is the digest its page states, ``None``: it states none."""

    def __init__(self, name: str, expected: Digest | None, limit: int, offload: IOffload) -> None:
        self.data = b""
        self.released = 0
        self._name = name
        self._expected = expected
        self._limit = limit
        self._offload = offload
        self._total: int | None = None
        self._chunks: list[bytes] = []
        self.offset = 0

    def begin(self, facts: FileFacts) -> None:
        if facts.size is not None:
            if self._total is not None and self._total != facts.size:
                raise ValueError(f"size was {self._total:,} bytes and is now said to be {facts.size:,}")
            self._total = facts.size
            self._check(facts.size)

    def write(self, data: bytes) -> None:
        self.offset += len(data)
        self._check(self.offset)
        self._chunks.append(data)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise ValueError(f"more than {self._limit:,} bytes")

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Nobody has to pause: all of it fits."""

    def unregisterProducer(self) -> None:
        """See :meth:`registerProducer`."""

    async def finish(self, *, framed: bool = True) -> None:
        if self._total is not None and self._total != self.offset:
            raise ValueError(f"ended at {self.offset:,} of {self._total:,} bytes")
        if not framed and self._total is None and self._expected is None:
            raise ValueError(f"ended with its connection after {self.offset:,} bytes, it may be cut off")
        data = b"".join(self._chunks)
        if self._expected is not None and not await matching(data, self._expected, self._offload):
            reason = f"sent {len(data):,} bytes without the {self._expected.algorithm} that the page states"
            raise DigestMismatch(self._name, [Attempted("upstream", reason, 0.0)])
        self.data = data

    async def restart(self) -> None:
        self._chunks.clear()
        self.offset = 0
        self._total = None


async def matching(data: bytes, digest: Digest, offload: IOffload) -> bool:
    """Whether *data* has this *digest*."""
    return _matches(data, digest) if len(data) <= FEW_BYTES else await offload.run(_matches, data, digest)


def _matches(data: bytes, digest: Digest) -> bool:
    return hashlib.new(digest.algorithm, data, usedforsecurity=False).hexdigest() == digest.hex
