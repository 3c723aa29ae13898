"""The values the whole house speaks in: pages, files, digests, records and their outcomes.

Nothing here performs I/O or knows a clock.  Times are seconds since the epoch (``float``), sizes are bytes (``int``).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from proxy.representing import repr_without

EMPTY: Mapping[str, Any] = MappingProxyType({})

#: Digest algorithms from the one to trust most to the one to trust least (all of :mod:`hashlib`'s guaranteed set that
#: indexes publish).  A file's identity is the first of these that its page states.
ALGORITHMS = (
    *("sha256", "sha512", "sha384", "blake2b", "sha3_256", "sha3_512", "sha3_384", "blake2s"),
    *("sha224", "sha3_224", "sha1", "md5"),
)

#: Hex digits of a digest of each algorithm.
DIGEST_LENGTHS = {name: 2 * hashlib.new(name, usedforsecurity=False).digest_size for name in ALGORITHMS}

#: The hashes of a file whose page states digests, but none that can be one: its bytes can never be verified.
IMPOSSIBLE: Mapping[str, str] = MappingProxyType({})


class Digest(Struct, frozen=True):
    """One named digest, ``hex`` in lower case."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.hex}"


class File(msgspec.Struct, frozen=True):
    """One distribution file as a project page states it (PEP 503, 592, 658, 691, 700, 714, 740).

    ``url`` is absolute.  ``yanked`` is ``False``, ``True`` or the reason.  ``core_metadata`` is ``None`` when the page says
    nothing, ``False`` when it says there is none, ``True`` or the digests of the metadata when there is.  ``extra`` holds the
    keys this proxy does not know, to be passed on as they came.

    A page has tens of thousands of them: they are made in a fraction of the time that other frozen classes take.
    """

    filename: str
    url: str
    hashes: Mapping[str, str] = EMPTY
    requires_python: str | None = None
    size: int | None = None
    upload_time: str | None = None
    yanked: bool | str = False
    core_metadata: bool | Mapping[str, str] | None = None
    provenance: str | None = None
    extra: Mapping[str, Any] = EMPTY

    @property
    def digest(self) -> Digest | None:
        """The strongest digest the page states, ``None`` when it states none."""
        return strongest(self.hashes)


class Page(Struct, frozen=True, dict=True):
    """A project page in terms of PEP 691, whatever it was written in.

    ``project`` is normalised.  ``versions`` is ``None`` on a page of version 1.0 (PEP 700 made it mandatory from 1.1 on).
    ``status`` is PEP 792's ``project-status`` mapping or ``None``.  ``extra`` holds unknown top-level keys, ``meta_extra``
    unknown keys of ``meta`` (``_last-serial`` among them).  ``unverifiable`` are the files with :data:`IMPOSSIBLE` hashes; none
    of them is in ``files``.  ``withheld`` are the versions (normalised) that had files before the hidden ones were taken out.
    """

    project: str
    files: tuple[File, ...]
    api_version: tuple[int, int] = (1, 0)
    versions: tuple[str, ...] | None = None
    status: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = EMPTY
    meta_extra: Mapping[str, Any] = EMPTY
    unverifiable: tuple[File, ...] = ()
    withheld: frozenset[str] = frozenset()

    @cached_property
    def by_name(self) -> Mapping[str, File]:
        """``files`` by file name, the first one of each."""
        return {file.filename: file for file in reversed(self.files)}


def strongest(hashes: Mapping[str, str]) -> Digest | None:
    """The digest in *hashes* to trust most, by the order of :data:`ALGORITHMS`; ``None`` when none is known."""
    for algorithm in ALGORITHMS:
        if algorithm in hashes:
            return Digest(algorithm, hashes[algorithm].lower())
    return None


class Validators(Struct, frozen=True):
    """What a conditional request for *url* at *upstream* sends (RFC 9110 section 13); meaningless to any other URL."""

    upstream: str
    url: str
    etag: str | None = None
    last_modified: str | None = None


class Head(Struct, frozen=True):
    """A record without its body: all that the freshness decision and a conditional request need.

    ``found`` is false for a remembered 404.  ``checked_at`` is when upstream last confirmed it.  ``max_age`` is upstream's own
    ``Cache-Control`` (seconds) or ``None``.  ``digest`` is the SHA-256 of the body in hex: it names this very state of the
    page.
    """

    found: bool
    upstream: str
    url: str
    checked_at: float
    digest: str = ""
    content_type: str = ""
    etag: str | None = None
    last_modified: str | None = None
    max_age: float | None = None
    serial: int | None = None
    #: PEP 792's ``project-status``, ``None`` when the page states none.
    status: str | None = None
    #: Bytes of the body, 0 in records of earlier versions.
    size: int = 0
    #: The URL that was asked, redirects not followed; empty in records of earlier versions.
    asked: str = ""

    @property
    def states_sizes(self) -> bool:
        """Whether the page can state sizes (PEP 700): JSON can."""
        return "html" not in self.content_type

    @property
    def validators(self) -> Validators:
        return Validators(self.upstream, self.place, self.etag, self.last_modified)

    @property
    def place(self) -> str:
        """The URL that its validators and its serial belong to."""
        return self.asked or self.url


def body_digest(body: bytes) -> str:
    """The SHA-256 of a page body in hex: what :attr:`Head.digest` holds."""
    return hashlib.sha256(body).hexdigest()


class Record(Struct, frozen=True):
    """What the cache keeps of one upstream page: its head and the body in identity coding, exactly as upstream sent it."""

    head: Head
    body: bytes

    __repr__ = repr_without("body")


# -- what an upstream answers when it is asked for a page -----------------------------------------------------------------


class PageFound(Struct, frozen=True):
    """A new page: the record to keep, and the page it parses to (parsed already, to know that it does)."""

    record: Record
    page: Page

    __repr__ = repr_without("page")


class PageUnchanged(Struct, frozen=True):
    """304: the record with these validators still holds; ``max_age`` and ``serial`` are the newest upstream said."""

    upstream: str
    checked_at: float
    max_age: float | None
    serial: int | None


class PageMissing(Struct, frozen=True):
    """A definite 404 or 410."""

    upstream: str
    url: str
    checked_at: float


PageReply = PageFound | PageUnchanged | PageMissing


class DocumentFound(Struct, frozen=True):
    """Something that is kept beside pages, as it came.  The body is empty where it went to disk while it came."""

    record: Record


DocumentReply = DocumentFound | PageUnchanged | PageMissing


class Condition(enum.Enum):
    """How an index's upstreams stand, as the freshness decision sees them.

    ``UP``: the last answers were good.  ``SUSPECT``: the last two different URLs failed, or most of the last, or an answer took
    longer than the soft deadline: nobody waits for it who has something to serve.  ``DOWN``: every breaker is open: it is
    not asked at all for now.  ``OFFLINE``: it is never asked, by the index's configuration.
    """

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    OFFLINE = "offline"


# -- files ------------------------------------------------------------------------------------------------------------------


class Wanted(Struct, frozen=True):
    """A file to be fetched: where its page says it is and what its bytes must be.

    ``digest`` is ``None`` when the page states none.  ``upstream`` is the one whose page named it; other mirrors may be asked
    for the same (``project``, ``filename``) when the digest is known.  ``companion`` is ``".metadata"`` or ``".provenance"``
    when what is wanted is that companion of ``filename`` rather than the file itself; ``url`` then names the companion.
    ``listed`` is the file as the page lists it, for what is noted of it when it is committed.
    """

    index: str
    project: str
    filename: str
    url: str
    upstream: str
    digest: Digest | None = None
    size: int | None = None
    companion: str = ""
    listed: File | None = None

    __repr__ = repr_without("listed")

    @property
    def name(self) -> str:
        return self.filename + self.companion


class FileFacts(Struct, frozen=True):
    """What upstream's headers say of a file: its size (``None``: unknown), validator and whether ranges work there."""

    size: int | None
    etag: str | None = None
    last_modified: str | None = None
    ranges: bool = False


#: The sha256 of a ledger entry that says that there is nothing: a wheel that has no readable metadata.
NO_BYTES = ""


class CommittedFile(NamedTuple):
    """A committed file in the store; ``used`` is when it was last used (seconds since the epoch)."""

    sha256: str
    size: int
    used: float


class LedgerEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known for ever of a file that was once committed under (index, project, file name), and what was known then.

    ``sha256`` (hex, or :data:`NO_BYTES`) and ``size`` are of the bytes.  ``stated`` are the digests that the page stated
    (``algorithm -> hex``), so that a later page can be held against them.  ``first_seen`` is when a page first listed the file,
    as far as that is known.  ``upload_time`` (PEP 700), ``requires_python`` and ``yanked`` (PEP 592) are as the page stated
    them at the commit, ``version`` and ``kind`` (``wheel``, ``sdist``, …) as the file name says.
    """

    sha256: str
    size: int
    stated: Mapping[str, str]
    url: str
    committed_at: float
    first_seen: float | None = None
    upload_time: str | None = None
    version: str | None = None
    kind: str | None = None
    requires_python: str | None = None
    yanked: bool | str = False
    gone_at: float | None = None


# -- versioned records ------------------------------------------------------------------------------------------------------


class Versioned(NamedTuple):
    """A record as it was read.  ``version`` is another number after each change, and never one that it had before."""

    key: str
    value: bytes
    version: int


class Change(Struct, frozen=True):
    """A record to be written, or with ``value`` ``None`` removed.

    ``expects`` is the version that it must have now (0: it must not be there), or ``None`` when that does not matter.  Until
    ``expires`` (seconds since the epoch, ``None``: for ever) it is there, and no longer.
    """

    key: str
    value: bytes | None
    expects: int | None = None
    expires: float | None = None
