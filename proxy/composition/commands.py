"""The socket at which the commands of operators ask for operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module

from msgspec import Struct

from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.core.troubles import Trouble
from proxy.host.adminsocket import AdminSocket
from proxy.interfaces import Operation
from proxy.mechanism.offload import Offload
from proxy.web.admin import Admin, site


class Commands(Struct, frozen=True):
    """The *sockets* that operations are served at, none in a service that serves nobody; *carrying* is a thread for bundles."""

    admin: Admin
    sockets: tuple[AdminSocket, ...]
    carrying: Offload

    async def look(self) -> Sequence[Trouble]:
        """What is wrong with the sockets."""
        return [trouble for each in self.sockets if (trouble := await each.look()) is not None]

    def close(self) -> None:
        """Cancel the operations that are under way."""
        self.admin.close()

    def stop(self) -> None:
        """End the thread."""
        self.carrying.stop()


def build_commands(operations: Mapping[str, Operation], storage: Storage, means: Means, *, serving: bool) -> Commands:
    """The socket at which *operations* are served, if there are clients at all."""
    admin = Admin(operations, partial(means.work.run_first, import_module, "proxy.composition.operations"))
    socket = AdminSocket(storage.directory, site(admin, means.reactor), means.reactor, storage.place.is_ours)
    return Commands(admin, (socket,) if serving else (), Offload(means.reactor, 1, "bundle"))
