"""Logs as NDJSON: one flat object a line, for ``--log-format=json``.

The text format is twistd's own.  ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message`` are always there, then the
event's own fields as far as they are numbers, texts or truth values, and ``traceback`` for a failure.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, cast

import msgspec
from twisted.logger import FileLogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.logfile import LogFile

from proxy.errors import ConfigError

_SCALARS = (str, int, float, bool, type(None))


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
    return encoded.decode() + "\n"


def _plain(value: Any) -> Any:
    """*value* without what JSON cannot carry: lone surrogates (undecodable bytes of a request) and huge integers."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)
    return value


def json_observer(twistd: Mapping[str, Any], reactor: Any) -> FileLogObserver:
    """An observer that writes NDJSON to where twistd's own options say the log goes.

    That is the file of ``--logfile`` (``-``: standard output), else standard output under ``--nodaemon``, else ``twistd.log``.
    SIGUSR1 rotates a file, as with twistd's own format.  Raises ConfigError for a destination that takes no lines.
    """
    if twistd.get("syslog"):
        raise ConfigError("--log-format=json: cannot go to --syslog; expected --logfile FILE or --nodaemon beside it")
    name = twistd.get("logfile")
    if name == "-" or (twistd.get("nodaemon") and not name):
        if not twistd.get("nodaemon"):
            raise ConfigError("--logfile=-: a daemon has no standard output; expected a file")
        return FileLogObserver(sys.stdout, json_line)
    try:
        file = LogFile.fromFullPath(name or "twistd.log")
    except OSError as error:
        raise ConfigError(f'--logfile = "{name}": {error.strerror}; expected a file that can be written') from error
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(file.rotate))
    # LogFile writes texts as UTF-8, though it is no typing.IO
    return FileLogObserver(cast(IO[Any], file), json_line)
