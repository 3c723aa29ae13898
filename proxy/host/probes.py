"""A listener for probes alone, which answers however busy the reactor is.

Theory of operation.  One thread owns it, and only reads the last report of the reactor, a value that is swapped in
(:class:`~proxy.core.health.HealthReport`): it takes no lock, starts nothing, and writes no log.  It answers one request per
connection, in one piece and without waiting for the client.  A connection that has not sent its request after some seconds is
closed; so is the oldest one when there are too many, and none is a reason not to accept the next.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeAlias

from msgspec import Struct, field

from proxy.core.health import HealthReport, ProbeAnswer, reported_liveness, reported_readiness
from proxy.errors import FieldsTooLarge, MethodNotAllowed, NotFound, ProxyError
from proxy.web.heads import END, read

#: How long a connection may take for its request (seconds), how many there may be, and how long a request may be (bytes).
WITHIN, MOST, LONGEST = 5.0, 64, 8 * 1024
#: The longest answer (characters): it has to fit the buffer of a socket.
_LONGEST_ANSWER = 16 * 1024
#: What is taken of a request that is too long, once that is known (bytes).
_DISCARDED = 1 << 20
#: Seconds without a descriptor before the next attempt to accept.
_PAUSE = 0.05

#: The answer to each path, by the last report and the time.
_PATHS: Mapping[bytes, Callable[[HealthReport, float], ProbeAnswer]] = {
    b"/-/live": reported_liveness,
    b"/-/ready": reported_readiness,
}

_Ports: TypeAlias = Sequence[socket.socket]


class _Connection(Struct, eq=False):
    """One client, which has until *until* to send its request."""

    socket: socket.socket
    until: float
    received: bytearray = field(default_factory=bytearray)


class ProbeServer:
    """Answers at listening sockets from a thread, from `start` to `stop`.

    *report* returns the last report; it is called in that thread, as *clock* is (seconds of a steady clock).  So is *failed*,
    which is told of a fault of this module: it costs one connection.
    """

    def __init__(
        self, report: Callable[[], HealthReport], clock: Callable[[], float], failed: Callable[[Exception], None]
    ) -> None:
        self._report = report
        self._clock = clock
        self._failed = failed
        self._connections: dict[_Connection, None] = {}
        self._thread: threading.Thread | None = None
        self._stops, self._wakes = -1, -1

    def start(self, ports: _Ports) -> None:
        """Answer at *ports*, which do not block and become this server's."""
        self._stops, self._wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # A daemon: a process that is killed in the middle of its stop is not kept for it.
        self._thread = threading.Thread(target=self._serve, args=(tuple(ports),), name="probes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close the ports and what is open there.  Does nothing if it is not started."""
        thread, self._thread = self._thread, None
        if thread is not None:
            os.write(self._wakes, b"x")
            thread.join()
            os.close(self._wakes)
            os.close(self._stops)

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def _serve(self, ports: _Ports) -> None:
        spare: list[int] = []
        self._hold(spare)
        with selectors.DefaultSelector() as selector:
            for port in ports:
                with suppress(OSError):
                    # Who says nothing is left to the kernel for as long: what is accepted can be answered.
                    port.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(WITHIN))
                selector.register(port, selectors.EVENT_READ)
            selector.register(self._stops, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._until_the_next()):
                    if key.fileobj == self._stops:
                        self._end(selector, ports, spare)
                        return
                    try:
                        if isinstance(key.data, _Connection):
                            if key.data in self._connections:  # it may have had to go for one that has come in the same turn
                                self._receive(selector, key.data)
                        elif isinstance(key.fileobj, socket.socket):
                            self._accept(selector, key.fileobj, spare)
                    except Exception as error:  # noqa: BLE001  # the next probe is answered all the same
                        self._failed(error)
                        if key.data in self._connections:
                            self._close(selector, key.data)
                self._close_late(selector)

    def _until_the_next(self) -> float | None:
        """Seconds until a connection is late; ``None`` without any."""
        oldest = next(iter(self._connections), None)
        return None if oldest is None else max(0.0, oldest.until - self._clock())

    def _end(self, selector: selectors.BaseSelector, ports: _Ports, spare: list[int]) -> None:
        for connection in list(self._connections):
            self._close(selector, connection)
        for port in ports:
            port.close()
        for descriptor in spare:
            os.close(descriptor)

    def _close_late(self, selector: selectors.BaseSelector) -> None:
        now = self._clock()
        for connection in list(self._connections):
            if connection.until > now:
                break
            self._close(selector, connection)

    def _close(self, selector: selectors.BaseSelector, connection: _Connection) -> None:
        del self._connections[connection]
        selector.unregister(connection.socket)
        connection.socket.close()

    def _accept(self, selector: selectors.BaseSelector, port: socket.socket, spare: list[int]) -> None:
        if len(self._connections) >= MOST:
            self._close(selector, next(iter(self._connections)))
        try:
            client, _ = port.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            if not spare:
                time.sleep(_PAUSE)  # another thread has taken it; the port stays readable
                self._hold(spare)
                return
            # There is no descriptor left but the one that is held for this case.
            os.close(spare.pop())
            self._answer_one(port)
            self._hold(spare)
            return
        # Who has asked, as a probe has, is answered now: every call of the system may have to wait for the interpreter's lock.
        connection = _Connection(client, self._clock() + WITHIN)
        if self._is_over(connection):
            client.close()
        else:
            self._connections[connection] = None
            selector.register(client, selectors.EVENT_READ, connection)

    def _answer_one(self, port: socket.socket) -> None:
        """Answer one client at *port* if it has asked, and keep nothing of it."""
        with suppress(OSError):
            client, _ = port.accept()
            with client:
                received = client.recv(LONGEST + 1, socket.MSG_DONTWAIT)
                client.send(self._answer(received), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    @staticmethod
    def _hold(spare: list[int]) -> None:
        """Have a descriptor at hand for when there is no other one."""
        with suppress(OSError):
            spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _receive(self, selector: selectors.BaseSelector, connection: _Connection) -> None:
        if self._is_over(connection):
            self._close(selector, connection)

    def _is_over(self, connection: _Connection) -> bool:
        """Receive what has come, and answer it if that is a whole request; whether the connection is to be closed."""
        try:
            received = connection.socket.recv(LONGEST + 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        connection.received += received
        too_long = len(connection.received) > LONGEST
        if received and not too_long and END not in connection.received:
            return False
        if too_long:
            # What is left unread would have the system reset the connection, and the answer would be lost.
            with suppress(OSError):
                connection.socket.recv(_DISCARDED, socket.MSG_DONTWAIT)
        with suppress(OSError):
            if received:
                # What the buffer of the socket does not take is lost with a client that takes nothing.
                connection.socket.send(self._answer(bytes(connection.received)), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return True

    def _answer(self, received: bytes) -> bytes:
        """The whole answer to the request that *received* begins with."""
        method, extra = b"GET", ""
        try:
            raw, end, _ = received.partition(END)
            if not end:
                raise FieldsTooLarge(f"a request has at most {LONGEST} bytes here")
            head = read(raw + end)
            method = head.method
            answers = _PATHS.get(head.target.partition(b"?")[0])
            if answers is None:
                raise NotFound("this listener answers /-/live and /-/ready only")
            if method not in (b"GET", b"HEAD"):
                raise MethodNotAllowed("probes are answered to GET and HEAD only")
            answer = answers(self._report(), self._clock())
        except ProxyError as error:
            answer = ProbeAnswer(error.status, f"{error}\n")
            extra = f"Allow: {error.allow}\r\n" if isinstance(error, MethodNotAllowed) else ""
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            extra = "Retry-After: 1\r\n"
        body = answer.text[:_LONGEST_ANSWER].encode()
        lines = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
            f"Server: pypiproxy\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n{extra}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return lines.encode("latin-1") + (b"" if method == b"HEAD" else body)
