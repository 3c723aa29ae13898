"""Uploads into a hosted index: spooled, checked, then added in one step that happens or does not.

The order of an upload: spool, check, claim of the name, commit to the store, file and JSON file in the directory under their
final names (from that moment on it exists, also after a crash), ledger, memory, answer.  What a crash leaves before that
moment has a hidden name, or a name by digest that nothing refers to; what it leaves undone after it is done when the directory
is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.uploads import Uploaded, UploadForm
from proxy.errors import BadUpload, FileExists, StorageFailed, TooMuch
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.folder import StandingFile
from proxy.hosted.inspection import distribution_name, is_same_version, spelled_otherwise
from proxy.hosted.intake import Arrived, IncomingFile, Intake, storage_failed
from proxy.hosted.notes import CLOSED, Note, ProjectStatus, read_attestations, stamp
from proxy.hosted.ports import FirstDigests
from proxy.hosted.settling import enter, note_of
from proxy.interfaces import Clock, IClaims, IIncoming, IReceiving
from proxy.mechanism.flight import uninterrupted
from proxy.model import EMPTY, LedgerEntry
from proxy.settings import MIB, HostedSettings

#: What forms call the digests that are known here by another name.
_OTHER_NAMES = {"blake2_256": "blake2b_256"}
#: An upload takes its bytes twice, in the store and in the directory, where file systems do not share blocks.
_COPIES = 2
#: Room is looked for in steps of so many bytes where nobody says how large an upload is.
_STEP = 32 * MIB


class Past(Struct, frozen=True):
    """What is known of a file from where it was before; *upload_time* as in a note, ``None``: it is uploaded now.

    *others* are keys of its note that nobody here knows.
    """

    upload_time: str | None
    yanked: bool | str = False
    attestations: tuple[Any, ...] = ()
    others: Mapping[str, Any] = EMPTY


@implementer(IReceiving)
class Receiving:
    """Takes uploads into the index of *catalogue*, within its *settings*."""

    log = Logger()

    def __init__(
        self,
        catalogue: Catalogue,
        intake: Intake,
        ledger: FirstDigests,
        claims: IClaims | None,
        settings: HostedSettings,
        *,
        min_free: int | None,
        clock: Clock,
    ) -> None:
        self.name = catalogue.name
        self.settings = settings
        self.catalogue = catalogue
        self.intake = intake
        self._ledger = ledger
        self._claims = claims
        self._min_free = min_free
        self._clock = clock
        #: Files, and their bytes, that are being added.
        self._adding = (0, 0)

    def configure(self, settings: HostedSettings, min_free: int | None) -> None:
        """Take uploads within *settings* from now on, and leave *min_free* bytes free."""
        self.settings = settings
        self._min_free = min_free

    @property
    def takes_uploads(self) -> bool:
        """Whether files may be uploaded at all."""
        return self.settings.uploads

    async def begin(self, filename: str | None, length: int | None) -> IIncoming:
        if filename is not None:
            distribution_name(filename)
        await self.catalogue.names()
        self.require_within(length or 0)
        await self.require_free(length or 0)
        return _Incoming(self, await self.intake.begin(length or 0), length or 0)

    def remark(self, project: str) -> str | None:
        return None if self._claims is None else self._claims.held(self.name, project)

    def require_within(self, size: int, more: int = 1) -> None:
        """Raise TooMuch if a file of *size* bytes, or so many *more* with as many together, would be too much for the index."""
        files, stored = (sum(each) for each in zip(self.catalogue.totals(), self._adding, strict=True))
        most_files, most = self.settings.max_files, self.settings.max_size
        if most is not None and stored + size > most:
            raise TooMuch(
                f"index {self.name} may have {most:,} bytes (max_size), and has {stored:,}: {size:,} more are too many; "
                "delete others, or ask for more"
            )
        if most_files is not None and files + more > most_files:
            raise TooMuch(f"index {self.name} may have {most_files:,} files (max_files), and has {files:,}: delete others")

    def require_open(self, project: str, status: ProjectStatus | None) -> None:
        """Raise BadUpload if *project* takes no new files by its *status* (PEP 792)."""
        if status is not None and status.status in CLOSED:
            reason = f" ({status.reason})" if status.reason else ""
            raise BadUpload(f"{project} is {status.status} on index {self.name}{reason}, and takes no new files")

    async def require_free(self, size: int, arrived: int = 0) -> None:
        """Raise StorageFailed if *size* bytes more, beside those that have *arrived*, leave less than `server.min_free`."""
        if self._min_free is None:
            return
        needed = self._min_free + _COPIES * size + (_COPIES - 1) * arrived
        free = await self.intake.store.free()
        if free < needed and not (await self.intake.room.make_room(needed - free) and await self.intake.store.free() >= needed):
            raise StorageFailed(
                f"the disk has {free:,} bytes left, and server.min_free keeps {self._min_free:,} of them free: make room"
            )

    async def add(self, arrival: IncomingFile, form: UploadForm, by: str, past: Past | None = None) -> Uploaded:
        """As :meth:`IIncoming.accept`; a file with a *past* was somewhere else before, and the status of its project may
        forbid uploads.
        """
        called = distribution_name(form.filename)
        if called.project != form.project:
            raise BadUpload(f"{form.filename} is a file of {called.project}, and the form names {form.project}")
        arrived = await arrival.check(form.filename)
        _require_agreement(form, arrived)
        attestations = read_attestations(form.attestations) if form.attestations else ()
        note = replace(note_of(arrived, stamp(self._clock()), 0), uploader=by, attestations=attestations)
        if past is not None:
            upload_time = note.upload_time if past.upload_time is None else past.upload_time
            kept = {"yanked": past.yanked, "attestations": past.attestations, "others": past.others}
            note = replace(note, upload_time=upload_time, **kept)
        else:
            self.require_open(form.project, await self._status(form.project))
        self.intake.guarding.guard(arrived.sha256)
        try:
            return await self.catalogue.alone(form.project, lambda: self._add(arrival, form, note, by))
        finally:
            self.intake.guarding.unguard(arrived.sha256)

    async def _add(self, arrival: IncomingFile, form: UploadForm, note: Note, by: str) -> Uploaded:
        project, filename = form.project, form.filename
        entries = await self._ledger.peek(self.name, project)
        entry = entries.get(filename)
        there = await self.intake.disk.run(self.catalogue.folder.standing, project, filename)
        known = note.sha256 if entry is None else entry.sha256
        if known != note.sha256 and not self.settings.overwrite:
            raise _exists(self.name, filename, known)
        for each in await self.intake.disk.run(spelled_otherwise, filename, entries.keys()):
            # Installers take any of them: who uploads other bytes under another spelling has replaced the file.
            if entries[each].sha256 != note.sha256 and not (self.settings.overwrite and entries[each].gone_at is not None):
                raise _exists(self.name, each, entries[each].sha256)
        if entry is not None and known == note.sha256 and entry.gone_at is None and there is not None:
            return Uploaded.SAME
        if entry is not None and entry.upload_time is not None and known == note.sha256:
            note = replace(note, upload_time=entry.upload_time)
        if there is None:
            self.require_within(note.size)
        if self._claims is not None and not entries:
            await self._claims.adopt(self.name, project, by)
        self._count(1, note.size)
        try:
            return await self._carried_out(arrival, form, note, by, entry, there)
        finally:
            self._count(-1, -note.size)

    async def _status(self, project: str) -> ProjectStatus | None:
        """The status of *project*.  Raises StorageFailed where it cannot be read: it may forbid uploads."""
        try:
            return await self.intake.disk.run(self.catalogue.folder.status, project)
        except ValueError as error:
            raise StorageFailed(f"the status of {project} on index {self.name} cannot be read: {error}") from error

    def _count(self, files: int, size: int) -> None:
        self._adding = self._adding[0] + files, self._adding[1] + size

    async def _carried_out(
        self,
        arrival: IncomingFile,
        form: UploadForm,
        note: Note,
        by: str,
        entry: LedgerEntry | None,
        there: StandingFile | None,
    ) -> Uploaded:
        project, filename = form.project, form.filename
        instead = self.settings.overwrite and there is not None
        if self._claims is not None:
            await self._claims.claim(self.name, project, by)
        await arrival.commit()
        note = await self._put(arrival, project, filename, note, instead=instead)
        try:
            await enter(self._ledger, self.name, project, filename, note, entry)
        except StorageFailed:
            if not instead:
                await self.intake.disk.run(
                    self.catalogue.folder.remove, project, self.catalogue.folder.place(project, filename)
                )
            raise
        self.catalogue.added(project, filename, note, replaced=None if there is None else there.size)
        self.log.info("{filename} was uploaded to {index} by {by}", filename=filename, index=self.name, by=by)
        return Uploaded.NEW

    async def _put(self, arrival: IncomingFile, project: str, filename: str, note: Note, *, instead: bool) -> Note:
        def put() -> Note:
            return self.catalogue.folder.add(project, filename, arrival.fileno(), note, instead=instead)

        try:
            return await self.intake.attempt(note.size, lambda: self.intake.disk.run(put))
        except FileExistsError as error:
            raise _exists(self.name, filename, None) from error
        except OSError as error:
            raise storage_failed(f"{filename} cannot be written into the directory of index {self.name}", error) from error


def _exists(index: str, filename: str, sha256: str | None) -> FileExists:
    bytes_of_it = "" if sha256 is None else f" with sha256-{sha256}"
    return FileExists(f"{filename} is, or was, on index {index}{bytes_of_it}; upload it as another version or build")


def _require_agreement(form: UploadForm, arrived: Arrived) -> None:
    """The file must be what the form says of it.  Raises BadUpload."""
    known: Mapping[str, str] = {"sha256": arrived.sha256, **arrived.digests}
    for algorithm, stated in form.digests.items():
        found = known.get(_OTHER_NAMES.get(algorithm, algorithm))
        if found is not None and found != stated.lower():
            raise BadUpload(f"the {algorithm} of {form.filename} is {found}, and the form says {stated[:130]}")
    inspected = arrived.inspected
    if not is_same_version(form.version, inspected.version):
        raise BadUpload(f"{form.filename} is of version {inspected.version}, and the form says {form.version[:100]}")


@implementer(IIncoming)
class _Incoming:
    """One upload."""

    def __init__(self, receiving: Receiving, arrival: IncomingFile, expected: int) -> None:
        self._receiving = receiving
        self._arrival = arrival
        #: So many bytes there is room for, as was found out.
        self._expected = expected

    @property
    def size(self) -> int:
        return self._arrival.size

    async def write(self, data: bytes) -> None:
        size = self._arrival.size + len(data)
        self._receiving.require_within(size)
        if size > self._expected:  # it is sent in chunks, and nobody has said how large it is
            step = max(_STEP, size - self._expected)
            await self._receiving.require_free(step, self._arrival.size)
            self._expected += step
        await self._arrival.write(data)

    async def accept(self, form: UploadForm, by: str) -> Uploaded:
        # A client that leaves now leaves the file behind: it is added as a whole or not at all.
        return await uninterrupted(self._accept(form, by))

    async def _accept(self, form: UploadForm, by: str) -> Uploaded:
        try:
            return await self._receiving.add(self._arrival, form, by)
        finally:
            await self._arrival.end()

    async def discard(self) -> None:
        await self._arrival.end()
