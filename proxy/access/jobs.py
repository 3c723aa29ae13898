"""CI jobs that somebody vouches for, and what they are given."""

from __future__ import annotations

from msgspec import Struct

from proxy.access.roles import Scope
from proxy.representing import repr_without


class Job(Struct, frozen=True):
    """A job that an ID token was issued for.

    *name* is what the rule that it fits calls it, *issuer* the name of who vouches for it, *subject* what that one calls it.
    *scopes* is what it may do by itself, besides what grants permit it.
    """

    name: str
    issuer: str
    subject: str
    scopes: tuple[Scope, ...] = ()

    @property
    def described(self) -> str:
        """What its issuer says it is, for the audit log."""
        return f"{self.issuer}: {self.subject}"


class Minted(Struct, frozen=True):
    """A *token*, and when it *expires* (seconds since 1970)."""

    token: str
    expires: int

    __repr__ = repr_without("token")
