"""What of an upstream page is offered: policy, applied when a page is read and never when it is stored.

Whatever is decided here holds for the page, the file and its companions alike, because all three ask the same functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import evolve, frozen
from msgspec.structs import replace

from proxy.cache.pins import METADATA, companion_name
from proxy.model import NO_BYTES, Digest, File, Page, Pin, strongest
from proxy.simple.legacy import version_of

#: The digest segment of a file URL when the page states no digest.
UNSTATED = "none"

#: The companion of PEP 740.
PROVENANCE = ".provenance"


def segment(file: File) -> str:
    """The digest segment of *file*'s URL: ``<algorithm>-<hex>``, or :data:`UNSTATED`."""
    sha256 = file.hashes.get("sha256")
    if sha256 is not None:
        return f"sha256-{sha256}"  # the strongest there is
    digest = file.digest
    return UNSTATED if digest is None else str(digest)


def pin_holds(pin: Pin, asked: str) -> bool:
    """Whether the URL segment *asked* names the bytes that *pin* holds."""
    if asked == UNSTATED:
        return True
    algorithm, _, value = asked.partition("-")
    return value == (pin.sha256 if algorithm == "sha256" else pin.stated.get(algorithm))


def changed(file: File, pin: Pin) -> Digest | None:
    """The digest that *file*'s page states now, when it contradicts *pin*; ``None`` when all is well."""
    digest = file.digest
    if digest is None or pin_holds(pin, str(digest)):
        return None
    if digest.algorithm != "sha256" and digest.algorithm not in pin.stated:
        return None
    return digest


@frozen(slots=True)
class Offer:
    """A page as clients may see it, and which of its files now state other digests than they are pinned to."""

    page: Page
    changes: tuple[tuple[File, Pin, Digest], ...] = ()


def offered(page: Page, pins: Mapping[str, Pin], there: Collection[str] | None = None) -> Offer:
    """*page* as clients may see it.  Takes milliseconds for thousands of files: for a worker thread.

    A quarantined project offers no file (PEP 792).  A file whose digest changed upstream is offered with the bytes it is pinned
    to: a build that was green stays green, and the new bytes are refused by name.  Wheels are offered with metadata whether
    upstream has it or not (PEP 658).  Where all sizes are known by now, a page of version 1.0 becomes one of 1.1 (PEP 700).
    On an offline index, files are offered whose bytes are *there* (their sha256, of those that :func:`may_be_there` names).
    """
    if (page.status or {}).get("status") == "quarantined":
        return Offer(evolve(page, files=()))
    changes = tuple(
        (file, pin, digest)
        for file in page.files
        if (pin := pins.get(file.filename)) is not None and (digest := changed(file, pin)) is not None
    )
    files = page.files
    if there is not None:
        files = tuple(_from_store(file, pins, there) for file in files if bytes_of(file, pins) in there)
    return Offer(_upgraded(evolve(page, files=tuple(_offered(file, pins) for file in files))), changes)


def may_be_there(page: Page, pins: Mapping[str, Pin]) -> frozenset[str]:
    """The sha256 of all that is served under names on *page* (files and their metadata), as far as pins and page tell."""
    known = (each for file in page.files for each in (bytes_of(file, pins), metadata_of(file, pins)))
    return frozenset(each for each in known if each is not None)


def bytes_of(file: File, pins: Mapping[str, Pin]) -> str | None:
    """The sha256 of the bytes that *file* is served with; ``None`` when only its download can tell."""
    pin = pins.get(file.filename)
    if pin is not None and (pin_holds(pin, segment(file)) or changed(file, pin) is not None):
        return pin.sha256
    return _sha256(file.digest)


def metadata_of(file: File, pins: Mapping[str, Pin]) -> str | None:
    """The sha256 of the metadata that is served beside *file*; ``None`` when there is none, or none yet."""
    pin = pins.get(metadata_name(segment(as_pinned(file, pins.get(file.filename))), file.filename))
    if pin is not None:
        return None if pin.sha256 == NO_BYTES else pin.sha256
    return _sha256(strongest(file.core_metadata)) if isinstance(file.core_metadata, Mapping) else None


def _sha256(digest: Digest | None) -> str | None:
    return digest.hex if digest is not None and digest.algorithm == "sha256" else None


def _from_store(file: File, pins: Mapping[str, Pin], there: Collection[str]) -> File:
    """*file* without what may not be there: provenance, and metadata (a wheel's is read out of it when it is asked for)."""
    return replace(file, provenance=None, core_metadata=file.core_metadata if metadata_of(file, pins) in there else None)


def _offered(file: File, pins: Mapping[str, Pin]) -> File:
    pin = pins.get(file.filename)
    if pin is not None:
        file = as_pinned(file, pin)
        if file.size is None and pin_holds(pin, segment(file)):
            file = replace(file, size=pin.size)
    if file.core_metadata or not is_wheel(file.filename):
        return file
    known = pins.get(metadata_name(segment(file), file.filename))
    if known is None:
        return replace(file, core_metadata=True)
    return replace(file, core_metadata=False if known.sha256 == NO_BYTES else {"sha256": known.sha256})


def _upgraded(page: Page) -> Page:
    if page.versions is not None or not page.files or any(file.size is None for file in page.files):
        return page
    versions = {version for file in page.files if (version := version_of(file.filename)) is not None}
    return evolve(page, api_version=max(page.api_version, (1, 1)), versions=tuple(map(str, sorted(versions))))


def is_wheel(filename: str) -> bool:
    return filename.endswith(".whl")


def metadata_name(asked: str, filename: str) -> str:
    """The name that the metadata of the wheel *filename* is pinned under; *asked* is the digest segment of its URL."""
    return companion_name(asked, filename, METADATA)


def as_pinned(file: File, pin: Pin | None) -> File:
    """*file* with the bytes that *pin* holds, when its page now states others."""
    if pin is None or changed(file, pin) is None:
        return file
    return replace(file, hashes={**pin.stated, "sha256": pin.sha256}, size=pin.size, core_metadata=None)
