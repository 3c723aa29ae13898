"""The admin interface over HTTP: ``POST /<operation>`` with its arguments as a JSON object, answered in lines of JSON.

An operation that takes a ``descriptor`` is given the one that came with the request (``SCM_RIGHTS``), and closes it.

Each line is an object with one member: ``progress`` for what a long operation says on its way, and as the last line ``result``
or ``error``.  An answer without either is cut off.  Who disconnects cancels the operation.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import get_type_hints

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory, Request
from zope.interface import implementer

from proxy.errors import BadRequest, NotFound, ProxyError
from proxy.interfaces import Operation
from proxy.mechanism.flight import swallow

#: The argument of an operation that reads or writes a file which the client has opened.
_DESCRIPTOR = "descriptor"


def error_line(error: ProxyError) -> dict[str, object]:
    """What a client of the admin interface is told of *error*."""
    return {"code": error.code, "detail": str(error) or error.title, "status": error.status}


@implementer(IFileDescriptorReceiver)
class _Channel(HTTPChannel):
    """A connection of one client of *admin*, with the descriptors that it has handed over and nobody took yet."""

    def __init__(self, admin: Admin) -> None:
        super().__init__()
        self.requestFactory = partial(_Request, admin)  # type: ignore[assignment]  # whatever makes one will do
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())
        super().connectionLost(reason)


class Admin:
    """The interface to *operations*, by name; *load* loads what they need, before the first one."""

    log = Logger()

    def __init__(self, operations: Mapping[str, Operation], load: Callable[[], Awaitable[object]]) -> None:
        self._load = load
        self._loaded = False
        self._operations = operations
        self._running: set[Deferred[None]] = set()

    def answer(self, request: Request) -> None:
        """Perform the operation that *request* asks for; its answer is written as the operation goes on."""
        work = Deferred.fromCoroutine(self._perform(request))
        self._running.add(work)
        request.notifyFinish().addErrback(lambda _: work.cancel())
        swallow(work)
        work.addBoth(lambda _: self._running.discard(work))

    def close(self) -> None:
        """Cancel what is under way."""
        for work in list(self._running):
            work.cancel()

    async def _perform(self, request: Request) -> None:
        name = request.path.decode("latin-1").strip("/")
        lines = _Lines(request)
        try:
            if not self._loaded:
                await self._load()
                self._loaded = True
            operation, arguments = self._called(request, name)
            last = {"result": await operation(lambda said: lines.write({"progress": said}), **arguments)}
        except ProxyError as error:
            lines.status(error.status)
            last = {"error": error_line(error)}
        except CancelledError:
            lines.cut_off()
            raise
        except Exception:  # noqa: BLE001  # a bug in one operation is an answer to one operator
            self.log.failure("bug: the operation {name} failed", Failure(), name=name)
            lines.status(500)
            last = {"error": error_line(ProxyError("the proxy met a fault of its own; its log has the details"))}
        lines.write(last)
        lines.finish()

    def _called(self, request: Request, name: str) -> tuple[Operation, dict[str, object]]:
        operation = self._operations.get(name)
        if operation is None:
            raise NotFound(f"there is no operation {name!r}; there is {', '.join(sorted(self._operations))}")
        if request.method != b"POST":
            raise BadRequest(f"operations are asked for with POST, not {request.method.decode('latin-1')}")
        assert request.content is not None
        try:
            arguments = msgspec.json.decode(request.content.read() or b"{}", type=dict[str, object])
            kinds = get_type_hints(operation)
            if _DESCRIPTOR in arguments:
                raise BadRequest(f"{name}: a descriptor is handed over, not named")
            handed: list[int] = getattr(request.channel, "descriptors", [])
            if _DESCRIPTOR in kinds and not handed:
                raise BadRequest(f"{name}: expected the descriptor of an open file with the request (SCM_RIGHTS)")
            inspect.signature(operation).bind(None, **arguments, **({_DESCRIPTOR: -1} if _DESCRIPTOR in kinds else {}))
            arguments = {each: msgspec.convert(value, kinds.get(each, object)) for each, value in arguments.items()}
        except (msgspec.MsgspecError, TypeError, RecursionError) as error:
            raise BadRequest(f"{name}: {error}") from error
        if _DESCRIPTOR in kinds:
            arguments[_DESCRIPTOR] = handed.pop()
        return operation, arguments


class _Lines:
    """The lines of one answer; nothing is written to a client that has left."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._gone = False
        request.notifyFinish().addBoth(self._left)
        request.setHeader("Content-Type", "application/x-ndjson")

    def _left(self, _: object) -> None:
        self._gone = True

    def status(self, status: int) -> None:
        """Answer with *status*, if no line is out yet."""
        if not self._request.startedWriting:
            self._request.setResponseCode(status)

    def write(self, line: Mapping[str, object]) -> None:
        if not self._gone:
            self._request.write(msgspec.json.encode(line) + b"\n")

    def finish(self) -> None:
        if not self._gone:
            self._request.finish()

    def cut_off(self) -> None:
        """Let the answer end without its last line."""
        if not self._gone:
            ITCPTransport(self._request.transport).abortConnection()


class _Factory(HTTPFactory):
    """Makes connections whose requests *admin* answers, and logs none: operators' questions are no part of the access log.

    It is not that of twisted.web's ``Site``, which loads a tenth of what a bare twisted.web does.
    """

    def __init__(self, admin: Admin, reactor: IReactorTime) -> None:
        # Without a limit on how long an operation may take.
        super().__init__(timeout=None, reactor=reactor)  # type: ignore[arg-type]  # as documented; not as annotated
        self.protocol = partial(_Channel, admin)  # type: ignore[assignment]  # annotated as the function that Twisted sets

    def log(self, request: Request) -> None:
        pass


class _Request(Request):
    def __init__(self, admin: Admin, channel: HTTPChannel, queued: object) -> None:
        super().__init__(channel, queued, parsePOSTFormSubmission=False)
        self._admin = admin

    def process(self) -> None:
        self._admin.answer(self)


def site(admin: Admin, reactor: IReactorTime) -> HTTPFactory:
    """What listens for operators."""
    return _Factory(admin, reactor)
