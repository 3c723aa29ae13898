"""Tokens of CI jobs: issued for minutes, and given back when they are not needed any more."""

from __future__ import annotations

import os

from zope.interface import implementer

from proxy.access.jobs import Job
from proxy.access.tokens import Confinement, narrowed, read_token
from proxy.accounts.accounts import Accounts
from proxy.accounts.tokens import IssuedScope, Tokens
from proxy.errors import NotFound
from proxy.interfaces import IMinting


@implementer(IMinting)
class JobTokens:
    """Issues tokens of *tokens*; *accounts* remembers those that were right."""

    def __init__(self, tokens: Tokens, accounts: Accounts) -> None:
        self._tokens = tokens
        self._accounts = accounts

    async def mint(self, job: Job, index: str | None, expires: float) -> str:
        own = [IssuedScope(each.role, each.extent.indexes, each.extent.projects) for each in job.scopes]
        _, text = await self._tokens.issue(None, own, expires, job=job.name)
        if index is None:
            return text
        return str(narrowed(read_token(text), Confinement(indexes=(index,)), os.urandom(32)))

    async def burn(self, token: str) -> str | None:
        found = await self._tokens.principal(token)
        if found is None or found.principal.job is None:
            return None
        principal = found.principal
        try:
            await self._tokens.revoke(principal.name)
        except NotFound:
            return None  # somebody else was quicker
        finally:
            self._accounts.forget_token(principal.name)
        return principal.job
