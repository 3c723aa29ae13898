"""How a body goes out: files by ``sendfile`` where the transport is a plain socket, by bounded copies elsewhere.

Theory of operation.  A sender is the transport's producer while it has the floor.  :class:`SendfileSender` registers as a
*pull* producer on the TCP transport itself, whose ``resumeProducing`` Twisted calls exactly when its own buffer is empty and
the socket takes more; it then hands the kernel (file, offset, count), so no byte of the file enters this process and a slow
client costs a socket and an offset.  It goes on until the socket is full, up to :data:`TURN` bytes, and needs the reactor only
then: a file that is small, or arrives no faster than it is sent, goes out without a word to ``epoll``.
:class:`CopySender` is a *push* producer for everything else (TLS, chunked coding).
Both end by firing ``done``: with ``None`` after the last byte, or with the failure that cut the body off; the connection is
then aborted, because a body that ended early must never look complete.
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.settings import MIB
from proxy.web.sender import Sender, Transfer, shorter

#: Bytes to hand to the kernel, or to look at in the page cache, at once.
WINDOW = 1 * MIB
#: Bytes to hand to the kernel before others have their turn.
TURN = 2 * MIB


class Displaced(Protocol):
    """The push producer that has the transport before and after a file does."""

    @property
    def blocked(self) -> bool:
        """Whether it was told that the transport wants no more bytes."""

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


@implementer(IPullProducer)
class SendfileSender(Sender):
    """Carries out a *transfer* down a plain TCP *transport*; *channel* is put back as its producer afterwards."""

    _piece = WINDOW

    def __init__(self, transfer: Transfer, transport: Connection, channel: Displaced) -> None:
        super().__init__(transfer)
        self._transport = transport
        self._channel = channel
        self._out = transport.getHandle().fileno()

    def start(self) -> Deferred[None]:
        self._transport.unregisterProducer()
        # Registering asks for bytes at once, while the headers may still be in the transport's buffer: let those out first.
        self._waiting = True
        self._transport.registerProducer(self, False)
        self._waiting = False
        # The headers, without a turn of the reactor; it meets the error if there is one.
        if self._transport.doWrite():
            self._transport.startWriting()
        return self.done

    def resumeProducing(self) -> None:
        """The transport's buffer is empty and the socket takes bytes (or may)."""
        if not self._waiting and not self._over:
            if self._channel.blocked:
                # The head filled the transport, which told the channel; that there is room again, it tells this sender.
                self._channel.resumeProducing()
            self._go_on()

    def _go_on(self) -> None:
        try:
            stop = self._position + TURN
            while self._step():
                if self._position >= stop:
                    self._transport.startWriting()
                    return
        except Exception:  # noqa: BLE001  # whoever waits for `done` is told
            self._end(Failure())

    def _send(self, count: int) -> bool:
        # If not all goes out, the transport asks for more when the socket takes more.
        try:
            sent = os.sendfile(self._out, self._source.fileno(), self._position, count)
        except BlockingIOError:
            self._transport.startWriting()
            return False
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self._transport.abortConnection()  # connectionLost follows and ends everything
                return False
            raise
        if sent == 0:
            raise shorter()
        self._advance(sent)
        if sent < count:
            self._transport.startWriting()
        return sent == count

    def _write(self, data: bytes) -> bool:
        self._transport.write(data)
        return False  # the transport asks for more when this has gone out

    def _release(self) -> None:
        producer: object = self._transport.producer  # which Twisted declares to be None
        if producer is self:
            self._transport.unregisterProducer()
            self._transport.registerProducer(self._channel, True)


@implementer(IPushProducer)
class CopySender(Sender):
    """Carries out a *transfer* through *consumer*, which may code what it is given (TLS, chunks)."""

    def __init__(self, transfer: Transfer, consumer: IConsumer) -> None:
        super().__init__(transfer)
        self._consumer = consumer
        self._paused = False
        self._going = False

    def start(self) -> Deferred[None]:
        self._consumer.registerProducer(self, True)
        self._go_on()
        return self.done

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._waiting and not self._over:
            self._go_on()

    def _go_on(self) -> None:
        if self._going:
            return  # write() called resumeProducing() from within this loop
        self._going = True
        try:
            more = True
            while more and self._may_send():
                more = self._step()
        except Exception:  # noqa: BLE001  # whoever waits for `done` is told
            self._end(Failure())
        finally:
            self._going = False

    def _may_send(self) -> bool:
        return not (self._paused or self._over)

    def _send(self, count: int) -> bool:
        data = os.pread(self._source.fileno(), count, self._position)
        if not data:
            raise shorter()
        self._advance(len(data))
        return self._write(data)

    def _write(self, data: bytes) -> bool:
        self._consumer.write(data)
        return True

    def _release(self) -> None:
        self._consumer.unregisterProducer()
