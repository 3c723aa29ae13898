"""What can be wrong with a proxy that serves nevertheless: ``/-/ready`` lists it, a metric has one series per reason."""

from __future__ import annotations

import enum

from msgspec import Struct


class Reason(enum.Enum):
    """The kinds of trouble, by the label that they have in the metric ``pypiproxy_degraded``."""

    DISK_FULL = "disk-full"
    NOT_WRITABLE = "store-not-writable"
    NOT_READABLE = "store-not-readable"
    DIRECTORY_LOST = "data-directory-lost"
    DATABASE = "database-unavailable"
    RIGHTS = "rights-unknown"
    DAMAGED = "damaged-entries"
    COMMANDS = "commands-unreachable"
    UPSTREAM = "upstream-down"
    REFUSED = "credentials-refused"
    ISSUER = "issuer-down"
    ROTATION = "secret-not-usable"
    CERTIFICATE = "certificate-expires"
    OVERLOADED = "overloaded"


class Trouble(Struct, frozen=True):
    """One thing that is wrong.  *words* tell an operator what happened, to what, and what to do; any client may read them."""

    reason: Reason
    words: str
