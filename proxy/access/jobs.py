"""CI jobs that somebody vouches for, and what they are given."""

from __future__ import annotations

from attrs import field, frozen

from proxy.access.roles import Scope


@frozen(slots=True)
class Job:
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


@frozen(slots=True)
class Minted:
    """A *token*, and when it *expires* (seconds since 1970)."""

    token: str = field(repr=False)
    expires: int
