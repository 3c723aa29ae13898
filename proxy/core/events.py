"""What happens that somebody may want to count: an enumeration of incidents, and events with typed fields.

Whoever does something worth counting gives an event to an :class:`~proxy.interfaces.IRecorder`; what is made of it (metrics,
statistics) is the recorder's matter.  ``docs/metrics.md`` is generated from these definitions.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Self

from msgspec import Struct


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

    WAITING = "max-waiting", "As many requests wait for upstream as may; this one is of the client address with most of them."
    CONNECTIONS = "max-connections", "As many requests are answered at once as may."


class RouteLabel(Labelled):
    """What was asked for, by its label ``route``."""

    #: It is hashed for each request.
    __hash__ = object.__hash__

    PAGE = "page", "The page of a project."
    LIST = "list", "The list of all projects of an index."
    FILE = "file", "A file."
    METADATA = "metadata", "The metadata of a file (PEP 658)."
    PROVENANCE = "provenance", "The provenance of a file (PEP 740)."
    DOCUMENT = "document", "A document of the legacy JSON API."
    LINKS = "links", "The flat page for --find-links."
    UPLOAD = "upload", "An upload, or anything else that was posted."
    EXCHANGE = "exchange", "An exchange of an ID token of a CI job, or the discovery of where to exchange it."
    OVERVIEW = "overview", "An index as such, the list of indexes, or an icon."
    PROBE = "probe", "/-/live or /-/ready."
    METRICS = "metrics", "These metrics."
    OPERATIONS = "operations", "Anything else below /-/."
    REDIRECT = "redirect", "A path that is redirected: without its slash, without simple/, or with one too many."
    NONE = "none", "A path that leads nowhere, or a request that cannot be read."


class RequestPlace(NamedTuple):
    """What a request was about: the index *index_name*, an *area* of it (``simple``, ``files`` …), and its *route*.

    *area* is ``None`` for what does not count in the statistics of an index.
    """

    index_name: str | None
    area: str | None
    route: RouteLabel = RouteLabel.NONE


class Answered(NamedTuple):
    """A response has ended, *seconds* after its request was there; *size* bytes of its body were sent.

    *word* is its cache status, the code of the problem, or ``warm`` for a request of ``pypiproxy warm``.  *place* is ``None``
    for a request that cannot be read.  *first_byte* is when its head was sent, in seconds; ``None``: it never was.

    It is a tuple because one is made for each hot request.
    """

    method: str
    status: int
    size: int
    seconds: float
    word: str
    place: RequestPlace | None
    first_byte: float | None = 0.0


class Notice(Struct, frozen=True):
    """An *incident*, and what it is about as far as that is known: names of an index, a project (normalised), a file."""

    incident: Incident
    index: str | None = None
    project: str | None = None
    filename: str | None = None


class Evicted(Struct, frozen=True):
    """A file of *size* bytes was evicted."""

    size: int


class Shed(Struct, frozen=True):
    """A request was refused on purpose, because of an overload (503)."""

    reason: ShedReason


class StaleReason(Labelled):
    """Why a stale answer was given, by its label in ``pypiproxy_stale_answers``."""

    SLOW = "upstream-slow", "Upstream was asked, and did not answer within soft_deadline."
    FAILED = "upstream-failed", "The last request for this page, document or list failed."
    SUSPECT = "upstream-suspect", "The upstreams of the index failed lately, and were not waited for."
    DOWN = "upstream-down", "All upstreams of the index are down."
    OVERLOADED = "overloaded", "As many requests wait for upstream as may, and this one had an answer at hand."


class StaleAnswered(Struct, frozen=True):
    """What was given is past its lifetime, for this *reason*."""

    reason: StaleReason


class RefusalReason(Labelled):
    """Why somebody was not let in, by its label in ``pypiproxy_access_refusals``."""

    LOGIN = "login", "No credential was sent where one is needed (401). Installers try without one first."
    WRONG = "wrong-credential", "The user name, the password or the token is wrong (401)."
    HIDDEN = "not-permitted", "Who sent the credential is known and may not do this (404)."
    PLAINTEXT = "plaintext", "A credential came over plain http and was not examined."


class AccessRefused(Struct, frozen=True):
    """A request was refused for want of a right."""

    reason: RefusalReason


class UpstreamResult(Labelled):
    """What came of one request to one address of an upstream, by its label in ``pypiproxy_upstream_requests``."""

    __hash__ = object.__hash__

    OK = "ok", "An answer below 300, or 416."
    UNCHANGED = "unchanged", "304: what is cached still holds."
    REDIRECTED = "redirected", "Any other answer below 400."
    MISSING = "missing", "404 or 410."
    DENIED = "denied", "401, 403 or 407."
    THROTTLED = "throttled", "429."
    CLIENT_ERROR = "client-error", "Any other answer from 400 to 499."
    SERVER_ERROR = "server-error", "An answer of 500 or more."
    UNRESOLVED = "unresolved", "The name of the host has no address."
    UNREACHABLE = "unreachable", "No connection was made: refused, no route, timeout, or TLS failed."
    UNANSWERED = "unanswered", "A connection was made, and no answer began in time, or it was closed before."
    BROKEN = "broken", "The answer was no HTTP, or broke off in its head."
    LOCAL = "local", "A limit of this proxy or of this machine kept it from being sent or finished."
    CANCELLED = "cancelled", "Nobody waited for it any more: clients left, or another address or upstream answered first."


class UpstreamAnswered(NamedTuple):
    """A request to *address* of *upstream* had this *result*; *first_byte* is when its headers were there (seconds).

    *address* is ``None`` where none is known.
    """

    upstream: str
    address: str | None
    result: UpstreamResult
    first_byte: float | None


class UpstreamEnded(NamedTuple):
    """The answer of *address* of *upstream* has ended, well or not, *seconds* after its request was sent."""

    upstream: str
    address: str | None
    seconds: float


class UpstreamReceived(NamedTuple):
    """*size* bytes of a body came from *upstream*."""

    upstream: str
    size: int


class ReactorLagged(NamedTuple):
    """The reactor did something *seconds* later than it was due."""

    seconds: float


Event = (
    Answered
    | Notice
    | Evicted
    | Shed
    | StaleAnswered
    | AccessRefused
    | UpstreamAnswered
    | UpstreamEnded
    | UpstreamReceived
    | ReactorLagged
)


class Refreshing(Struct, frozen=True):
    """The incidents of one kind of thing that is kept and refreshed."""

    served_stale: Incident
    failed: Incident
    older: Incident


OF_PAGES = Refreshing(Incident.PAGE_SERVED_STALE, Incident.PAGE_REFRESH_FAILED, Incident.PAGE_OLDER)
OF_DOCUMENTS = Refreshing(Incident.DOCUMENT_SERVED_STALE, Incident.DOCUMENT_REFRESH_FAILED, Incident.DOCUMENT_OLDER)
OF_LISTS = Refreshing(Incident.LIST_SERVED_STALE, Incident.LIST_REFRESH_FAILED, Incident.LIST_OLDER)
