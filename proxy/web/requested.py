"""One request that is being answered, as whoever answers it at last knows it: whichever way it has come."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from proxy.core.events import RequestPlace
from proxy.core.visits import Subject
from proxy.web.callers import Caller
from proxy.web.heads import RequestHead
from proxy.web.responding import Outlet


class About(NamedTuple):
    """What a request is counted by: in metrics, and in statistics."""

    place: RequestPlace | None
    subject: Subject | None


class Requested(Struct, frozen=True, eq=False):
    """The request *head* of *caller* on *outlet*, which came when it was *began* (seconds); *secure*: over TLS."""

    head: RequestHead
    caller: Caller
    outlet: Outlet
    about: About
    began: float
    secure: bool
