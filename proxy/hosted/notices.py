"""What the kernel tells of the directories of a hosted index (inotify(7)): which project has changed.

The kernel says nothing of what others do on a shared file system: whoever uses this looks at the directory now and then all
the same.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from twisted.internet import inotify
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.filepath import FilePath

from proxy.hosted.folder import project_in
from proxy.hosted.notes import NOTE
from proxy.mechanism.twisted_internals import directory_events
from proxy.names import is_distribution, is_project_name, normalize

_OF_FILES = (
    inotify.IN_CLOSE_WRITE
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_ATTRIB
)
_GONE = inotify.IN_DELETE | inotify.IN_MOVED_FROM
_OF_ITSELF = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT | inotify.IN_IGNORED
#: What the name of the file with the status of a project ends in.
_STATUS = ".project.json"

#: Told of a project, and of its directory (in the flat layout: its file) if that is known.
ProjectChanged = Callable[[str, str | None], None]


class Notices:
    """Calls *changed* for what happens in *root* and in the directories below it that it is told of.

    *look* is called for what concerns no project, or was forgotten; *lost* when *root* is moved or removed.  Raises OSError
    when *root* is missing, or the kernel has nothing left to watch it with.
    """

    def __init__(
        self,
        root: Path,
        reactor: IReactorFDSet,
        changed: ProjectChanged,
        look: Callable[[], None],
        lost: Callable[[], None],
        *,
        flat: bool,
    ) -> None:
        self._root = root
        self._changed = changed
        self._look = look
        self._lost = lost
        self._flat = flat
        try:
            self._reading = directory_events(reactor, look)
            self._reading.startReading()
        except inotify.INotifyError as error:
            raise OSError(errno.EMFILE, "this user may watch no more: raise fs.inotify.max_user_instances") from error
        try:
            self._watch(root, self._in_root)
            os.stat(root)  # there was nothing to watch
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Tell of nothing more."""
        self._reading.end()

    def watch(self, folders: Iterable[str]) -> None:
        """Tell of what happens in these directories of projects as well.  Raises OSError when the kernel takes no more."""
        for name in folders:
            self._watch(self._root / name, self._in_project)

    def _watch(self, folder: Path, told: Callable[[object, FilePath[bytes], int], None]) -> None:
        try:
            self._reading.watch(FilePath(str(folder)), _OF_FILES | inotify.IN_MOVE_SELF | inotify.IN_ONLYDIR, callbacks=[told])
        except inotify.INotifyError as error:
            if folder.is_dir():
                raise OSError(errno.ENOSPC, "this user may watch no more: raise fs.inotify.max_user_watches") from error

    def _forget(self, name: str) -> None:
        with suppress(KeyError):
            self._reading.ignore(FilePath(str(self._root / name)))

    def _in_root(self, watch: object, path: FilePath[bytes], mask: int) -> None:
        if mask & _OF_ITSELF:
            self._lost()
            return
        name = path.asTextMode().basename()
        if not mask & inotify.IN_ISDIR:
            self._beside(name)
        elif not self._flat and is_project_name(name):
            if mask & _GONE:
                self._forget(name)
            else:
                with suppress(OSError):  # whoever looks at everything finds out
                    self._watch(self._root / name, self._in_project)
                self._look()
            self._changed(normalize(name), name)

    def _beside(self, name: str) -> None:
        """A file stands in the root, where all do in the flat layout."""
        file = name.removesuffix(NOTE)
        if self._flat and name.startswith(".") and name.endswith(_STATUS):
            self._changed(normalize(name[1:].removesuffix(_STATUS)), None)
        elif is_distribution(file) and not name.startswith("."):
            project = project_in(file) if self._flat else None
            if project is None:
                self._look()
            else:
                self._changed(project, file)

    def _in_project(self, watch: object, path: FilePath[bytes], mask: int) -> None:
        if mask & _OF_ITSELF:
            return  # the root tells of it
        place = path.asTextMode()
        name = place.basename()
        if name == _STATUS or not name.startswith("."):
            folder = place.parent().basename()
            self._changed(normalize(folder), folder)
