"""The configuration is read again while the service runs: refused as a whole, or in effect from the next request on.

Theory of operation.  The file is read and checked in a thread, exactly as at the start.  What needs a restart stays as it is,
and is named.  Then the service builds another generation and puts it in the place of the present one; whatever fails up to that
point changes nothing.  One reload at a time.  Each is recorded in the audit log and in the log, with what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from proxy.access.principals import OPERATOR
from proxy.composition.starting import ConfigSource, refuse_start
from proxy.config.changes import ConfigChange, changes, in_effect, index_notes
from proxy.core.audited import Audited, AuditOutcome
from proxy.errors import BadRequest, ConfigError
from proxy.host.supervisor import tell_ready, tell_reloading
from proxy.interfaces import IAuditLog, IOffload, Operation, Report
from proxy.mechanism.flight import swallow
from proxy.settings import Settings

#: Changes that are listed in one line of the log.
_LISTED = 20


class Reloadable(Protocol):
    """What has a configuration: the service."""

    @property
    def settings(self) -> Settings: ...

    @property
    def stopping(self) -> bool: ...

    def succeed(self, settings: Settings) -> Deferred[None]: ...


class Reload(Struct, frozen=True):
    """What a reload changes, or would change; *notes* say what happens to indexes."""

    changes: Sequence[ConfigChange]
    notes: Sequence[str]

    @property
    def as_json(self) -> dict[str, Any]:
        """For commands."""
        found = [
            {"key": each.key, "old": each.old, "new": each.new, "needs_restart": each.needs_restart} for each in self.changes
        ]
        return {"changes": found, "notes": list(self.notes)}


class Reloading:
    """Reads the configuration of *service* from *source* again, in *thread*; *audit* is told of each reload."""

    log = Logger()

    def __init__(self, source: ConfigSource, service: Reloadable, audit: IAuditLog, thread: IOffload, reactor: Any) -> None:
        self._source = source
        self._service = service
        self._audit = audit
        self._thread = thread
        self._reactor = reactor
        self._one = DeferredLock()

    @property
    def operations(self) -> Mapping[str, Operation]:
        """What operators may ask for."""
        return {"reload": self.reload, "config_diff": self.diff}

    async def reload(self, report: Report) -> dict[str, Any]:
        """Have the configuration, as it is now, take effect.  Raises BadRequest if it is wrong; then nothing has changed."""
        try:
            return (await self._reload("admin socket")).as_json
        except ConfigError as error:
            raise BadRequest(str(error)) from error

    async def diff(self, report: Report, file: str | None = None) -> dict[str, Any]:
        """What a reload would change if the configuration were that in *file*.  Raises BadRequest if that is wrong."""
        try:
            wanted = await self._read(None if file is None else Path(file))
        except ConfigError as error:
            raise BadRequest(str(error)) from error
        return self._compared(wanted).as_json

    def on_signal(self) -> None:
        """Reload because of SIGHUP: what becomes of it is in the log."""
        swallow(Deferred.fromCoroutine(self._reload("SIGHUP")), ConfigError)

    async def _reload(self, by: str) -> Reload:
        async with self._one:
            self._tell_manager(tell_reloading)
            outcome, what = AuditOutcome.FAILED, None
            try:
                wanted = await self._read()
                reload = self._compared(wanted)
                holds = in_effect(self._service.settings, wanted)
                refuse_start(holds, self._source.file)
                if reload.changes:
                    swallow(self._service.succeed(holds))
                outcome, what = AuditOutcome.DONE, ", ".join(each.key for each in reload.changes) or "no change"
            except ConfigError as error:
                self.log.error("{by}: the configuration is wrong, and stays as it was: {error}", by=by, error=error)
                raise
            finally:
                self._tell_manager(tell_ready)
                self._audit.note(Audited(str(OPERATOR), by, "reload", outcome, what=what))
            self._tell(by, reload)
            return reload

    def _tell_manager(self, tell: Callable[[], None]) -> None:
        """*tell* the service manager, unless it has been told that the service stops: that is the last word."""
        if not self._service.stopping:
            tell()

    async def _read(self, file: Path | None = None) -> Settings:
        return await self._thread.run(self._source.instead(file).read, self._reactor)

    def _compared(self, wanted: Settings) -> Reload:
        running = self._service.settings
        return Reload(changes(running, wanted), index_notes(running, wanted))

    def _tell(self, by: str, reload: Reload) -> None:
        now, later = ([each for each in reload.changes if each.needs_restart is needs] for needs in (False, True))
        if not now:
            self.log.info("{by}: the configuration was read again: nothing to change", by=by)
        else:
            self.log.info("{by}: the configuration was read again: {what}", by=by, what=_listed(now))
        for note in reload.notes:
            self.log.info("{note}", note=note)
        if later:
            self.log.warn("these changes take effect when the proxy is restarted: {what}", what=_listed(later))


def _listed(found: Sequence[ConfigChange]) -> str:
    more = len(found) - _LISTED
    return "; ".join(map(str, found[:_LISTED])) + (f" and {more} more" if more > 0 else "")
