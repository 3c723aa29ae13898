"""The index kind ``hosted``: an index with files of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from proxy.administration.parts import Hosted, IndexParts
from proxy.cache.listing import ShownList
from proxy.composition.caches import Caches
from proxy.composition.indexes import BuiltIndex
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.core.claims import NameClaim
from proxy.core.troubles import Reason, Trouble
from proxy.hosted.catalogue import Catalogue, Settles
from proxy.hosted.checking import Checking
from proxy.hosted.drop import DropDirectory
from proxy.hosted.editing import Editing
from proxy.hosted.folder import Folder
from proxy.hosted.intake import Intake, LinkBounds
from proxy.hosted.noted import NotedFiles
from proxy.hosted.promoting import Promoting
from proxy.hosted.receiving import Receiving
from proxy.hosted.restoring import Restoring
from proxy.hosted.settling import Settling
from proxy.interfaces import IClaims
from proxy.policy.policy import Policy
from proxy.repository.hosted import HostedRepository
from proxy.settings import HostedSettings, IndexSettings, Settings

#: The share of ``page_memory`` for projects of hosted indexes.
_FOR_PROJECTS = 0.15


def folder_of(settings: Settings, index: str, prepare: Callable[[Path], None] = lambda folder: None) -> Folder:
    """The directory of the hosted index *index*; *prepare* makes directories in the data directory."""
    hosted = next(each.hosted for each in settings.indexes if each.name == index) or HostedSettings()
    beside = settings.server.data_dir / "hosted" / index
    return Folder(hosted.path or beside, hosted.layout, beside, prepare)


class HostedKind:
    """Builds the hosted indexes of *settings*; *policy* says what clients may see of them, *claims* keeps their names.

    With *reading* nothing is taken from their directories: another process looks after these.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        caches: Caches,
        policy: Policy,
        means: Means,
        claims: IClaims | None = None,
        *,
        reading: bool = False,
    ) -> None:
        self._settings = settings
        self._reading = reading
        self._storage = storage
        self._caches = caches
        self._policy = policy
        self._means = means
        self._claims = claims
        hosted = [each for each in settings.indexes if each.hosted is not None]
        self._memory = int(settings.server.page_memory * _FOR_PROJECTS / max(1, len(hosted)))

    def build(self, index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
        """The index that *index* describes."""
        means, caches, storage = self._means, self._caches, self._storage
        hosted = index.hosted or HostedSettings()
        folder = folder_of(self._settings, index.name, storage.place.prepare)
        bounds = self._bounds(self._settings, index.name, folder)
        intake = Intake(storage.files, caches.room, caches.pinned, means.disk, means.checking, bounds)
        settling: Settles = NotedFiles(index.name, caches.ledger, means.disk)
        if not self._reading:
            settling = Settling(
                index.name, intake, caches.ledger, self._claims, means.clock, means.reactor.seconds, overwrite=hosted.overwrite
            )
        catalogue = Catalogue(index.name, folder, settling, means.disk, means.reactor, self._memory)
        restoring = Restoring(catalogue, intake)
        receiving = Receiving(
            catalogue,
            intake,
            caches.ledger,
            self._claims,
            hosted,
            min_free=self._settings.server.min_free,
            clock=means.clock,
        )

        editing = Editing(catalogue, caches.ledger, means.disk, means.work, means.clock)
        promoting = Promoting(receiving, restoring, caches.ledger, self._claims)
        checking = Checking(catalogue, means.disk, self._claims)
        lists = storage.lists(index.name, means.work)

        def repository(policy: Policy) -> HostedRepository:
            shown = ShownList(index.name, policy, lists, means.work, means.clock, lambda: None)
            return HostedRepository(catalogue, caches.files, caches.ledger, restoring, shown, policy, means.work, means.clock)

        def look() -> Trouble | None:
            if catalogue.trouble is None:
                return None
            why = f"the directory of index {index.name} cannot be read ({catalogue.trouble}): what is known is served"
            return Trouble(Reason.NOT_READABLE, f"{why}; check that it is there, its owner and its mode")

        def configure(settings: Settings) -> None:
            following = next((each.hosted for each in settings.indexes if each.name == index.name), None)
            receiving.configure(following or HostedSettings(), settings.server.min_free)
            intake.configure(self._bounds(settings, index.name, folder))

        offered, everything = repository(self._policy), repository(Policy())
        drop = DropDirectory(catalogue, means.reactor, means.disk)
        return BuiltIndex(
            IndexParts(offered, everything, hosted=Hosted(editing, promoting, checking, receiving)),
            closing=(drop, catalogue, restoring, offered, everything, lists),
            receiving=receiving,
            starting=(drop,),
            look=look,
            first_uploader=lambda project: _claimant(caches.claims.of(project).get(index.name)),
            configure=configure,
        )

    def _bounds(self, settings: Settings, name: str, folder: Folder) -> LinkBounds:
        """Where the files of *folder*, the directory of the index *name*, may not be: in the directories of others."""
        directories = [each.hosted.path for each in settings.indexes if each.name != name and each.hosted is not None]
        return LinkBounds(folder.root, (self._storage.directory, *(path for path in directories if path is not None)))


def _claimant(claim: NameClaim | None) -> str | None:
    """Who had the first file of the project that *claim* is about."""
    return None if claim is None else claim.by
