"""The access log: one event for each response that has ended."""

from __future__ import annotations

import time

from twisted.logger import LogLevel, globalLogPublisher

from proxy.core.events import Answered
from proxy.web.user_agents import UserAgent

#: It is published without a Logger, which spends more on each line than all else does (on checking its level).
_ACCESS, _INFO = "proxy.access", LogLevel.info
_LINE = '{client} {method} {path} {status} {bytes} {seconds:.3f} {cache} "{agent}"{cut} {request_id}'


def log_request(event: Answered, client: str, path: str, user_agent: UserAgent, request_id: str, cut: str) -> None:
    """Log the response *event* to *user_agent* at *client*.  *path* is fit for a log; *cut*: the client lacks a part."""
    method, status, size, seconds, word, _, _ = event
    globalLogPublisher(
        {
            "log_namespace": _ACCESS,
            "log_level": _INFO,
            "log_time": time.time(),
            "log_format": _LINE,
            "client": client,
            "method": method,
            "path": path,
            "status": status,
            "bytes": size,
            "seconds": seconds,
            "cache": word,
            "agent": user_agent.text,
            "shown": user_agent.shown,
            "cut": cut,
            "request_id": request_id,
        }
    )
