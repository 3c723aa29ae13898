"""What asks issuers and exchanges their ID tokens, with clocks that a test can put ahead."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from zope.interface import implementer

from proxy.access.principals import Principal
from proxy.access.rights import GrantedRights
from proxy.accounts.accounts import Accounts
from proxy.accounts.jobs import JobTokens
from proxy.accounts.tokens import Tokens
from proxy.accounts.users import UsersFile
from proxy.core.audited import Audited
from proxy.identity.exchange import TokenExchange
from proxy.identity.issuers import Issuer, site_of
from proxy.interfaces import IAuditLog
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.settings import CiRule, CiSettings, IssuerSettings
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.memory import MemoryVersioned
from proxy.upstream.http.fetching import SiteFetcher
from proxy.upstream.http.identity import Identity
from tests.shelf import Shelf
from tests.support import wire
from tests.support.counter import Counter, post
from tests.support.logins import QUICK, basic
from tests.support.receiving import Shop
from tests.support.wheels import wheel

reactor: Any = default_reactor

JSON = "application/json"


class Ahead:
    """A reactor whose clock is ahead of the real one; timers go by the real one."""

    def __init__(self) -> None:
        self.by = 0.0

    def seconds(self) -> float:
        return float(reactor.seconds()) + self.by

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def wall(self) -> float:
        """The time of day that goes with it."""
        return time.time() + self.by


def asking(settings: IssuerSettings, ahead: Ahead) -> Issuer:
    """What asks the issuer of *settings*, and goes by the clock of *ahead*; it does not wait long."""
    site = replace(site_of(settings), connect_timeout=2.0, first_byte_timeout=0.5)
    observing = Observing(Inline(), UNRECORDED, time.time)
    who = Identity("tests", "tests", lambda: f"{random.getrandbits(64):016x}")  # no secret
    fetcher = SiteFetcher(site, reactor=reactor, identity=who, clock=time.time, observing=observing)
    return Issuer(settings, fetcher, ahead, Inline())  # type: ignore[arg-type]  # it is the real one, ahead


@implementer(IAuditLog)
class Written(Struct):
    """What was written down."""

    entries: list[Audited] = field(default_factory=list)

    def note(self, entry: Audited) -> None:
        self.entries.append(entry)


class ExchangePlace:
    """A site with an exchange for the jobs of the issuer at *url* by *rules*, which call it ``github``."""

    def __init__(self, url: str, rules: tuple[CiRule, ...], folder: Path, audience: str = "pypiproxy", tls: Any = None) -> None:
        self.ahead = Ahead()
        self.audit = Written()
        observing = Observing(Inline(), UNRECORDED, self.ahead.wall)
        users = UsersFile(
            folder / "users",
            expected=False,
            observing=observing,
            hashing=Inline(),
            changed=lambda: self.accounts.forget(),
            cost=QUICK,
        )
        tokens = Tokens(MemoryVersioned(self.ahead.wall), self.ahead.wall)
        self.accounts = Accounts(users, tokens, self.ahead, self.ahead.wall, Written())  # type: ignore[arg-type]
        self.issuer = asking(IssuerSettings(name="github", url=url), self.ahead)
        self.exchange = TokenExchange(
            CiSettings(audience=audience, issuers=(self.issuer.settings,), rules=rules),
            {url: self.issuer},
            JobTokens(tokens, self.accounts),
            self.audit,
            reactor=self.ahead,  # type: ignore[arg-type]  # it is the real one, ahead
            clock=self.ahead.wall,
            offload=Inline(),
        )
        self.shop = Shop("internal")
        closed, here = Shop("closed", takes_uploads=False), Shelf("shelf", wheel("here"))
        rights = GrantedRights()
        self.counter = Counter(
            self.shop, closed, shelves=[here], granted=rights, accounts=self.accounts, exchange=self.exchange
        ).open(tls)

    async def send(self, verb: str, members: object, root: str = "/") -> wire.Reply:
        """The answer to *members* in JSON."""
        return await post(self.counter.port, f"{root}_/oidc/{verb}", json.dumps(members).encode(), JSON)

    async def exchanged(self, id_token: str, root: str = "/") -> str:
        """What is given for *id_token*."""
        reply = await self.send("mint-token", {"token": id_token}, root)
        assert reply.status == 200, reply.body
        assert reply.json["success"] is True
        text: str = reply.json["token"]
        return text

    async def who(self, token: str) -> Principal | None:
        """Who has *token* by now, as a client sends it."""
        return await self.accounts.authenticate(basic("__token__", token).encode(), "127.0.0.1")

    async def refusal(self, token: str) -> tuple[int, str, str]:
        """Status, code and description of the answer to an ID token that is not exchanged."""
        reply = await self.send("mint-token", {"token": token})
        (error,) = reply.json["errors"]
        assert reply.json["message"] == "Token request failed"
        assert "token" not in reply.json
        return reply.status, error["code"], error["description"]

    async def close(self) -> None:
        await self.counter.close()
        await self.issuer.close()
        self.accounts.close()
