"""Recorders of events that need nothing: one that drops them, one that keeps them in memory, and one that tells others."""

from __future__ import annotations

from zope.interface import implementer

from proxy.core.agents import Agent
from proxy.core.events import Answered, Event
from proxy.core.visits import Subject
from proxy.interfaces import IRecorder, IVisits


@implementer(IRecorder, IVisits)
class Unrecorded:
    """Drops every event: for commands, which nobody asks for figures."""

    def record(self, event: Event) -> None:
        pass

    def note(self, event: Answered, subject: Subject, client: str, agent: Agent) -> None:
        pass


@implementer(IRecorder)
class MemoryRecorder:
    """Keeps every event, oldest first, in ``events``."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


@implementer(IRecorder)
class Recorders:
    """Tells every event to each of *recorders*, and to those that join."""

    def __init__(self, *recorders: IRecorder) -> None:
        self._recorders = recorders

    def join(self, recorder: IRecorder) -> None:
        """Tell *recorder* too from now on."""
        self._recorders = (*self._recorders, recorder)

    def record(self, event: Event) -> None:
        for each in self._recorders:
            each.record(event)


UNRECORDED = Unrecorded()
