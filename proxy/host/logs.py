"""Log lines: text, or NDJSON (``--log-format=json``), which is one flat object per line.

In text, requests have a line in the short form of :mod:`proxy.core.access_line` or in full; everything else is written as
twistd would.  In JSON ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message`` are always there, then the
event's own fields as far as they are numbers, texts or truth values, and ``traceback`` for a failure.

What Twisted says of its own insides while it starts and stops is left out, unless ``--log-level=debug`` asks for it.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent, formatEventAsClassicLogText, formatTime
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from proxy.core.access_line import short
from proxy.errors import ConfigError
from proxy.host.logfile import LogFile
from proxy.mechanism.request_ids import current_request_id

_log = Logger()

#: What is logged of a request (:mod:`proxy.web.access_log`).
_OF_A_REQUEST = ("client", "method", "path", "status", "bytes", "seconds", "cache", "agent", "cut", "request_id")
_of_a_request = itemgetter(*_OF_A_REQUEST)

_SCALARS = (str, int, float, bool, type(None))

#: What terminals obey, and what some readers take for the end of a line: escaped in every line, whoever's text it came from.
_UNSEEN = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_ESCAPED = {each: f"\\x{each:02x}" if each < 0x100 else f"\\u{each:04x}" for each in _UNSEEN}
_JSON_ESCAPED = {each: f"\\u{each:04x}" for each in _UNSEEN}


def json_line(event: LogEvent) -> str:
    """*event* as one line of JSON, with its line end."""
    return _json(event, formatEvent(event))


def short_json_line(event: LogEvent) -> str:
    """*event* as `json_line` has it, but the message of a request in the short form; the other members have the rest."""
    return _json(event, _short(event, "").lstrip() if event.get("log_namespace") == ACCESS else formatEvent(event))


def _json(event: LogEvent, message: str) -> str:
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": event.get("log_namespace", "-"),
        "message": message,
    }
    if (failure := event.get("log_failure")) is not None:
        fields["traceback"] = failure.getTraceback()
    if event.get("log_namespace") == ACCESS:
        fields.update(zip(_OF_A_REQUEST, _of_a_request(event), strict=True))
        if "\\" in (agent := event["agent"]):
            fields["agent"] = _unescaped(agent) if len(agent) <= _REMEMBERED else _unescaped.__wrapped__(agent)
    elif "isError" not in event:  # what twisted.python.log adds of its own is in the message already
        for key, value in event.items():
            if isinstance(value, _SCALARS) and not key.startswith("log_"):
                fields.setdefault(key, value)
    try:
        encoded = msgspec.json.encode(fields)
    except (UnicodeEncodeError, OverflowError):
        encoded = msgspec.json.encode({key: _plain(value) for key, value in fields.items()})
    line = encoded.decode()
    return (line if line.isprintable() else line.translate(_JSON_ESCAPED)) + "\n"


#: The longest agents that are remembered (characters).
_REMEMBERED = 2048


@lru_cache(maxsize=1024)
def _unescaped(text: str) -> str:
    """*text* as the client sent it: JSON has an escape for everything."""
    return text.encode("ascii", "backslashreplace").decode("unicode_escape")


def _plain(value: Any) -> Any:
    """*value* without what JSON cannot carry: lone surrogates (undecodable bytes of a request) and huge integers."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)
    return value


def short_line(event: LogEvent) -> str:
    """*event* as `text_line` has it, but requests in the short form."""
    if event.get("log_namespace") == ACCESS:
        return _short(event, _timestamp(int(event["log_time"]))) + "\n"
    return text_line(event)


def _short(event: LogEvent, time: str) -> str:
    """The short form of a request, which begins with *time*."""
    return short(
        time,
        event["client"],
        event["method"],
        event["path"],
        event["status"],
        event["bytes"],
        event["seconds"],
        event["cache"],
        event["shown"],
        event["cut"],
        event["request_id"],
    )


def text_line(event: LogEvent) -> str:
    """*event* as twistd writes it, with its line end; access lines without the detour through format strings."""
    if event.get("log_namespace") == ACCESS:
        return (
            f"{_timestamp(int(event['log_time']))} [{ACCESS}#info] {event['client']} {event['method']} {event['path']} "
            f'{event["status"]} {event["bytes"]} {event["seconds"]:.3f} {event["cache"]} "{event["agent"]}"{event["cut"]} '
            f"{event['request_id']}\n"
        )
    text = formatEventAsClassicLogText(event) or ""
    if (request_id := event.get("request_id")) is not None:
        message, end, traceback = text.partition("\n")
        text = f"{message} (request {request_id}){end}{traceback}"
    return text.translate(_ESCAPED)


@lru_cache(maxsize=2)
def _timestamp(second: int) -> str:
    return formatTime(second)


FORMATS = ("text", "json")
ACCESS_LOGS = ("off", "short", "full")
LEVELS = ("debug", "info", "warn", "error")

#: The namespace of the access log.
ACCESS = "proxy.access"
#: How long a line may wait for others to be written with (seconds); warnings and errors do not wait.
_PATIENCE = 0.05
#: Where Twisted's older parts log; what is an error or a warning there is no detail.
_LEGACY = "log_legacy"
#: What twistd says of itself at the start.
_STARTING = frozenset({"twistd {version} ({exe} {pyVersion}) starting up.", "reactor class: {reactor}."})
_SOON = (LogLevel.warn, LogLevel.error, LogLevel.critical)


class Out(Protocol):
    """What takes lines.  Raises OSError."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


@implementer(ILogObserver)
class LogLines:
    """Writes events of *level* and above to *out* as lines made by *line*, many with one system call while the reactor runs.

    Requests are written if *access* says so, whatever the level.  What is logged by work for a request has the id of that.
    Lines that cannot be written (the disk is full) are dropped; the first one that can be says how many.
    """

    def __init__(
        self, out: Out, line: Callable[[LogEvent], str], reactor: Any, *, level: LogLevel = LogLevel.info, access: bool = True
    ) -> None:
        self._out = out
        self._line = line
        self._reactor = reactor
        self._access = access
        self._level = level
        self._below = frozenset(each for each in LogLevel.iterconstants() if each < level)
        self._waiting: list[str] = []
        self._dropped = 0

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == ACCESS:
            # Only the reactor's thread answers requests.
            if self._access:
                self._add(event, at_once=not self._reactor.running)
            return
        level = event.get("log_level")
        if level in self._below or (self._level is not LogLevel.debug and _is_internal(event)):
            return
        # The handler of a signal, for one, logs in the midst of whatever request is being answered.
        if (request_id := current_request_id.get()) and "request_id" not in event and _is_ours(event):
            event = {**event, "request_id": request_id}
        self._add(event, at_once=level in _SOON or not self._reactor.running or not isInIOThread())

    def _add(self, event: LogEvent, *, at_once: bool) -> None:
        self._waiting.append(self._line(event))
        if at_once:
            self.flush()
        elif len(self._waiting) == 1:
            self._reactor.callLater(_PATIENCE, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        told = [] if not self._dropped else [self._line(_dropped(self._dropped))]
        try:
            self._out.write("".join([*told, *waiting]))
            self._out.flush()
        except OSError:
            self._dropped += len(waiting)
        else:
            self._dropped = 0


def _dropped(count: int) -> LogEvent:
    """What is said of lines that could not be written."""
    return {
        "log_format": "{lines} lines of this log could not be written and were dropped",
        "lines": count,
        "log_namespace": __name__,
        "log_level": LogLevel.warn,
        "log_time": time.time(),
    }


def _is_ours(event: LogEvent) -> bool:
    """Whether a part of the proxy has logged *event*."""
    return str(event.get("log_namespace", "")).startswith("proxy.")


def _is_internal(event: LogEvent) -> bool:
    """Whether Twisted says *event* of its insides: factories, ports, the reactor's class."""
    if event.get("log_namespace") == _LEGACY:
        return not event.get("isError") and "warning" not in event
    return event.get("log_format") in _STARTING


class WantedLog(Struct, frozen=True, kw_only=True):
    """What the log is to have in it, as options name it: one of `FORMATS`, of `ACCESS_LOGS` and of `LEVELS`."""

    form: str = "text"
    access: str = "short"
    level: str = "info"

    def check(self) -> None:
        """Raise ConfigError for a word that is not known."""
        options = (
            ("log-format", self.form, FORMATS),
            ("access-log", self.access, ACCESS_LOGS),
            ("log-level", self.level, LEVELS),
        )
        for option, value, known in options:
            if value not in known:
                raise ConfigError(f'--{option} = "{value}": expected {", ".join(known[:-1])} or {known[-1]}')

    @property
    def described(self) -> str:
        """What the log has of requests, in words."""
        if self.form == "json":
            return "nothing of requests" if self.access == "off" else "one object per request"
        return {"off": "nothing of requests", "short": "one line per request", "full": "one long line per request"}[self.access]

    @property
    def line(self) -> Callable[[LogEvent], str]:
        """What makes a line of an event."""
        if self.form == "json":
            return short_json_line if self.access == "short" else json_line
        return short_line if self.access == "short" else text_line


def destination(twistd: Mapping[str, Any]) -> str | None:
    """The file that twistd's own options send the log to; ``None``: standard output.

    That is the file of ``--logfile`` (``-``: standard output), else standard output under ``--nodaemon``, else ``twistd.log``.
    Raises ConfigError for a daemon without a file.
    """
    name: str | None = twistd.get("logfile")
    if name == "-" or (twistd.get("nodaemon") and not name):
        if not twistd.get("nodaemon"):
            raise ConfigError("--logfile=-: a daemon has no standard output; expected a file")
        return None
    return name or "twistd.log"


def observer(wanted: WantedLog, twistd: Mapping[str, Any], reactor: Any) -> LogLines:
    """An observer that writes what is *wanted* to the `destination`.

    *wanted* has been checked.  SIGUSR1 rotates a file, as with twistd's own; SIGUSR2 reopens it.  Raises ConfigError for a
    destination that takes no lines.
    """
    level, access = LogLevel.lookupByName(wanted.level), wanted.access != "off"
    path = destination(twistd)
    if path is None:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            _when(number, lambda: _log.info("the log is not a file: there is nothing to rotate or reopen"), reactor)
        return LogLines(sys.stdout, wanted.line, reactor, level=level, access=access)
    file = LogFile(path)
    lines = LogLines(file, wanted.line, reactor, level=level, access=access)

    def reopen() -> None:
        lines.flush()
        try:
            file.reopen()
        except OSError as error:
            _log.error(
                "the log file {path} cannot be reopened: {reason}; the old one is used", path=path, reason=error.strerror
            )
        else:
            _log.info("the log file was reopened")

    _when(signal.SIGUSR1, file.rotate, reactor)
    _when(signal.SIGUSR2, reopen, reactor)
    return lines


def _when(number: signal.Signals, act: Callable[[], None], reactor: Any) -> None:
    """Have *reactor* call *act* when the signal *number* comes, unless somebody else has it or it is ignored."""
    if signal.getsignal(number) is signal.SIG_DFL:
        signal.signal(number, lambda number, frame: reactor.callFromThread(act))
