"""The ports: what each floor asks of the one below, so that every part can be replaced and tested on its own.

Methods written ``async`` return coroutines and never block the reactor.  Methods that block say so and are called in a worker
thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IPushProducer
from zope.interface import Attribute, Interface

from proxy.access.jobs import Job, Minted
from proxy.access.principals import DirectoryUser, Principal
from proxy.core.agents import Agent
from proxy.core.audited import Audited
from proxy.core.cache_status import CacheStatus
from proxy.core.claims import NameClaim, Reservation
from proxy.core.events import Answered, Event
from proxy.core.uploads import Uploaded, UploadForm
from proxy.core.views import DocumentName, DocumentView, Moment, PageView
from proxy.core.visits import Subject
from proxy.model import Change, CommittedFile, Condition, DocumentReply, FileFacts, PageReply, Validators, Versioned, Wanted
from proxy.simple.media import MediaType

T = TypeVar("T")

#: Told what a long operation wants to say on its way, as a value that JSON can carry.
Report = Callable[[object], None]

#: What operators may ask for: called with a :data:`Report` and its arguments by name; returns a value that JSON can carry.
Operation = Callable[..., Awaitable[object]]


class Clock(Protocol):
    """Wall time in seconds since the epoch, which may be set: ``time.time`` in production, ``task.Clock().seconds`` in tests.

    Never for what is measured: that goes by ``reactor.seconds`` (:mod:`proxy.mechanism.clocks`).
    """

    def __call__(self) -> float: ...


#: Takes in a body of unknown size: given its Content-Type and what reads its next chunk (``b""`` at the end), it returns its
#: SHA-256 in hex and the serial it states.  Raises ValueError when it is not what it should be.
Receive = Callable[[str, Callable[[], Awaitable[bytes]]], Awaitable[tuple[str, int | None]]]


class IHolding(Interface):
    """A share of memory."""

    size: int = Attribute("Bytes that are held.")

    async def grow(size: int) -> None:
        """Hold *size* bytes instead, once they are there.  What was held is given back meanwhile."""

    def shrink(size: int) -> None:
        """Hold no more than *size* bytes from now on."""


class IMemory(Interface):
    """Memory that is handed out in shares, so that not everything that is large is in it at once."""

    def of(size: int) -> AbstractAsyncContextManager[IHolding]:
        """A share of *size* bytes: entering waits until it is there, leaving gives it back."""

    async def take(size: int) -> IHolding:
        """The same, for who gives it back by shrinking it to nothing."""


class IOffload(Interface):
    """A bounded pool of worker threads for all that would make the reactor wait."""

    memory: IMemory = Attribute("What work on large things shares.")

    async def run(function: Callable[..., T], *args: object) -> T:
        """Run *function* in a worker thread and return what it returns.

        Cancelling the caller does not stop the function; its result is dropped.
        """

    async def run_first(function: Callable[..., T], *args: object) -> T:
        """As :meth:`run`, ahead of all that waits for a thread: for the last steps to an answer, so that it is not overtaken by
        the first steps of others.
        """


class IRecorder(Interface):
    """Is told what happens, and makes figures of it, or nothing."""

    def record(event: Event) -> None:
        """Take note of *event*.  Never waits, raises nothing, and may be called in any thread."""


class IVisits(Interface):
    """Is told what each client asked for, and how that was answered."""

    def note(event: Answered, subject: Subject, client: str, agent: Agent) -> None:
        """A request of *agent* for *subject* was answered as *event* says.  *client* is an address.

        Called for each request: it costs a dictionary store, never waits and never raises.
        """


class IRecordStore(Interface):
    """Small, mutable values by key, which survive a restart.  Values are bytes and nothing else."""

    async def get(key: str) -> bytes | None:
        """The value under *key*, or ``None``."""

    async def set(key: str, value: bytes) -> None:
        """Keep *value* under *key*; it is durable against a crash of this process when the coroutine ends."""

    async def set_all(values: Mapping[str, bytes]) -> None:
        """As :meth:`set`, of several values: a crash leaves the first of them, or all."""

    async def delete(key: str) -> bool:
        """Forget *key*; true if it was there."""

    async def keys(prefix: str) -> list[str]:
        """All keys that start with *prefix*, sorted."""

    async def close() -> None:
        """Release what the store holds.  No call may follow."""


class IVersionedRecords(Interface):
    """Records that nothing can bring back once they are lost, each with a version.

    What cannot be told for now raises StorageFailed; it never counts as missing.  Keys are text, values bytes.
    """

    async def read(key: str) -> Versioned | None:
        """The record of *key*, ``None`` if there is none, or it has expired."""

    async def scan(prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        """At most *limit* records whose keys begin with *prefix* and come after *after*, by key in the order of their code
        points.  Costs what it returns.
        """

    async def scan_all(prefixes: Sequence[str]) -> list[list[Versioned]]:
        """What :meth:`scan` finds for each of *prefixes*, asked for in one go."""

    async def branches(prefix: str) -> list[str]:
        """What follows *prefix* in keys up to the next slash, once each, sorted.  Costs what it returns."""

    async def apply(changes: Sequence[Change]) -> int | None:
        """Make all *changes*, or none of them if one expects another version than its record has.

        Returns the version that the changed records have from now on, or ``None``.  They are durable against a crash of this
        process when the coroutine ends.
        """

    async def close() -> None:
        """Release what the store holds.  No call may follow."""


class IBytesSource(Interface):
    """A file's bytes as the web floor sends them, whole or still arriving.  The holder closes it."""

    size: int | None = Attribute("Bytes in all, the same from first to last; None when that was unknown at the beginning.")
    sha256: str | None = Attribute("Digest in hex; None while unknown.")

    def fileno() -> int:
        """A descriptor for ``pread`` and ``sendfile``; valid until :meth:`close`."""

    def take_read() -> bytes | None:
        """All bytes, where opening has read them already, or they have just arrived (a small file).  Given once: a slow client
        must not keep them.  Raises StorageFailed as :meth:`confirm`.
        """

    def confine(start: int, stop: int) -> None:
        """Told before any byte is asked for: only bytes *start* to *stop* (exclusive) will be."""

    def extent() -> int:
        """The position up to which bytes may be sent from :meth:`fileno` right now."""

    def from_memory(position: int, limit: int) -> bytes:
        """Bytes at *position* that are not in the file (a full disk); ``b""`` in the ordinary case."""

    def ended() -> bool:
        """Whether nothing more will arrive.  Raises what made the download fail."""

    def advanced(position: int) -> None:
        """Told after bytes up to *position* went out."""

    def confirm() -> None:
        """Told before the last of the bytes that are asked for go out.  Raises StorageFailed when the file was written to by
        others since it was verified, so that what has gone out may be wrong.
        """

    def on_change(listener: Callable[[], None]) -> None:
        """Call *listener* once, when there is more to send, or the end has come."""

    def another() -> IBytesSource | None:
        """A source of the same bytes for somebody else, which the caller closes; ``None`` when the file has to be asked for
        again: this one is closed, the file was taken away or replaced, or nobody can be sure of it yet.  Does not block.
        """

    def close() -> None:
        """Give everything back.  May be called more than once."""


class IPartialFile(Interface):
    """A file that is still arriving.  One writer; any number of readers through :meth:`fileno`.

    All but ``fileno`` and ``close`` block and run in a worker thread, one at a time.  One of ``commit``, ``discard`` and
    ``suspend`` ends the writing; ``close`` gives the descriptor back.
    """

    size: int = Attribute("Bytes written so far; more than 0 right after `begin` when an earlier run left some.")
    marks: Mapping[int, str] = Attribute("Right after `begin`: the sha256 of the bytes up to a position, by position.")
    whole: int | None = Attribute("Right after `begin`: the size of the whole file, as far as it was known then.")

    def fileno() -> int:
        """A descriptor readers may ``pread`` from, valid until :meth:`close` (readers ``dup`` it to outlive that)."""

    def write(data: bytes) -> None:
        """Append.  Raises OSError (``ENOSPC``); what was accepted before stays readable."""

    def copy(descriptor: int, size: int) -> None:
        """Append the first *size* bytes behind *descriptor*, or as many as there are.  Raises as :meth:`write`."""

    def truncate(size: int = 0) -> None:
        """Forget what is behind the first *size* bytes."""

    def mark(sha256: str, whole: int | None) -> None:
        """Note the digest of the bytes so far, and the size of the whole file if it is known, for a later
        :meth:`IFileStore.begin` with the same key; failing is no matter.
        """

    def unchanged(descriptor: int) -> bool:
        """Whether the bytes behind *descriptor*, a duplicate, are those that were written, as far as the file system tells.

        Does not block.
        """

    def read_all() -> Iterator[bytes]:
        """The bytes so far, in chunks of at most 1 MiB (to rebuild digests when a download is resumed)."""

    def commit(sha256: str) -> None:
        """Make it the committed file *sha256*: fsync, rename, fsync of the directory.  The caller has verified the digest.

        Raises OSError, also when others have written to it.
        """

    def discard() -> None:
        """Remove it; open readers keep what they have."""

    def suspend() -> None:
        """Leave its bytes for a later :meth:`IFileStore.begin` with the same key."""

    def close() -> None:
        """Give the descriptor back; its bytes are suspended if nothing else was said.  May be called more than once."""


class IFileStore(Interface):
    """Verified files by SHA-256, one copy each.  The tree itself is the truth."""

    changes: int = Attribute("Another number after each file that was committed or removed: never one that was there before.")

    async def open(sha256: str, size: int | None = None) -> IBytesSource | None:
        """Open a committed file as an :class:`IBytesSource`, ``None`` if it is not there.

        A file that is not what its digest says, or not *size* bytes long, is not there: it is set aside.  Of a large file that
        may turn out while it is read; the source then raises StorageFailed before its end.
        """

    async def open_first(candidates: Sequence[tuple[str, int | None]]) -> IBytesSource | None:
        """As :meth:`open`, the first that is there of several, each with its sha256 and its size, if that is known."""

    async def unchecked(sha256: str) -> IBytesSource | None:
        """As :meth:`open`, whatever its bytes are: for those who check them."""

    async def present(digests: Collection[str]) -> frozenset[str]:
        """Those of *digests* (sha256) that are committed files."""

    async def unreadable(digests: Collection[str]) -> Mapping[str, str]:
        """Those of *digests* (sha256) whose files cannot be opened for reading, if they are there, each with the reason."""

    async def begin(key: str, *, resume: bool) -> IPartialFile:
        """Open the partial file *key* for writing; with *resume*, keep the bytes an earlier run left under this key.

        *key* is path-safe text (``sha256-<hex>`` or a hash of what identifies the download).  A second writer of a key that is
        being written gets a file of its own.
        """

    async def delete(sha256: str) -> bool:
        """Remove a committed file; true if it was there.  Open readers keep what they have.

        Raises StorageFailed, with its path and the reason, when it is there and cannot be removed.
        """

    async def set_aside(sha256: str, source: IBytesSource | None = None) -> None:
        """Take a committed file that is damaged out of the tree; its bytes are kept for those who want to know why.

        With *source*, only if it is still the file that was opened there.
        """

    async def walk() -> list[tuple[str, int]]:
        """(sha256, size) of every committed file."""

    async def inventory() -> list[CommittedFile]:
        """Every committed file with its size and its last use: as :meth:`touch` was told, else when it was committed."""

    async def touch(times: Mapping[str, float]) -> None:
        """Note when files (by sha256) were last used; those that are not there are passed over."""

    async def sweep() -> int:
        """Called once at start: remove partial files that cannot be resumed and nobody writes.  Returns how many went."""

    async def free() -> int:
        """Bytes that can still be stored.  Raises StorageFailed when the file system does not say."""

    async def abandon(before: float) -> int:
        """Remove partial files that nobody writes and nobody has gone on with since *before*.  Returns their bytes."""

    async def close() -> None:
        """Release what the store holds."""


class ISink(Interface):
    """Where a pool delivers one file.  The cache's spool is one; a list of chunks in tests is another.

    The pool calls :meth:`begin` for the first response, then :meth:`write` for each chunk in order, then :meth:`finish`.  When
    a connection breaks it goes on at :attr:`offset`, at the same upstream or another one; clients notice nothing.
    """

    offset: int = Attribute("Bytes accepted so far: the position the next `write` continues at.")
    released: int = Attribute("Bytes that clients may have seen already.  0 means that starting over is harmless.")

    def begin(facts: FileFacts) -> None:
        """Response headers are in.  May be called again after a resume; a size that contradicts the earlier one raises
        ValueError.
        """

    def write(data: bytes) -> None:
        """Accept *data* at :attr:`offset`.  Never blocks; asks the registered producer to pause when it falls behind."""

    def registerProducer(producer: IPushProducer, streaming: bool) -> None:
        """The transport (IPushProducer) that is delivering; as in twisted's IConsumer."""

    def unregisterProducer() -> None:
        """That transport delivers no more."""

    async def finish(*, framed: bool = True) -> None:
        """All bytes are delivered: verify and commit.  Not *framed*: the end of the connection was the only sign of the end.

        Raises :class:`proxy.errors.DigestMismatch` when they are not what the page promised (the sink is then spent unless
        :meth:`restart` is possible, which is when ``released == 0``) or :class:`ValueError` when the length is wrong.
        """

    async def restart() -> None:
        """Forget all bytes, to begin again at 0.  Only when ``released == 0``."""


class IBodyReader(Interface):
    """A body that can be read once, in order, with back-pressure."""

    facts: FileFacts = Attribute("What the headers said.")
    length: int | None = Attribute("Bytes this body will have, None when unknown.")

    async def read() -> bytes:
        """The next chunk (1 byte to 64 KiB); ``b""`` at the end.  Raises UpstreamFailed when it breaks."""

    def close() -> None:
        """Stop reading and drop the connection if the body is not at its end."""


class IUpstreams(Interface):
    """The upstreams of one proxy index, seen as one: failover, limits and health are its business."""

    def condition() -> Condition:
        """How things stand now."""

    def retry_in() -> float:
        """Seconds until the next upstream may be asked again; 0.0 when one may be asked now."""

    def spare() -> bool:
        """Whether something may be asked that no client waits for: all is well, and no request has to wait."""

    async def page(project: str, known: Validators | None) -> PageReply:
        """Ask for a project page, conditionally when *known* is of the upstream that is asked.

        Raises :class:`proxy.errors.UpstreamFailed` when none could answer (a 404 from a partial mirror is no answer) and
        :class:`proxy.errors.LoopDetected` when the only answer was our own.
        """

    async def document(path: str, known: Validators | None) -> DocumentReply:
        """Ask for the JSON document at *path* (``pypi/<project>/json``) beside the index's ``simple/``.  Raises as `page`."""

    async def companion(wanted: Wanted, known: Validators | None) -> DocumentReply:
        """Ask for a companion that may change (``.provenance``), at the upstream that names it.  Raises as `page`."""

    async def projects(known: Validators | None, receive: Receive) -> DocumentReply:
        """Ask for the list of all projects, which *receive* takes in.  Raises as `page`."""

    async def fetch(wanted: Wanted, sink: ISink) -> None:
        """Deliver *wanted* to *sink* completely, or raise.

        Raises :class:`proxy.errors.NotFound` when upstream definitely has no such file, :class:`proxy.errors.DigestMismatch`
        when only wrong bytes were to be had, :class:`proxy.errors.UpstreamFailed` otherwise.  Errors that the sink raises
        (other than DigestMismatch and ValueError) end the fetch and pass through.
        """

    async def facts(wanted: Wanted) -> FileFacts:
        """Size and validators of a file without its body: HEAD, or a one-byte range where HEAD fails.  Raises as `fetch`."""

    async def open_range(wanted: Wanted, start: int, stop: int) -> IBodyReader:
        """A reader of bytes *start* to *stop* (exclusive).  Raises as `fetch`."""

    def outranks(upstream: str, other: str) -> bool:
        """Whether what *upstream* states counts for more than what *other* stated: it is preferred."""

    def distrust(upstream: str, why: str) -> None:
        """Told by the page cache: *upstream* has a page that cannot be right.  Its files are asked for last for a while."""

    def last_modified() -> float | None:
        """When upstream was last as new as what is served now (PEP 381): its last good answer, less its own lag where that is
        known.  ``None`` when none has answered yet.
        """

    def slow(waited: float) -> None:
        """Told by the page cache: an answer has not come within *waited* seconds, the soft deadline."""

    async def close() -> None:
        """Drop idle connections and cancel what is under way."""


class IProjectsView(Interface):
    """The list of all projects of an index as it may be seen now."""

    state: str = Attribute("Names this very list.")
    status: CacheStatus = Attribute("How the cache came by it.")
    serial: int | None = Attribute("Upstream's ``X-PyPI-Last-Serial``, ``None`` where it states none.")
    max_age: int = Attribute("For how long clients may keep it, in seconds.")

    async def open(media: MediaType, coding: str) -> IBytesSource:
        """The list as a document (PEP 503, PEP 691), which the caller closes.  Raises Overloaded, StorageFailed."""

    async def lines() -> IBytesSource:
        """The list as :mod:`proxy.simple.projects` has it, a line for each project by name, which the caller closes.

        For those who make another list of it.  Raises Overloaded, StorageFailed.
        """


class IFileHandle(Interface):
    """One file as a client may have it now: stored, arriving or not here yet.

    Whoever answers a request for a file asks :meth:`IRepository.file` once, and then talks to the handle, which the holder
    closes.
    """

    etag: str | None = Attribute("A strong validator (RFC 9110 section 8.8.3), the same before and after the file is stored.")
    seen: Moment = Attribute("When it was found, and until when it may be seen.")
    stored: bool = Attribute("Whether it is in the store: nothing is asked of upstream for it.")
    size: int | None = Attribute("Bytes of the stored file, or as the page states them; ``None`` when neither is known.")
    in_progress: bool = Attribute("Whether a download is under way that another asker can share.")
    status: CacheStatus = Attribute("How the cache comes by it, for one who opens it now.")

    async def find_size() -> int | None:
        """The size of the file; what the page does not state is asked of upstream, without the body.

        Raises NotFound, UpstreamFailed.
        """

    async def open() -> IBytesSource:
        """The whole file, which the caller closes: the stored one, or as it arrives, once upstream's headers are in.

        May be called once.  Raises as :meth:`IUpstreams.fetch`.
        """

    def growing() -> IBytesSource | None:
        """A reader of the download that is under way, which the caller closes; ``None`` when none is."""

    async def open_range(start: int, stop: int) -> IBodyReader:
        """Bytes *start* to *stop* (exclusive) of a file that is not stored, unverified.  Raises as :meth:`IUpstreams.fetch`."""

    def is_current() -> bool:
        """Whether asking for the file again would find the same stored bytes, as far as that is known without waiting.

        No if there is a moment at which the file may be hidden: what is said of how long it may be kept changes all the time.
        May be asked after :meth:`close`.
        """

    def is_unchanged() -> bool:
        """Whether asking for the file again would find it as this handle has it, stored or not; else as :meth:`is_current`."""

    def close() -> None:
        """Give back what :meth:`open` did not hand over.  May be called more than once."""


class IRepository(Interface):
    """One index as the web floor sees it: what exists and may be seen.  *project* is normalised.

    Who may see it is decided before anything of this is asked, with :meth:`owners`.
    """

    name: str = Attribute("The index's name.")
    leaves: tuple[str, ...] = Attribute("The names of the indexes that it has its projects from; its own where it is no group.")

    def owners(project: str) -> Sequence[str]:
        """Those of :attr:`leaves` that *project* may come from, if it exists: one needs the rights on all of them.

        Goes by the name and by claims alone, and asks nobody.  Raises StorageFailed while that cannot be told.
        """

    async def page(project: str, *, no_cache: bool = False) -> PageView:
        """The page of *project*.  Raises NotFound, UpstreamFailed."""

    def page_at_hand(project: str) -> PageView | None:
        """What :meth:`page` would return if it need not wait for anything, else ``None``."""

    async def projects(*, no_cache: bool = False) -> IProjectsView:
        """The list of projects.  Raises UpstreamFailed."""

    async def cached() -> Sequence[str]:
        """The names of the projects whose pages are cached and which may be seen, normalised and sorted.  Asks no upstream."""

    async def own() -> Sequence[str] | None:
        """The names of the projects that come from no upstream and may be seen, normalised and sorted.

        ``None`` where all come from upstreams.  Raises StorageFailed.
        """

    async def document(name: DocumentName) -> DocumentView:
        """A document beside the pages.  Raises as :meth:`page`."""

    async def file(project: str, digest: str, name: str) -> IFileHandle:
        """The file or the metadata (PEP 658) *name*, without asking upstream for a byte of a file.

        *digest* is the digest segment of its URL (``<algorithm>-<hex>`` or ``none``).  Metadata is found wherever it can be
        had, and is stored then.

        Raises NotFound, DigestChanged, UpstreamFailed (its page was needed and could not be had).
        """

    def last_modified() -> float | None:
        """When this index was last in step with its source, in seconds since the epoch (PEP 381); ``None``: not known yet."""


class IIncoming(Interface):
    """One file on its way into a hosted index.  One of :meth:`accept` and :meth:`discard` ends it."""

    size: int = Attribute("Bytes written so far.")

    async def write(data: bytes) -> None:
        """Append *data*; the next call waits for the one before.  Raises StorageFailed, TooMuch (the limits of the index)."""

    async def accept(form: UploadForm, by: str) -> Uploaded:
        """Check the file against *form* and add it, create-only: of two of one name, one wins.  *by* names the principal.

        When it returns, the next request sees the file, and a crash does not lose it.  Raises BadUpload, FileExists, TooMuch,
        StorageFailed; then nothing is left of it.
        """

    async def discard() -> None:
        """Leave nothing of it.  May be called more than once, and after :meth:`accept`."""


class IReceiving(Interface):
    """A hosted index as uploads see it."""

    name: str = Attribute("The index's name.")
    takes_uploads: bool = Attribute("Whether it takes any.")

    async def begin(filename: str | None, length: int | None) -> IIncoming:
        """Begin an upload.  *filename* and *length* (bytes of the request) are as far as they are known yet.

        Raises TooMuch, StorageFailed (no room).
        """

    def remark(project: str) -> str | None:
        """What the uploader of a file of *project* (normalised) should know: that its name is held; ``None``: nothing.

        Raises StorageFailed.
        """


class IClaims(Interface):
    """Which names of projects belong to hosted indexes.  A claim survives the files, and the configuration of its index."""

    async def ready() -> None:
        """Wait until claims have been read.  Raises StorageFailed while they cannot be."""

    async def claim(index: str, project: str, by: str, given_by: str | None = None) -> None:
        """*project* (normalised) has a file on the hosted *index* now: the name belongs there from now on.

        It is held instead where another member of a group is known to serve it, apart from the hosted index that it is
        *given_by*, and where an index that is not configured any more has claimed it.  Durable when it returns; costs nothing
        for a name that is claimed or held.  Raises StorageFailed.
        """

    async def adopt(index: str, project: str, by: str) -> None:
        """*by* uploads the first file ever of *project* (normalised) to the hosted *index*.

        If an operator has given the name to the index before, the claim is *by*'s from now on.  Raises StorageFailed.
        """

    def claimed(index: str, project: str) -> bool:
        """Whether *project* belongs to the hosted *index*, by a claim or by what the index owns.

        Raises StorageFailed while claims cannot be read.
        """

    def second(index: str, project: str) -> bool:
        """Whether *index* has claimed *project* after another hosted index, to which the name belongs.

        In a group without that one, it belongs to *index*.  Raises StorageFailed while claims cannot be read.
        """

    def held(index: str, project: str) -> str | None:
        """Why the claim of *index* to *project* is held and what to do, for its uploader; ``None``: it is not held.

        Raises StorageFailed while claims cannot be read.
        """


class IOwnership(IClaims):
    """What follows from claims for those who serve, list or ask for the projects of several indexes."""

    generation: int = Attribute("Another number after each change: what follows from claims holds as long as it is the same.")

    def abandoned(project: str) -> Sequence[str]:
        """The indexes that have claimed *project* and are not configured as hosted ones any more.

        Raises StorageFailed while claims cannot be read.
        """

    def reserved(indexes: Collection[str], project: str) -> bool:
        """Whether *project* belongs to one of the hosted *indexes*, or is abandoned: it is not asked of any upstream.

        Raises StorageFailed while claims cannot be read.
        """

    def reservation(indexes: Collection[str]) -> Reservation:
        """All names that are reserved for the hosted *indexes*.  Takes milliseconds; may be called in any thread.

        Raises StorageFailed while claims cannot be read.
        """

    async def enter(claims: Sequence[NameClaim]) -> Sequence[NameClaim]:
        """Enter *claims* of indexes that have none to their names yet, held as :meth:`IClaims.claim` does; which these are.

        Raises StorageFailed.
        """

    async def colliding(index: str, projects: Collection[str]) -> Mapping[str, str]:
        """Those of *projects* that a new claim of *index* would be held for, with the reason.  Asks no upstream.

        Raises StorageFailed.
        """


class IAccounts(Interface):
    """Who stands behind a credential.  A credential is the value of an ``Authorization`` field, as it was sent."""

    def remembered(credential: bytes) -> Principal | None:
        """Who sent *credential*, if it was found to be right lately and still is; ``None``: ask :meth:`authenticate`."""

    async def authenticate(credential: bytes, origin: str) -> Principal | None:
        """Who sends *credential* from the address *origin*; ``None``, after a while, if it is wrong.

        Raises RightsUnknown while that cannot be told, Overloaded.
        """


class IDirectory(Interface):
    """Users whom another program knows."""

    async def find(user: str) -> DirectoryUser | None:
        """Who *user* is there; ``None`` if there is nobody of that name.

        Raises RightsUnknown while that cannot be told, Overloaded.
        """

    async def login(user: str, password: bytes) -> DirectoryUser | None:
        """Who *user* is there; ``None`` if there is nobody of that name with that *password*.

        Raises RightsUnknown while that cannot be told, Overloaded.
        """


class IAuditLog(Interface):
    """The record of who did what."""

    def note(entry: Audited) -> None:
        """Record *entry*.  Never waits, raises nothing.  What nobody is known to have done is counted, not listed."""


class IMinting(Interface):
    """Makes tokens for CI jobs."""

    async def mint(job: Job, index: str | None, expires: float) -> str:
        """A token for *job*, on *index* alone if one is given, until *expires* (seconds since 1970).  Raises StorageFailed."""

    async def burn(token: str) -> str | None:
        """Make *token* worthless at once if it was minted for a job, and return the job's name; ``None``: it was not.

        Raises StorageFailed, RightsUnknown.
        """


class IExchange(Interface):
    """What CI jobs exchange ID tokens at.  *origin* is the address that asks."""

    audience: str = Attribute("What ID tokens have to be issued for.")

    async def mint(id_token: str, index: str | None, origin: str) -> Minted:
        """What the job of *id_token* is given; it is good for *index* alone if one is named.

        Raises ExchangeRefused, StorageFailed.
        """

    async def burn(token: str, origin: str) -> None:
        """Make *token* worthless at once, if it was minted here.  Raises StorageFailed, RightsUnknown."""
