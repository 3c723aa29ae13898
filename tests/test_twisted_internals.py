"""What is used of Twisted under a private name: it has to be there and mean what it did, and no other module may use any."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.tcp import Connection
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent, ResponseFailed

from proxy.mechanism.twisted_client import ClientConnection, PoolOf, Unparsable
from proxy.mechanism.twisted_internals import BodyCutOff, parsed_endpoint, unsent

ROOT = Path(__file__).parent.parent
#: ``from twisted.web._newclient import …``, ``from twisted.web.http import _DataLoss``, and names that its objects have.
PRIVATE = re.compile(
    r"^\s*(?:from|import)\s+twisted[\w.]*\._\w+|^\s*from\s+twisted[\w.]*\s+import\s.*(?<![\w.])_\w+"
    r"|\b_(?:newclient|tempData\w+|quiescentCallback|DataLoss|transferDecoder|networkProducer)\b",
    re.MULTILINE,
)


@pytest.mark.parametrize("folder", ["proxy", "tests", "twisted", "bench"])
def test_no_other_module_uses_a_private_name_of_twisted(folder: str) -> None:
    here = ROOT / "proxy" / "mechanism"
    allowed = {here / "twisted_internals.py", here / "twisted_client.py", Path(__file__)}
    users = [file for file in sorted((ROOT / folder).rglob("*.py")) if file not in allowed]
    found = {str(file.relative_to(ROOT)): match[0] for file in users if (match := PRIVATE.search(file.read_text("utf-8")))}
    assert found == {}


class Counted(ClientConnection):
    """A connection that counts itself."""

    made = 0

    def connectionMade(self) -> None:
        Counted.made += 1
        super().connectionMade()


async def answered(data: bytes) -> bytes:
    """What an agent over :class:`PoolOf` makes of a server that sends *data* and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        pool = PoolOf(Counted, reactor, persistent=False)
        port = listening.getsockname()[1]
        asked = Agent(reactor, pool=pool).request(b"GET", f"http://127.0.0.1:{port}/".encode())
        connection = await _accepted(listening)
        with connection:
            connection.sendall(data)
        body: bytes = await treq.content(await asked)
        return body


async def _accepted(listening: socket.socket) -> socket.socket:
    accepted: Deferred[tuple[socket.socket, object]] = deferToThread(listening.accept)
    return (await accepted)[0]


@pytest_twisted.ensureDeferred
async def test_a_pool_makes_connections_of_the_class_that_it_is_given() -> None:
    before = Counted.made
    assert await answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") == b"ok"
    assert Counted.made == before + 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-x\r\n\r\n", Unparsable),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", BodyCutOff),
    ],
)
async def test_what_is_wrong_with_an_answer_has_its_name(data: bytes, reason: type[Exception]) -> None:
    with pytest.raises(ResponseFailed) as caught:
        await answered(data)
    assert any(failure.check(reason) for failure in caught.value.reasons)


def test_the_arguments_of_an_endpoint_are_read_as_twisted_reads_them() -> None:
    read = parsed_endpoint("ssl:3144:key\\:a.pem:certKey=b\\=c.pem:interface=\\:\\:1")
    assert read == (["ssl", "3144", "key:a.pem"], {"certKey": "b=c.pem", "interface": "::1"})


def test_bytes_are_unsent_until_the_kernel_takes_them() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        connection = Connection(ours, None, reactor)  # type: ignore[arg-type]  # nobody is told anything
        connection.connected = True
        connection.startWriting = lambda: None  # type: ignore[method-assign]  # the reactor has no part in this
        assert unsent(connection) == 0
        connection.write(b"first")
        assert unsent(connection) == 5
        connection.doWrite()
        assert unsent(connection) == 0
        assert peer.recv(10) == b"first"
        connection.write(bytes(8 << 20))
        connection.doWrite()
        assert 0 < unsent(connection) < 8 << 20
