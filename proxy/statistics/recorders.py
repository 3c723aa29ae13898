"""Recorders of events that need nothing: one that drops them, and one that keeps them in memory."""

from __future__ import annotations

from zope.interface import implementer

from proxy.core.events import Event
from proxy.interfaces import IRecorder


@implementer(IRecorder)
class Unrecorded:
    """Drops every event: for commands, which nobody asks for figures."""

    def record(self, event: Event) -> None:
        pass


@implementer(IRecorder)
class MemoryRecorder:
    """Keeps every event, oldest first, in ``events``."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


UNRECORDED = Unrecorded()
