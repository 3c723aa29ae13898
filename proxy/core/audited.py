"""What the audit log records: who did what from where, and what became of it."""

from __future__ import annotations

import enum

from msgspec import Struct


class AuditOutcome(enum.Enum):
    """What became of it."""

    DONE = "done"
    #: The credential is none.
    WRONG = "wrong credential"
    #: The credential is right, and does not suffice.
    REFUSED = "refused"
    #: There was no credential.
    LOGIN = "login required"
    #: It was sent unencrypted, and nobody looked at it.
    PLAINTEXT = "sent unencrypted"
    FAILED = "failed"


class Audited(Struct, frozen=True):
    """*who* (a principal) at *origin* (an address) did *action*; *index*, *project* and *what* as far as it had any."""

    who: str
    origin: str
    action: str
    outcome: AuditOutcome
    index: str | None = None
    project: str | None = None
    what: str | None = None
