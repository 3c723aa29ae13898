"""The tokens that were issued: records of the ledger's database, which nothing can bring back once they are lost.

A record has what proves a token, not the token (:mod:`proxy.access.tokens`).  It is read for each credential that is not
remembered; a token that is revoked or has expired has no record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from proxy.access.principals import Principal, PrincipalKind
from proxy.access.roles import Extent, Role, Scope
from proxy.access.tokens import BadToken, confinements, is_token_id, new_token, read_token
from proxy.errors import NotFound, RightsUnknown, StorageFailed
from proxy.interfaces import Clock, IVersionedRecords
from proxy.model import Change

_FOLDER, _USES = "token", "token-use"
#: A use is written if the one that is written is older than this (seconds).
_USES_APART = 3600.0


class IssuedScope(msgspec.Struct, frozen=True):
    """A role, and where a token has it."""

    role: Role
    indexes: tuple[str, ...]
    projects: tuple[str, ...]

    @property
    def scope(self) -> Scope:
        return Scope(self.role, Extent(self.indexes, self.projects))


class IssuedToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a token: what proves it (a public key), whose it is, and what it may do, ``None``: what its user may.

    It is a user's, or a CI *job*'s.  *bound*: the user was in the file of users when it was issued, *listed*: in the directory;
    it is valid as long as one of them has the user.
    """

    key: bytes
    user: str | None
    created: float
    own: tuple[IssuedScope, ...] | None = None
    expires: float | None = None
    job: str | None = None
    bound: bool = False
    listed: bool = False


class ValidToken(Struct, frozen=True):
    """Whose a token is, and until when it is valid (seconds since 1970).

    ``until_removed`` is the user who has to be in the file of users for that, ``until_unlisted`` the one who has to be there or
    in the directory; ``None``: nobody.
    """

    principal: Principal
    expires: float | None
    until_removed: str | None
    until_unlisted: str | None


_decode_issued = msgspec.json.Decoder(IssuedToken).decode
_decode_time = msgspec.json.Decoder(float).decode


def _unknown(error: Exception) -> RightsUnknown:
    return RightsUnknown(f"which tokens are valid cannot be read for now: {error}")


class Tokens:
    """The tokens in *records*."""

    def __init__(self, records: IVersionedRecords, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def issue(
        self,
        user: str | None,
        own: Sequence[IssuedScope] | None,
        expires: float | None,
        *,
        job: str | None = None,
        bound: bool = False,
        listed: bool = False,
    ) -> tuple[str, str]:
        """Issue a token for *user*, or for a *job*: its id, and its text, which nobody can obtain afterwards.

        A *bound* one is valid as long as *user* is in the file of users, a *listed* one also if the directory has *user*.

        Raises StorageFailed.
        """
        while True:
            token, key = new_token(os.urandom(40))
            issued = IssuedToken(key, user, self._clock(), None if own is None else tuple(own), expires, job, bound, listed)
            change = Change(f"{_FOLDER}/{token.id}", msgspec.json.encode(issued), expects=0, expires=expires)
            if await self._records.apply([change]) is not None:
                return token.id, str(token)

    async def principal(self, text: str) -> ValidToken | None:
        """Whose the token *text* is; ``None`` if it is not valid.

        Raises RightsUnknown while that cannot be read.
        """
        try:
            token = read_token(text)
            found = await self._records.read(f"{_FOLDER}/{token.id}")
            if found is None:
                return None
            issued = _decode_issued(found.value)
            confined = confinements(token, issued.key)
        except BadToken:
            return None
        except (StorageFailed, msgspec.MsgspecError) as error:
            raise _unknown(error) from error
        ends = [each for each in (issued.expires, *(each.expires for each in confined)) if each is not None]
        if ends and min(ends) <= self._clock():
            return None
        await self._used(token.id, issued.expires)
        own = None if issued.own is None else tuple(each.scope for each in issued.own)
        narrowed = tuple(each.extent for each in confined)
        principal = Principal(PrincipalKind.TOKEN, token.id, issued.user, own=own, narrowed=narrowed, job=issued.job)
        bound, listed = issued.user if issued.bound else None, issued.user if issued.listed else None
        return ValidToken(principal, min(ends, default=None), bound, listed)

    async def look(self) -> None:
        """Find out whether it can be told which tokens are valid.  Raises RightsUnknown while it cannot."""
        try:
            await self._records.read(f"{_FOLDER}/")
        except StorageFailed as error:
            raise _unknown(error) from error

    async def _used(self, name: str, expires: float | None) -> None:
        """Note that a token was used just now, at most once an hour: what cannot be written is no matter."""
        key, now = f"{_USES}/{name}", self._clock()
        with suppress(StorageFailed, msgspec.MsgspecError):
            found = await self._records.read(key)
            if found is None or not 0 <= now - _decode_time(found.value) < _USES_APART:
                await self._records.apply([Change(key, msgspec.json.encode(now), expires=expires)])

    async def issued(self) -> Mapping[str, tuple[IssuedToken, float | None]]:
        """The valid tokens by id, each with its last use to the hour.  Raises StorageFailed."""
        uses = {each.key.rpartition("/")[2]: _decode_time(each.value) for each in await self._records.scan(f"{_USES}/")}
        found = await self._records.scan(f"{_FOLDER}/")
        names = ((each.key.rpartition("/")[2], each.value) for each in found)
        return {name: (_decode_issued(value), uses.get(name)) for name, value in names}

    async def revoke(self, name: str) -> IssuedToken:
        """Revoke the token with the id *name*.  Raises NotFound, StorageFailed."""
        found = await self._records.read(f"{_FOLDER}/{name}") if is_token_id(name) else None
        if found is None:
            raise NotFound(f"there is no token {name!r}: pypiproxy token list prints those that are valid")
        await self._records.apply([Change(f"{_FOLDER}/{name}", None), Change(f"{_USES}/{name}", None)])
        return _decode_issued(found.value)

    async def revoke_of(self, user: str) -> list[str]:
        """Revoke all tokens of *user*, and return their ids.  Raises StorageFailed."""
        names = [name for name, (issued, _) in (await self.issued()).items() if issued.user == user]
        await self._records.apply([Change(f"{folder}/{name}", None) for name in names for folder in (_FOLDER, _USES)])
        return names
