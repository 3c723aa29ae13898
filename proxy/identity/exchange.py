"""Tokens for CI jobs in exchange for ID tokens (trusted publishing, PEP 807).

Theory of operation.  An ID token says which job of which project it is for; its issuer, one of the configuration, vouches for
that with its signature.  The first rule that it fits says what the job may do, and a token with these rights is minted, which
lives for minutes.  An ID token may be exchanged more than once until it expires: GitLab and Jenkins give a job a single one for
all that it installs and publishes, and the answer to an exchange may get lost.  To refuse the second time would stop no thief
who is quick enough to be the first.

What an ID token fails with is told to its sender in words that say nothing of the rules: everybody can have ID tokens of a
public CI system.  The log says which rule comes closest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from proxy.access.claims import fulfil, texts, unfulfilled
from proxy.access.jobs import Job, Minted
from proxy.access.roles import Extent, Role, Scope
from proxy.core.audited import Audited, AuditOutcome
from proxy.core.bounded import BoundedTable
from proxy.core.networks import client_network
from proxy.errors import ExchangeRefused
from proxy.identity.idtokens import BadIdToken, stated, verified
from proxy.identity.issuers import Issuer, IssuerDown
from proxy.interfaces import Clock, IAuditLog, IExchange, IMinting, IOffload
from proxy.settings import CiRule, CiSettings

#: What may happen within a minute: exchanges from one address that fail, and tokens that one subject is given.
MOST_FAILURES, MOST_TOKENS = 30, 300
_MINUTE = 60.0
#: Addresses and subjects that are counted.
_COUNTED = 10_000
#: What is repeated of a claim (characters).
_SHOWN = 200
#: Claims that a client is shown, which has them already: they tell people what is wrong.
_TELLING = ("sub", "repository", "ref", "environment", "job_workflow_ref", "project_path", "namespace_path")
_ACTION = "exchange an ID token"


@implementer(IExchange)
class TokenExchange:
    """Exchanges tokens of *issuers* (by their URLs) for those that *minting* makes, by the rules of *settings*."""

    log = Logger()

    def __init__(
        self,
        settings: CiSettings,
        issuers: Mapping[str, Issuer],
        minting: IMinting,
        audit: IAuditLog,
        *,
        reactor: IReactorTime,
        clock: Clock,
        offload: IOffload,
    ) -> None:
        self.audience = settings.audience
        self._rules = settings.rules
        self._issuers = issuers
        self._minting = minting
        self._audit = audit
        self._clock = clock
        self._offload = offload
        self._failures = _PerMinute(MOST_FAILURES, reactor.seconds)
        self._tokens = _PerMinute(MOST_TOKENS, reactor.seconds)

    async def mint(self, id_token: str, index: str | None, origin: str) -> Minted:
        try:
            job, rule = await self._job(id_token, index)
        except ExchangeRefused as refused:
            self._audit.note(Audited("an ID token", origin, _ACTION, AuditOutcome.WRONG, index, what=refused.code))
            if refused.status < 500 and not self._failures.counts(client_network(origin)):
                raise ExchangeRefused.too_many("too many exchanges have failed") from refused
            raise
        if not self._tokens.counts(job.described):
            raise ExchangeRefused.too_many(f"{job.subject[:_SHOWN]} was given too many tokens")
        expires = int(self._clock() + rule.lifetime)
        token = await self._minting.mint(job, index, expires)
        self._audit.note(Audited(f"ci:{job.name}", origin, _ACTION, AuditOutcome.DONE, index, what=job.described[:_SHOWN]))
        return Minted(token, expires)

    async def burn(self, token: str, origin: str) -> None:
        name = await self._minting.burn(token)
        if name is not None:
            self._audit.note(Audited(f"ci:{name}", origin, "give back a token", AuditOutcome.DONE))

    async def _job(self, id_token: str, index: str | None) -> tuple[Job, CiRule]:
        """Whom *id_token* was issued for, and the rule that it fits.  Raises ExchangeRefused."""
        try:
            says = stated(id_token)
            issuer = self._issuers.get(says.issuer)
            if issuer is None:
                raise BadIdToken("invalid-issuer", f"the issuer of the token, {says.issuer[:_SHOWN]!r}, is not known here")
            key = await issuer.key(says.kid, says.algorithm)
            if key is None:
                raise BadIdToken("invalid-token", "the token is signed with a key that its issuer does not publish")
            claims = await self._offload.run(verified, id_token, says, key, self.audience, self._clock())
        except BadIdToken as error:
            raise ExchangeRefused(error.code, str(error)) from None
        except IssuerDown as error:
            raise ExchangeRefused("issuer-down", f"{error}; try again in a moment", 503) from None
        rules = [each for each in self._rules if each.issuer == issuer.settings.name]
        rule = next((each for each in rules if fulfil(claims, each.claims)), None)
        if rule is None:
            self._tell_closest(rules, claims)
            shown = "; ".join(f"{name}: {value[:_SHOWN]}" for name in _TELLING for value in texts((name,), claims)[:1])
            raise ExchangeRefused("invalid-publisher", f"the token is good, but no rule of this proxy is for its job ({shown})")
        scopes = () if rule.role is None else (Scope(Role(rule.role), Extent(rule.indexes, rule.projects)),)
        if index is not None and scopes and not scopes[0].extent.includes_index(index):
            raise ExchangeRefused("invalid-publisher", f"the token is good, but its job may do nothing on {index}")
        return Job(rule.name, issuer.settings.name, str(claims["sub"]), scopes), rule

    def _tell_closest(self, rules: Sequence[CiRule], claims: Mapping[str, object]) -> None:
        """Log what keeps *claims* from the rule that comes closest."""
        if not rules:
            return
        closest = min(rules, key=lambda rule: len(unfulfilled(rule.claims, claims)))
        way, patterns = unfulfilled(closest.claims, claims)[0]
        self.log.info(
            "an ID token of {subject!r} fits no rule: ci:{rule} wants {claim} to be one of {wanted!r}, and it is {stated!r}",
            subject=str(claims["sub"])[:_SHOWN],
            rule=closest.name,
            claim=".".join(way),
            wanted=list(patterns),
            stated=[each[:_SHOWN] for each in texts(way, claims)[:3]],
        )


class _PerMinute:
    """Counts what each of many does within a minute, of which at most *most* are in order; *now* is a steady clock."""

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        self._most = most
        self._now = now
        self._counts: BoundedTable[str, tuple[float, int]] = BoundedTable(_COUNTED, lambda entry: 1)

    def counts(self, name: str) -> bool:
        """Count another one of *name*, and return whether it is in order."""
        began, count = self._counts.get(name) or (self._now(), 0)
        if self._now() - began >= _MINUTE:
            began, count = self._now(), 0
        self._counts.put(name, (began, count + 1))
        return count < self._most
