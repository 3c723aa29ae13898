"""The operation ``import``: a running proxy takes in a bundle that a command has opened and handed over.

The command's descriptor is read in a thread of its own.  When the command leaves or the proxy stops, reading ends at the next
chunk: what was verified by then stays, what was arriving is discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

from msgspec import Struct
from msgspec.structs import asdict
from twisted.internet.interfaces import IReactorTime

from proxy.bundle.handed import Handed, saying, until_cancelled
from proxy.bundle.importing import Import
from proxy.bundle.reading import BundleReader
from proxy.bundle.targets import Targets
from proxy.core.near import no_index
from proxy.errors import NotFound, ProxyError
from proxy.interfaces import Report


class Taking(Struct, frozen=True, kw_only=True):
    """Imports into *targets*, by the name of the index; without a name into the *default* one.

    *replaced* is told the index and project of each page that was replaced, *stored* sha256 and size of each file.
    """

    targets: Mapping[str, Targets]
    default: str | None
    replaced: Callable[[str, str], None]
    stored: Callable[[str, int], None]
    reactor: IReactorTime

    async def take(self, report: Report, descriptor: int, index: str | None = None) -> dict[str, Any]:
        """Take in the bundle behind *descriptor*; what became of it (`Imported`).  Raises BadBundle, StorageFailed, NotFound.

        *report* is told the same once a second, and before an error.
        """
        source = Handed(descriptor)
        return await until_cancelled(source, self._taken(report, source, index))

    async def _taken(self, report: Report, source: Handed, index: str | None) -> dict[str, Any]:
        with source:
            name = self.default if index is None else index
            if name is None or name not in self.targets:
                raise NotFound(no_index(name, self.targets))
            targets = self.targets[name]
            reader = await targets.offload.run(BundleReader, cast("BinaryIO", source))
            return await self._run(report, Import(reader, targets, self.replaced, self.stored))

    async def _run(self, report: Report, importing: Import) -> dict[str, Any]:
        def say() -> None:
            report(asdict(importing.imported))

        with saying(say, self.reactor):
            try:
                return asdict(await importing.run())
            except ProxyError:
                say()
                raise
