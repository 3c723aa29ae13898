"""How long a client waits for the next byte of a file that is still arriving, before it is told that none will come."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from proxy.core.amounts import duration
from proxy.errors import SlowUpstream


class BodySender(Protocol):
    """What sends the file (`proxy.web.sending`)."""

    @property
    def hungry(self) -> bool:
        """Whether it waits for bytes to arrive."""

    def give_up(self, why: Exception) -> None:
        """End the body with an error."""


class Silence:
    """Ends a sender when its source, which is still arriving, has had nothing for it for *limit* seconds."""

    def __init__(self, reactor: IReactorTime, limit: float) -> None:
        self._reactor = reactor
        self._limit = limit
        self._sender: BodySender | None = None
        self._call: IDelayedCall = reactor.callLater(limit, self._look)

    def watch(self, sender: BodySender) -> None:
        """Look after *sender*."""
        self._sender = sender

    def moved(self) -> None:
        """A byte went out."""
        if self._call.active():
            self._call.reset(self._limit)

    def _look(self) -> None:
        if self._sender is not None and self._sender.hungry:
            self._sender.give_up(SlowUpstream(f"upstream has sent nothing for {duration(self._limit)}"))
        else:
            self._call = self._reactor.callLater(self._limit, self._look)

    def end(self) -> None:
        """The body has ended."""
        if self._call.active():
            self._call.cancel()
