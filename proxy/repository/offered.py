"""What of an upstream page is offered: policy, applied when a page is read and never when it is stored.

Whatever is decided here holds for the page, the file and its companions alike, because all three ask the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from proxy.model import Digest, File, Page, Pin

#: The digest segment of a file URL when the page states no digest.
UNSTATED = "none"


def segment(file: File) -> str:
    """The digest segment of *file*'s URL: ``<algorithm>-<hex>``, or :data:`UNSTATED`."""
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


def offered(page: Page, pins: Mapping[str, Pin]) -> Page:
    """*page* as clients may see it.

    A quarantined project offers no file (PEP 792).  A file whose digest changed upstream is offered with the bytes it is pinned
    to: a build that was green stays green, and the new bytes are refused by name.
    """
    if (page.status or {}).get("status") == "quarantined":
        return evolve(page, files=())
    if not pins:
        return page
    files = tuple(as_pinned(file, pins.get(file.filename)) for file in page.files)
    return evolve(page, files=files)


def as_pinned(file: File, pin: Pin | None) -> File:
    """*file* with the bytes that *pin* holds, when its page now states others."""
    if pin is None or changed(file, pin) is None:
        return file
    return evolve(file, hashes={**pin.stated, "sha256": pin.sha256}, size=pin.size, core_metadata=None)
