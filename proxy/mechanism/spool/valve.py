"""Whether what delivers a file is asked to pause, whichever transport that is at the moment."""

from __future__ import annotations

from typing import Protocol


class IProducer(Protocol):
    """What of ``IPushProducer`` is used here."""

    def pauseProducing(self) -> object: ...

    def resumeProducing(self) -> object: ...


class Valve:
    """Open at first.  A producer that is registered while it is shut is told so."""

    def __init__(self) -> None:
        self._producer: IProducer | None = None
        self._shut = False

    def register(self, producer: IProducer) -> None:
        """*producer* delivers from now on."""
        self._producer = producer
        if self._shut:
            producer.pauseProducing()

    def unregister(self) -> None:
        """Nobody delivers."""
        self._producer = None

    def shut(self) -> None:
        """Have the producer pause."""
        if not self._shut:
            self._shut = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def open(self) -> None:
        """Have the producer go on."""
        if self._shut:
            self._shut = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def forget(self) -> None:
        """Be open, without a word to anybody: what was delivered counts no more."""
        self._shut = False
