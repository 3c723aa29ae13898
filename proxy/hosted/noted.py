"""The files of a hosted index as they are noted, for those who only read beside the proxy that looks after the directory."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.hosted.folder import Contents, Folder
from proxy.hosted.notes import Note
from proxy.hosted.ports import FirstDigests
from proxy.hosted.project import HostedProject
from proxy.hosted.settling import Alone, Settled
from proxy.interfaces import IOffload
from proxy.model import EMPTY, LedgerEntry


def noted_files(contents: Contents, entries: Mapping[str, LedgerEntry]) -> dict[str, Note]:
    """The files among *contents* whose note the ledger's *entries* confirm, each with its note.

    Nobody else's word counts: a note is a file that others may write, and could name any bytes in the store.
    """
    found = {}
    for file in contents.files:
        note, entry = contents.notes.get(file.filename), entries.get(file.filename)
        if note is not None and entry is not None and entry.sha256 == note.sha256 and file.filename not in contents.faults:
            found[file.filename] = note
    return found


class NotedFiles:
    """Takes nothing from the directory of the index *name*, and changes nothing there: what is noted is what there is."""

    refused: Mapping[str, str] = EMPTY

    def __init__(self, name: str, ledger: FirstDigests, disk: IOffload) -> None:
        self._name = name
        self._ledger = ledger
        self._disk = disk

    def prepare(self, folder: Folder) -> None:
        """There is nothing to be put right."""

    def strangers(self, found: Mapping[str, str]) -> None:
        """They are for the proxy to report."""

    async def settled(self, project: str, names: tuple[str, ...], folder: Folder, alone: Alone) -> Settled:
        """*project* as it is noted now.  Raises OSError, StorageFailed."""
        contents = await self._disk.run(folder.contents, project, names)
        notes = noted_files(contents, await self._ledger.peek(self._name, project))
        return Settled(HostedProject(self._name, project, notes, contents.status), None)
