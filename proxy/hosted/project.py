"""A project of a hosted index as it is now: a value, with the page that is made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

import msgspec
from msgspec import Struct
from packaging.version import Version

from proxy.hosted.notes import Note, ProjectStatus, moment_of, written_note
from proxy.model import File, Head, LedgerEntry, Page
from proxy.names import is_wheel, kind_of, version_of

#: What a file weighs in memory besides its text, roughly: its note, and its line on the page (bytes).
_FILE_WEIGHT = 1500
#: The newest version of the simple API whose promises a page keeps that is made here.
_API = (1, 4)
_encode = msgspec.json.Encoder().encode


class HostedProject(Struct, frozen=True, eq=False, dict=True):
    """The files of the project *name* of *index* by their names, with what is noted of each."""

    index: str
    name: str
    notes: Mapping[str, Note]
    status: ProjectStatus | None = None

    def with_file(self, filename: str, note: Note) -> HostedProject:
        """The same with one more file, or with another note of it."""
        return HostedProject(self.index, self.name, {**self.notes, filename: note}, self.status)

    def without(self, filenames: Collection[str]) -> HostedProject:
        """The same without *filenames*."""
        notes = {filename: note for filename, note in self.notes.items() if filename not in filenames}
        return HostedProject(self.index, self.name, notes, self.status)

    @cached_property
    def state(self) -> str:
        """Names this very content."""
        digest = hashlib.sha256(_encode(self.status))
        for filename, note in sorted(self.notes.items()):
            digest.update(filename.encode() + b"\0" + written_note(note))
        return digest.hexdigest()

    @cached_property
    def weight(self) -> int:
        """About as many bytes as it takes in memory."""
        return sum(_FILE_WEIGHT + len(name) + _size_of(note) for name, note in self.notes.items()) + _FILE_WEIGHT

    @cached_property
    def head(self) -> Head:
        """It as the head of a record, which rules are asked with."""
        status = None if self.status is None else self.status.status
        return Head(True, self.index, "", 0.0, self.state, "application/json", status=status)

    @cached_property
    def page(self) -> Page:
        """Its page, files by version.  Takes some microseconds a file."""
        found = sorted((_version(filename), filename) for filename in self.notes)
        versions = {str(version): None for version, _ in found}
        status = None if self.status is None else msgspec.to_builtins(self.status)
        files = tuple(listed_as(self.name, filename, self.notes[filename]) for _, filename in found)
        return Page(self.name, files, _API, tuple(versions), status)


def listed_as(project: str, filename: str, note: Note) -> File:
    """How the page lists a file.  Where its provenance is stands relative to the root of the index: pages name no host."""
    wheel = is_wheel(filename)
    return File(
        filename,
        "",
        {"sha256": note.sha256},
        note.requires_python,
        note.size,
        note.upload_time,
        note.yanked,
        ({"sha256": note.metadata} if note.metadata is not None else False) if wheel else None,
        f"files/{project}/sha256-{note.sha256}/{filename}.provenance" if note.attestations else None,
    )


def hosted_entry(filename: str, note: Note) -> LedgerEntry:
    """What the ledger has of a file for ever."""
    version = version_of(filename)
    return LedgerEntry(
        note.sha256,
        note.size,
        {"sha256": note.sha256},
        "",
        moment_of(note.upload_time),
        first_seen=moment_of(note.upload_time),
        upload_time=note.upload_time,
        version=None if version is None else str(version),
        kind=kind_of(filename),
        requires_python=note.requires_python,
        yanked=note.yanked,
    )


def provenance_of(attestations: Iterable[object]) -> bytes:
    """The provenance object (PEP 740) of a file with these *attestations*, whose publisher nobody has verified."""
    return _encode(
        {
            "version": 1,
            "attestation_bundles": [{"publisher": {"kind": "pypiproxy", "claims": None}, "attestations": list(attestations)}],
        }
    )


def _size_of(note: Note) -> int:
    return len(written_note(note)) if note.attestations or note.others else 300


def _version(filename: str) -> Version:
    version = version_of(filename)
    assert version is not None, "only distributions with a version are taken"
    return version
