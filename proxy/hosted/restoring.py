"""Bytes of a hosted index that the store has lost: they are taken from the directory again, if they are still the same."""

from __future__ import annotations

from proxy.errors import BadUpload, StorageFailed
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.intake import BeingWritten, Intake
from proxy.hosted.notes import Note
from proxy.mechanism.flight import Flights


class Restoring:
    """Takes files of *catalogue* into the store again."""

    def __init__(self, catalogue: Catalogue, intake: Intake) -> None:
        self._catalogue = catalogue
        self._intake = intake
        self._restores: Flights[None] = Flights()

    def close(self) -> None:
        """Stop what is under way."""
        self._restores.close()

    async def restore(self, project: str, filename: str, note: Note) -> None:
        """Have the bytes of *note* in the store.  Raises StorageFailed."""
        await self._restores.join(note.sha256, lambda: self._restore(project, filename, note))

    async def _restore(self, project: str, filename: str, note: Note) -> None:
        file = await self._catalogue.standing(project, filename)
        if file is None:
            raise StorageFailed(f"{filename} is neither in the store nor in the directory of index {self._catalogue.name}")
        try:
            arrived, arrival = await self._intake.take(file, settled=True)
        except (BadUpload, BeingWritten) as error:
            raise StorageFailed(f"{filename} is lost in the store, and cannot be taken from the directory: {error}") from error
        try:
            if arrived.sha256 != note.sha256:
                raise StorageFailed(f"{filename} is lost in the store, and has other bytes in the directory than it had before")
            await arrival.commit()
        finally:
            await arrival.end()
