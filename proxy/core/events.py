"""What happens that somebody may want to count: an enumeration of incidents, and events with typed fields.

Whoever does something worth counting gives an event to an :class:`~proxy.interfaces.IRecorder`; what is made of it (metrics,
statistics) is the recorder's matter.  ``docs/metrics.md`` is generated from these definitions.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Self

from attrs import frozen


class Labelled(enum.Enum):
    """Values of a label of a metric.  The value of each is that label, ``meaning`` one sentence for operators."""

    meaning: str

    def __new__(cls, label: str, meaning: str) -> Self:
        member = object.__new__(cls)
        member._value_ = label
        member.meaning = meaning
        return member


class Incident(Labelled):
    """Something worth a look, by its label in ``pypiproxy_events``."""

    PAGE_SERVED_STALE = "page served stale", "A page past its lifetime was served: its upstream is slow or fails."
    PAGE_REFRESH_FAILED = "page refresh failed", "An upstream was asked for a page and gave no answer of use."
    PAGE_OLDER = "page older than the cached one", "An upstream gave an older page than the stored one, which stays."
    PAGE_NOT_TAKEN = (
        "page not taken in place of the kept one",
        "An upstream's page did not replace the stored one: it is older, contradicts it, or lacks files.",
    )
    DOCUMENT_SERVED_STALE = "document served stale", "As for a page: a legacy JSON document or a provenance file."
    DOCUMENT_REFRESH_FAILED = "document refresh failed", "As for a page: a legacy JSON document or a provenance file."
    DOCUMENT_OLDER = "document older than the cached one", "As for a page: a legacy JSON document or a provenance file."
    LIST_SERVED_STALE = "list of projects served stale", "As for a page: the list of all projects of an index."
    LIST_REFRESH_FAILED = "list of projects refresh failed", "As for a page: the list of all projects of an index."
    LIST_OLDER = "list of projects older than the cached one", "As for a page: the list of all projects of an index."
    CHANGED_DIGEST = (
        "changed digest refused",
        "An upstream's page states another digest for a file than the one first stored; the first bytes are served.",
    )
    IMPOSSIBLE_DIGEST = (
        "file with an impossible digest",
        "A page states digests that cannot be one; its files without any other are not offered.",
    )
    WRONG_BYTES = "file with wrong bytes refused", "A download did not have the digest that its page states."
    MIRROR_WITH_OTHER_DIGESTS = (
        "mirror with other digests",
        "The page of one upstream states other digests than that of another; it is asked last for an hour.",
    )
    MIRROR_WITH_OTHER_BYTES = (
        "mirror with other bytes",
        "An upstream sent or lists other bytes than the index's page states; it is asked last for an hour.",
    )
    WITHOUT_METADATA = "wheel without metadata", "No source has metadata of a wheel; it is no longer offered with any."
    METADATA_READ = "metadata read out of a wheel", "Metadata that an upstream does not have was read out of the file."
    FILE_DAMAGED = "damaged file set aside", "A stored file did not have its digest and was moved to quarantine/."
    RECORD_UNREADABLE = "record unreadable", "A record of the database is damaged and is fetched or read from its copy."
    DATABASE_SET_ASIDE = "record database set aside", "A database is damaged; a new one takes its place."
    ROTATED = "secret or certificate replaced", "Files of a password, a token or certificates have changed, and are used."
    ROTATION_FAILED = (
        "replaced secret or certificate not usable",
        "Files of a password, a token or certificates can no longer be used; the last good value is used instead.",
    )


class ShedReason(Labelled):
    """Why a request was refused on purpose, by its label in ``pypiproxy_shed``."""

    WAITING = "waiting", "As many requests wait for upstream as may; this one is of the client address with most of them."


@frozen(slots=True)
class RequestPlace:
    """What a request was about: an *index*, and the *area* of it: ``simple``, ``files`` or ``pypi`` (legacy documents)."""

    index: str
    area: str


class Answered(NamedTuple):
    """A response has ended, *seconds* after its request was there; *size* bytes of its body were sent.

    *word* is its cache status, the code of the problem, or ``warm`` for a request of ``pypiproxy warm``.
    *place* is ``None`` for what is not counted by index.

    It is a tuple because one is made for each hot request.
    """

    method: str
    status: int
    size: int
    seconds: float
    word: str
    place: RequestPlace | None


@frozen(slots=True)
class Notice:
    """An *incident*, and what it is about as far as that is known: names of an index, a project (normalised), a file."""

    incident: Incident
    index: str | None = None
    project: str | None = None
    filename: str | None = None


@frozen(slots=True)
class Evicted:
    """A file of *size* bytes was evicted."""

    size: int


@frozen(slots=True)
class Shed:
    """A request was refused on purpose, because of an overload (503)."""

    reason: ShedReason


Event = Answered | Notice | Evicted | Shed


@frozen(slots=True)
class Refreshing:
    """The incidents of one kind of thing that is kept and refreshed."""

    served_stale: Incident
    failed: Incident
    older: Incident


OF_PAGES = Refreshing(Incident.PAGE_SERVED_STALE, Incident.PAGE_REFRESH_FAILED, Incident.PAGE_OLDER)
OF_DOCUMENTS = Refreshing(Incident.DOCUMENT_SERVED_STALE, Incident.DOCUMENT_REFRESH_FAILED, Incident.DOCUMENT_OLDER)
OF_LISTS = Refreshing(Incident.LIST_SERVED_STALE, Incident.LIST_REFRESH_FAILED, Incident.LIST_OLDER)
