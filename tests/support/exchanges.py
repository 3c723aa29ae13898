"""What asks issuers and exchanges their ID tokens, with clocks that a test can put ahead."""

from __future__ import annotations

import random
import time
from typing import Any

from attrs import evolve
from twisted.internet import reactor as default_reactor

from proxy.identity.issuers import Issuer, site_of
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.settings import IssuerSettings
from proxy.statistics.recorders import UNRECORDED
from proxy.upstream.http.fetching import SiteFetcher
from proxy.upstream.http.identity import Identity

reactor: Any = default_reactor


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
    site = evolve(site_of(settings), connect_timeout=2.0, first_byte_timeout=0.5)
    observing = Observing(Inline(), UNRECORDED, time.time)
    who = Identity("tests", "tests", lambda: f"{random.getrandbits(64):016x}")  # no secret
    fetcher = SiteFetcher(site, reactor=reactor, identity=who, clock=time.time, observing=observing)
    return Issuer(settings, fetcher, ahead, Inline())  # type: ignore[arg-type]  # it is the real one, ahead
