"""Everything that can go wrong, as one tree: each class knows its HTTP status and a stable ``code``.

``str(error)`` is the sentence a user reads (what happened, to what, what to do).  It becomes the reason phrase (pip prints it)
and the ``detail`` of RFC 9457 problem JSON (uv prints it).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from msgspec import Struct


class ProxyError(Exception):
    """The root of all errors that have an answer for the client."""

    status: int = 500
    code: str = "internal-error"
    title: str = "Internal error"

    #: Whether the same request may well succeed soon: the answer then bears a ``Retry-After``.
    passing: bool = False


class BadRequest(ProxyError):
    """What was asked makes no sense."""

    status = 400
    code = "bad-request"
    title = "Bad request"


class ContentTooLarge(ProxyError):
    """The request has a body, and nothing here takes one (RFC 9110 section 15.5.14)."""

    status = 413
    code = "content-too-large"
    title = "Content too large"


class TargetTooLong(ProxyError):
    """The request target is longer than any that is answered here (RFC 9110 section 15.5.15)."""

    status = 414
    code = "target-too-long"
    title = "URI too long"


class FieldsTooLarge(ProxyError):
    """The request has more, or longer, header fields than are read here (RFC 6585 section 5)."""

    status = 431
    code = "fields-too-large"
    title = "Request header fields too large"


class SlowRequest(ProxyError):
    """The head of a request, or its body, did not arrive in time (RFC 9110 section 15.5.9)."""

    status = 408
    code = "request-timeout"
    title = "Request timeout"


class UnsupportedVersion(ProxyError):
    """The request is of a version of HTTP that is not spoken here (RFC 9110 section 15.6.6)."""

    status = 505
    code = "unsupported-version"
    title = "HTTP version not supported"


class NotFound(ProxyError):
    """A definite no: upstream answered that it does not have it, or there is no such path here."""

    status = 404
    code = "not-found"
    title = "Not found"


class NotHere(NotFound):
    """The index is offline, and this was never brought there."""

    code = "not-here"
    title = "Not on this offline index"

    def __init__(self, index: str, what: str) -> None:
        super().__init__(f"index {index} is offline and has not got {what}: bring it with pypiproxy import")


class BadBundle(ProxyError):
    """A bundle cannot be read, or read on; what came before the fault was taken."""

    status = 400
    code = "bad-bundle"
    title = "Bad bundle"


class MethodNotAllowed(ProxyError):
    """The path exists and answers only the methods *allow*."""

    status = 405
    code = "method-not-allowed"
    title = "Method not allowed"

    def __init__(self, message: str, *, allow: str = "GET, HEAD") -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(ProxyError):
    """No media type that the client accepts can be made (RFC 9110 section 15.5.7)."""

    status = 406
    code = "not-acceptable"
    title = "Not acceptable"


class LoginRequired(ProxyError):
    """A credential is wanted, or the one that was sent is none (RFC 9110 section 15.5.2)."""

    status = 401
    code = "login-required"
    title = "Login required"


class SentUnencrypted(ProxyError):
    """A credential came over a network unencrypted, where that is not wanted.  Nobody has looked at it."""

    status = 403
    code = "sent-unencrypted"
    title = "Credential sent unencrypted"


class ExchangeRefused(ProxyError):
    """An ID token is not exchanged; *code* says why to programs, as the public index has it."""

    status = 422
    title = "Token request failed"

    def __init__(self, code: str, words: str, status: int = 422) -> None:
        super().__init__(words)
        self.code = code
        self.status = status
        self.passing = status in (429, 503)

    @classmethod
    def too_many(cls, what: str) -> ExchangeRefused:
        """It comes to nothing for now, because there were too many."""
        return cls("too-many-requests", f"{what}; try again in a minute", 429)


class RightsUnknown(ProxyError):
    """Who may do what cannot be read for now: nobody may do anything that needs a right."""

    status = 503
    code = "rights-unknown"
    title = "Rights unknown"
    passing = True


class BadUpload(BadRequest):
    """An upload is not what it says, or not what an index may hold."""

    code = "bad-upload"
    title = "Bad upload"


class ActionGone(BadRequest):
    """What older tools ask an index for besides uploads, and what no index does any more (RFC 9110 section 15.5.11)."""

    status = 410
    code = "action-gone"
    title = "Gone"


class FileExists(BadRequest):
    """There is, or was, a file of that name with other bytes.  twine and uv look for these very words in the reason phrase."""

    code = "file-exists"
    title = "File already exists"


class FilesChanged(ProxyError):
    """Other files are meant than those that were confirmed, or a file was replaced meanwhile: these were left as they are."""

    status = 409
    code = "files-changed"
    title = "The files have changed"


class TooMuch(ContentTooLarge):
    """An upload would make an index larger than it may be."""

    code = "too-much"
    title = "Too much"


class DigestChanged(ProxyError):
    """The file's name is pinned to other bytes than upstream's page now states."""

    status = 409
    code = "digest-changed"
    title = "Digest changed upstream"


class NameAbandoned(ProxyError):
    """The name of a project belongs to an index that is not configured any more: it is looked up nowhere else."""

    status = 409
    code = "name-abandoned"
    title = "Name claimed by an index that is not configured"


class LoopDetected(ProxyError):
    """A request came back to the instance that sent it (RFC 5842 section 7.2)."""

    status = 508
    code = "loop-detected"
    title = "Loop detected"


class Overloaded(ProxyError):
    """This proxy has no room for the work right now, or the machine has none for this proxy."""

    status = 503
    code = "overloaded"
    title = "Overloaded"
    passing = True


class Attempted(Struct, frozen=True):
    """One try at one upstream: what was asked, what came of it, and after how long (seconds)."""

    upstream: str
    reason: str
    elapsed: float

    def __str__(self) -> str:
        return f"{self.upstream}: {self.reason}"


class UpstreamFailed(ProxyError):
    """No upstream could answer, and there is nothing in the cache to serve instead.  Never remembered."""

    status = 503
    code = "upstream-failed"
    title = "Upstream failed"
    passing = True

    def __init__(self, what: str, attempts: Sequence[Attempted]) -> None:
        self.what = what
        self.attempts = tuple(attempts)
        tried = "; ".join(map(str, self.attempts)) or "no upstream may be asked right now"
        super().__init__(f"cannot fetch {what}: {tried}")


class DigestMismatch(UpstreamFailed):
    """Upstream sent bytes that are not what its page promised; they were thrown away."""

    code = "digest-mismatch"
    title = "Digest mismatch"


class UpstreamDenied(UpstreamFailed):
    """Upstream answers 403 for this, and others of its pages work: asking again is of no use."""

    status = 403
    code = "upstream-denied"
    title = "Denied by upstream"
    passing = False


class SlowUpstream(ProxyError):
    """Upstream has not come up with anything to send yet; asking it goes on."""

    status = 503
    code = "upstream-slow"
    title = "Upstream is slow"
    passing = True


class GivenUp(ProxyError):
    """What the request waited for was given up before it was done, for no fault of the request."""

    status = 503
    code = "given-up"
    title = "Given up"
    passing = True


class StorageFailed(ProxyError):
    """The data directory could not be read or written."""

    status = 503
    code = "storage-failed"
    title = "Storage failed"
    passing = True


#: What an operation on a file fails with: where other files can make room; where there is no room at all; where it may well
#: succeed when the disk is in order.
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = (*FULL, errno.EFBIG)
FOR_NOW = (*FULL, errno.EROFS, errno.EIO, errno.ESTALE)


def to_make_room(error: OSError) -> str:
    """The rest of a message about *error*: what to do if it is one of a full disk, or nothing."""
    return "; make room" if error.errno in FULL else ""


def is_of_the_disk(error: OSError) -> bool:
    """Whether *error* says something about the disk, and not that this process has no room for another open file."""
    return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ConfigError(Exception):
    """The configuration cannot be used; ``str()`` names file, key, value and what is expected."""


class InUse(ConfigError):
    """Another process works on the data directory: *owner*, by its id as far as that is known."""

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(message)
        self.owner = owner
