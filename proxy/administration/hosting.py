"""What operators do with hosted indexes: yank and delete files, set the status of a project, promote a release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from proxy.administration.parts import IndexParts, chosen_hosted, project_name
from proxy.cache.ledger import means
from proxy.core.near import suggested
from proxy.errors import BadRequest, NotFound
from proxy.hosted.notes import STATUSES, Note, ProjectStatus
from proxy.interfaces import IOffload, Operation, Report
from proxy.names import version_of

if TYPE_CHECKING:
    # Few services have hosted indexes, and what these need takes a while to load.
    from proxy.hosted.folder import StandingFile

#: Characters that a reason may have.
_LONGEST_REASON = 1000
#: Versions that are listed in one line.
_LISTED = 10


class Hosting:
    """Operations on the hosted ones of *indexes*.  The names of many files are read in the threads *work*."""

    def __init__(self, indexes: Mapping[str, IndexParts], work: IOffload) -> None:
        self._indexes = indexes
        self._work = work

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {
            "yank": self.yank,
            "unyank": self.unyank,
            "delete": self.delete,
            "status": self.status,
            "promote": self.promote,
            "hosted_check": self.check,
        }

    async def yank(
        self, report: Report, index: str, project: str, which: str, reason: str | None = None
    ) -> list[dict[str, Any]]:
        """Yank the files of *project* that *which* (a version or a file name) means.  Which these are.

        Raises NotFound, BadRequest.
        """
        return await self._yanked(index, project, which, _reason(reason) or True)

    async def unyank(self, report: Report, index: str, project: str, which: str) -> list[dict[str, Any]]:
        """The opposite of :meth:`yank`."""
        return await self._yanked(index, project, which, False)

    async def _yanked(self, index: str, project: str, which: str, yanked: bool | str) -> list[dict[str, Any]]:
        hosted, wanted = chosen_hosted(self._indexes, index), project_name(project)
        notes = await hosted.editing.yank(wanted, partial(means, which), yanked)
        if not notes:
            served = (await hosted.editing.project(wanted)).notes
            raise await self._no_such(index, wanted, which, served)
        return [
            {"index": index, "project": wanted, "filename": name, "yanked": note.yanked} for name, note in sorted(notes.items())
        ]

    async def delete(
        self,
        report: Report,
        index: str,
        project: str,
        which: str | None = None,
        dry: bool = False,
        confirmed: object = None,
    ) -> list[dict[str, Any]]:
        """Delete the files of *project* that *which* means, or all; with *dry* only tell which.  Raises NotFound.

        ``modified`` is when the bytes of a file changed last (seconds since 1970).  *confirmed* is what was told: raises
        FilesChanged, and deletes nothing, if that is not what would be deleted now.
        """
        hosted, wanted = chosen_hosted(self._indexes, index), project_name(project)
        meant = partial(means, which)
        if not dry:

            def agreed(files: Mapping[str, StandingFile]) -> bool:
                return confirmed is None or _told(index, wanted, files) == confirmed

            gone = await hosted.editing.delete(wanted, meant, agreed)
            if gone:
                return _told(index, wanted, gone)
        there = await hosted.editing.files(wanted)
        if not there:
            raise NotFound(f"there is no file of {wanted} in the directory of index {index}")
        found = await self._work.run(lambda: _told(index, wanted, {name: there[name] for name in there if meant(name)}))
        if not dry or not found:
            raise await self._no_such(index, wanted, which, there)
        return found

    async def status(
        self, report: Report, index: str, project: str, status: str | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """The status of *project*; with *status*, that is set before.  Raises NotFound, BadRequest."""
        hosted, wanted = chosen_hosted(self._indexes, index), project_name(project)
        if status is None and reason is not None:
            raise BadRequest("a reason is given with a status")
        if status is not None:
            if status not in STATUSES:
                raise BadRequest(f"{status!r} is no status of a project; there are {', '.join(STATUSES)}")
            await hosted.editing.mark(wanted, ProjectStatus(status, _reason(reason)))
        found = (await hosted.editing.project(wanted)).status or ProjectStatus("active")
        return {"index": index, "project": wanted, "status": found.status, "reason": found.reason}

    async def promote(
        self,
        report: Report,
        source: str,
        target: str,
        project: str,
        version: str,
        dry: bool = False,
        confirmed: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Let *target* have all files of the release *version* of *project* that *source* has, at once or not at all.

        With *dry* nothing is changed.  Returns what is ``new`` there, the names that were ``there`` before, and why the name
        does not belong to *target* if it is ``held``.  *confirmed* is what was returned before: raises FilesChanged if other
        files would be new now.  Raises NotFound, BadRequest, FileExists, TooMuch.
        """
        giving, taking = chosen_hosted(self._indexes, source), chosen_hosted(self._indexes, target)
        if source == target:
            raise BadRequest(f"a release is promoted from one index to another, and {source} is the same as {target}")
        wanted = project_name(project)
        try:
            Version(version)
        except InvalidVersion as error:
            raise BadRequest(f"{version!r} is no version: a release is promoted as a whole") from error
        found = await giving.editing.project(wanted)
        if found.status is not None and found.status.status == "quarantined":
            raise BadRequest(
                f"{wanted} is quarantined on index {source}, and nothing of it is promoted: "
                f"pypiproxy status {source} {wanted} active ends that"
            )
        served = found.notes
        notes = await self._work.run(lambda: {name: note for name, note in served.items() if means(version, name)})
        if not notes:
            raise await self._no_such(source, wanted, version, served)

        def agreed(new: Mapping[str, Note]) -> bool:
            return confirmed is None or _new(new) == confirmed["new"]

        outcome = await taking.promoting.take(wanted, notes, giving.promoting, dry=dry, agreed=agreed)
        return {
            "index": target,
            "project": wanted,
            "new": _new(outcome.new),
            "there": list(outcome.there),
            "held": outcome.held,
            "dry": dry,
        }

    async def check(self, report: Report, index: str, digests: bool = False) -> dict[str, Any]:
        """What is wrong in the directory of *index*; with *digests* the bytes of all files are read.  Raises StorageFailed."""
        hosted = chosen_hosted(self._indexes, index)

        def progress(files: int, size: int) -> None:
            report({"checked": {"files": files, "bytes": size}})

        found, served = await hosted.checking.check(progress, digests=digests)
        return {
            "index": index,
            "directory": str(hosted.catalogue.folder.root),
            "served": served,
            "found": [{"kind": each.kind, "place": each.place, "why": each.why} for each in found],
        }

    async def _no_such(self, index: str, project: str, which: str | None, there: Iterable[str]) -> NotFound:
        return await self._work.run(_no_such, index, project, which, list(there))


def _told(index: str, project: str, files: Mapping[str, StandingFile]) -> list[dict[str, Any]]:
    """What is told of *files* that are, or would be, deleted."""
    return [
        {"index": index, "project": project, "filename": name, "size": file.size, "modified": file.mtime_ns / 1e9}
        for name, file in sorted(files.items())
    ]


def _new(files: Mapping[str, Note]) -> list[dict[str, Any]]:
    """What is told of *files* that are, or would be, promoted."""
    return [{"filename": name, "size": note.size, "upload_time": note.upload_time} for name, note in sorted(files.items())]


def _reason(given: str | None) -> str | None:
    """The reason of an operator.  Raises BadRequest for what a page cannot show in a line."""
    if given is None:
        return None
    reason = given.strip()
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise BadRequest(f"a reason is one line of at most {_LONGEST_REASON:,} characters")
    return reason or None


def _no_such(index: str, project: str, which: str | None, names: list[str]) -> NotFound:
    versions = sorted({version for each in names if (version := version_of(each)) is not None}, reverse=True)
    listed = ", ".join(map(str, versions[:_LISTED])) + (", …" if len(versions) > _LISTED else "")
    hint = suggested(which or "", [*names, *map(str, versions)])
    return NotFound(f"{project} has no file or version {which} on index {index}; it has {listed or 'no versions'}{hint}")
