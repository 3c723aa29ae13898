"""Recorders of events that need nothing: one that drops them, one that keeps them in memory, and one that tells others."""

from __future__ import annotations

from zope.interface import implementer

from proxy.core.events import Answered, Event
from proxy.core.visits import Subject
from proxy.interfaces import IRecorder, IVisits


@implementer(IRecorder, IVisits)
class Unrecorded:
    """Drops every event: for commands, which nobody asks for figures."""

    def record(self, event: Event) -> None:
        pass

    def note(self, event: Answered, subject: Subject, client: str, agent: str) -> None:
        pass


@implementer(IRecorder)
class MemoryRecorder:
    """Keeps every event, oldest first, in ``events``."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


UNRECORDED = Unrecorded()
