"""How fresh a page is and what a client is to be given: one pure decision (RFC 9111 section 4, RFC 5861).

The table in ``docs/design.md`` is this function; the cache only performs what is decided here.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from proxy.model import Condition, Head
from proxy.settings import PageLimits

#: A page in the last part of its lifetime is refreshed in the background, so that hot pages never expire.
REFRESH_AHEAD = 0.8
#: The shortest lifetime that upstream's ``Cache-Control`` brings about (seconds): a build asks for a page more than once.
SHORTEST = 10.0
#: A client's ``no-cache`` refreshes a page at most this often, in seconds.
FORCED_REFRESH_PAUSE = 5.0


class Action(enum.Enum):
    """What the page cache does for one request."""

    SERVE = "serve the record"
    SERVE_AND_REFRESH = "serve the record, refresh it in the background"
    REFRESH = "refresh it; serve the record when that takes longer than the soft deadline or fails"
    FETCH = "ask upstream and wait: there is nothing to serve"
    MISSING = "answer 404 from memory"


class Decision(Struct, frozen=True):
    """An action, and the seconds the record has left of its freshness (negative: stale for so long)."""

    action: Action
    ttl: float


def lifetime(head: Head, limits: PageLimits) -> float:
    """Seconds a record is fresh after upstream confirmed it: upstream may shorten the index's ``ttl``, never lengthen it.

    It may shorten it to :data:`SHORTEST` and no further, whatever its ``Cache-Control`` says.
    """
    limit = limits.ttl if head.found else limits.negative_ttl
    return limit if head.max_age is None else min(limit, max(SHORTEST, head.max_age))


def decide(
    head: Head | None,
    age: float,
    limits: PageLimits,
    condition: Condition,
    *,
    resting: bool = False,
    no_cache: bool = False,
) -> Decision:
    """Decide what a client gets who asks for the page of *head*, which upstream confirmed *age* seconds ago.

    *resting*: the last refresh of this very page failed.  *no_cache*: the client asked for an end-to-end reload.
    """
    if head is None:
        return Decision(Action.FETCH, 0.0)
    if condition is Condition.OFFLINE:
        return Decision(Action.SERVE if head.found else Action.FETCH, 0.0)
    fresh_for = lifetime(head, limits)
    ttl = fresh_for - age
    up = condition is Condition.UP and not resting
    forced = no_cache and age >= FORCED_REFRESH_PAUSE
    if not head.found:
        return Decision(Action.MISSING if ttl > 0 and not (forced and up) else Action.FETCH, ttl)
    if ttl > 0:
        if forced and up:
            return Decision(Action.REFRESH, ttl)
        ahead = age >= fresh_for * REFRESH_AHEAD and up
        return Decision(Action.SERVE_AND_REFRESH if ahead else Action.SERVE, ttl)
    if limits.stale_if_error is not None and -ttl > limits.stale_if_error:
        return Decision(Action.FETCH, ttl)
    return Decision(Action.REFRESH if up else Action.SERVE_AND_REFRESH, ttl)
