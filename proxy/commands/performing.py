"""An operation performed by the command itself, on a data directory that no proxy uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogBeginner,
)
from twisted.python.failure import Failure

from proxy.commands.asking import OperationFailed
from proxy.errors import InUse, ProxyError
from proxy.host import datadir
from proxy.settings import Settings

#: Operations that a data directory of an earlier version is not converted for.
_READING = frozenset({"backup", "claims", "ls", "pins", "recent", "stats", "tokens", "upstreams", "users"})


def perform(settings: Settings, operation: str, arguments: dict[str, Any], report: Callable[[Any], None]) -> Any:
    """What *operation* returns.  The data directory is claimed as long as that takes: no proxy can start meanwhile.

    Raises ConfigError when the directory cannot be used or claimed, or would be converted for an operation that only reads;
    ProxyError as the operation, KeyboardInterrupt.
    """
    # Importing the reactor installs one, which commands that ask a running proxy do not need.
    from twisted.internet import reactor as default_reactor

    from proxy.service import build

    reactor: Any = default_reactor
    _log_to_stderr()
    if _only_reads(operation, arguments):
        datadir.refuse_earlier(settings.server.data_dir)
    try:
        claim = datadir.claim(settings.server.data_dir)
    except InUse as error:
        raise OperationFailed(
            f"{settings.server.data_dir}: process {error.owner} works on it and answers no commands: "
            "a proxy that starts or stops, or another command; try again when it is done"
        ) from error
    try:
        service = build(settings, reactor, serving=False)
        outcome: list[Any] = []

        async def run() -> None:
            service.startService()
            try:
                outcome.append(await service.administration.operations[operation](report, **arguments))
            except ProxyError:
                outcome.append(Failure())
            finally:
                await service.stopService()

        def begin() -> None:
            running = Deferred.fromCoroutine(run())
            reactor.addSystemEventTrigger("before", "shutdown", lambda: _cancelled(running))
            running.addErrback(lambda failure: None if failure.check(CancelledError) else outcome.append(failure))
            running.addBoth(lambda _: reactor.callLater(0, _stop, reactor))

        reactor.callWhenRunning(begin)
        reactor.run()
    finally:
        claim.release()
    if not outcome:
        raise KeyboardInterrupt
    (said, *_) = outcome
    if isinstance(said, Failure):
        said.raiseException()
    return said


def _only_reads(operation: str, arguments: Mapping[str, Any]) -> bool:
    return operation in _READING or (operation == "verify" and not arguments.get("repair")) or bool(arguments.get("dry"))


def _cancelled(running: Deferred[None]) -> Deferred[None]:
    """Cancel *running* and wait for its end."""
    ended: Deferred[None] = Deferred()
    running.addBoth(lambda _: ended.callback(None))
    running.cancel()
    return ended


def _stop(reactor: Any) -> None:
    with suppress(ReactorNotRunning):  # an interrupt was faster
        reactor.stop()


def _log_to_stderr() -> None:
    """Print warnings and errors, as sentences like those of commands; the rest is not what was asked for.

    An upstream that fails is left out: the command reports what failed because of it.
    """
    loudness = LogLevelFilterPredicate(LogLevel.warn)
    loudness.setLogLevelForNamespace("proxy.upstream", LogLevel.critical)
    loud = FilteringLogObserver(FileLogObserver(sys.stderr, _line), [loudness])
    globalLogBeginner.beginLoggingTo([loud], redirectStandardIO=False)


def _line(event: LogEvent) -> str:
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return f"{'warning' if event['log_level'] is LogLevel.warn else 'error'}: {text}\n"
