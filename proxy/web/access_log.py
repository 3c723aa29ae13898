"""The access log: one event for each response that has ended."""

from __future__ import annotations

import time

from twisted.logger import LogLevel, globalLogPublisher

from proxy.core.events import Answered

#: It is published without a Logger, which spends more on each line than all else does (on checking its level).
_ACCESS, _INFO = "proxy.access", LogLevel.info
_LINE = '{client} {method} {path} {status} {bytes} {seconds:.3f} {cache} "{agent}"{cut} {request_id}'


def log_request(event: Answered, client: str, path: str, agent: str, request_id: str, *, cut: bool = False) -> None:
    """Log the response *event* to *client*.  *path* and *agent* are fit for a log; *cut*: the client did not get all of it."""
    globalLogPublisher(
        {
            "log_namespace": _ACCESS,
            "log_level": _INFO,
            "log_time": time.time(),
            "log_format": _LINE,
            "client": client,
            "method": event.method,
            "path": path,
            "status": event.status,
            "bytes": event.size,
            "seconds": event.seconds,
            "cache": event.word,
            "agent": agent,
            "cut": " cut off" if cut else "",
            "request_id": request_id,
        }
    )
