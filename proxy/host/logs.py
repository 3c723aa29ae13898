"""Log lines: twistd's own text, or NDJSON (``--log-format=json``): one flat object a line.

In JSON ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message`` are always there, then the
event's own fields as far as they are numbers, texts or truth values, and ``traceback`` for a failure.
"""

from __future__ import annotations

import errno
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, cast

import msgspec
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, formatEventAsClassicLogText, formatTime
from twisted.python.logfile import LogFile
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from proxy.errors import ConfigError

_SCALARS = (str, int, float, bool, type(None))

#: What terminals obey, and what some readers take for the end of a line: escaped in every line, whoever's text it came from.
_UNSEEN = (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_ESCAPED = {each: f"\\x{each:02x}" if each < 0x100 else f"\\u{each:04x}" for each in _UNSEEN}
_JSON_ESCAPED = {each: f"\\u{each:04x}" for each in _UNSEEN}


def json_line(event: LogEvent) -> str:
    """*event* as one line of JSON, with its line end."""
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": event.get("log_namespace", "-"),
        "message": formatEvent(event),
    }
    if (failure := event.get("log_failure")) is not None:
        fields["traceback"] = failure.getTraceback()
    if "isError" not in event:  # what twisted.python.log adds of its own is in the message already
        for key, value in event.items():
            if isinstance(value, _SCALARS) and not key.startswith("log_"):
                fields.setdefault(key, value)
    try:
        encoded = msgspec.json.encode(fields)
    except (UnicodeEncodeError, OverflowError):
        encoded = msgspec.json.encode({key: _plain(value) for key, value in fields.items()})
    line = encoded.decode()
    return (line if line.isprintable() else line.translate(_JSON_ESCAPED)) + "\n"


def _plain(value: Any) -> Any:
    """*value* without what JSON cannot carry: lone surrogates (undecodable bytes of a request) and huge integers."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)
    return value


def text_line(event: LogEvent) -> str:
    """*event* as twistd writes it, with its line end; access lines without the detour through format strings."""
    if event.get("log_namespace") == ACCESS:
        return (
            f"{_timestamp(int(event['log_time']))} [{ACCESS}#info] {event['client']} {event['method']} {event['path']} "
            f'{event["status"]} {event["bytes"]} {event["seconds"]:.3f} {event["cache"]} "{event["agent"]}"{event["cut"]}\n'
        )
    return (formatEventAsClassicLogText(event) or "").translate(_ESCAPED)


@lru_cache(maxsize=2)
def _timestamp(second: int) -> str:
    return formatTime(second)


FORMATS: Mapping[str, Callable[[LogEvent], str]] = {"text": text_line, "json": json_line}

#: The namespace of the access log.
ACCESS = "proxy.access"
#: How long a line may wait for others to be written with (seconds); warnings and errors do not wait.
_PATIENCE = 0.05
#: Why a file may not open that will when the disk is in order.
_FOR_NOW = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
_SOON = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@implementer(ILogObserver)
class LogLines:
    """Writes each event but debug ones to *out* as a line made by *line*, many with one system call while the reactor runs.

    Lines that cannot be written (the disk is full) are dropped; the first one that can be says how many.
    """

    def __init__(self, out: IO[Any], line: Callable[[LogEvent], str], reactor: Any) -> None:
        self._out = out
        self._line = line
        self._reactor = reactor
        self._waiting: list[str] = []
        self._dropped = 0

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if level is LogLevel.debug:
            return
        self._waiting.append(self._line(event))
        if level in _SOON or not self._reactor.running or not isInIOThread():
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


class _WhenItCanBeOpened:
    """The file of a log that cannot be opened for now; each write tries again.  Raises OSError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: LogFile | None = None

    def write(self, text: str) -> None:
        if self._file is None:
            self._file = LogFile.fromFullPath(self._path)
        self._file.write(text)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def rotate(self) -> None:
        if self._file is not None:
            self._file.rotate()


def observer(form: str, twistd: Mapping[str, Any], reactor: Any) -> LogLines:
    """An observer that writes lines in *form* (``text``, ``json``) to where twistd's own options say the log goes.

    That is the file of ``--logfile`` (``-``: standard output), else standard output under ``--nodaemon``, else ``twistd.log``.
    SIGUSR1 rotates a file, as with twistd's own.  Raises ConfigError for a destination that takes no lines.
    """
    line = FORMATS[form]
    name = twistd.get("logfile")
    if name == "-" or (twistd.get("nodaemon") and not name):
        if not twistd.get("nodaemon"):
            raise ConfigError("--logfile=-: a daemon has no standard output; expected a file")
        return LogLines(sys.stdout, line, reactor)
    file: LogFile | _WhenItCanBeOpened
    try:
        file = LogFile.fromFullPath(name or "twistd.log")
    except OSError as error:
        if error.errno not in _FOR_NOW:
            raise ConfigError(f'--logfile = "{name}": {error.strerror}; expected a file that can be written') from error
        file = _WhenItCanBeOpened(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(file.rotate))
    # LogFile writes texts as UTF-8, though it is no typing.IO
    return LogLines(cast(IO[Any], file), line, reactor)
