"""Errors as answers: a reason phrase that explains (pip prints it) and RFC 9457 problem JSON (uv prints it)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import msgspec

from proxy.errors import LoginRequired, MethodNotAllowed, ProxyError, UpstreamFailed
from proxy.web.answers import Answer

#: A reason phrase is one line of visible ASCII (RFC 9112 section 4); longer ones get cut off by terminals, not by clients.
_REASON_LIMIT = 300
#: What clients log in by (RFC 7617).
_CHALLENGE = 'Basic realm="pypiproxy"'
_NOT_IN_A_REASON = re.compile(r"[^\x20-\x7e]+")


def reason_phrase(text: str) -> str:
    """*text* made fit for a status line."""
    return _NOT_IN_A_REASON.sub(" ", text)[:_REASON_LIMIT].strip()


def soon() -> int:
    """Seconds until a client may ask again: 1 or 2, so that those who failed together do not come back together.

    It says nothing about how long upstream is left alone.  pip obeys it five times without a word, so it has to be short; and
    it has to be a whole number: pip ends in a traceback on a fraction, poetry on a date.
    """
    return random.choice((1, 2))  # noqa: S311  # spreads clients, no secret


def problem(error: ProxyError, request_id: str = "", retry_after: Callable[[], int] = soon) -> Answer:
    """The answer for *error*, which the request *request_id* has met; *retry_after* draws the seconds in ``Retry-After``.

    It is never to be cached: an outage must not outlive itself.
    """
    detail = str(error) or error.title
    members: dict[str, object] = {
        "type": f"urn:pypiproxy:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": detail,
        "code": error.code,
    }
    if request_id:
        members["request_id"] = request_id
    if isinstance(error, UpstreamFailed):
        members["attempts"] = [
            {"upstream": attempt.upstream, "reason": attempt.reason, "seconds": round(attempt.elapsed, 3)}
            for attempt in error.attempts
        ]
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        ("Cache-Status", f"pypiproxy; detail={error.code}"),
    ]
    if error.passing:
        headers.append(("Retry-After", str(retry_after())))
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", error.allow))
    if isinstance(error, LoginRequired):
        headers.append(("WWW-Authenticate", _CHALLENGE))
    return Answer(error.status, headers, msgspec.json.encode(members), reason_phrase(f"{error.title}: {detail}"), error.code)
