"""How a command has an operation performed: by the proxy that runs on the data directory, or right here when none does."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from proxy.errors import ProxyError
from proxy.host import adminaddress

#: How long a running proxy may be silent (seconds): a tree that is read at a low rate says something now and then.
_PATIENCE = 300.0


class NotRunning(Exception):
    """No proxy answers on the data directory."""


class OperationFailed(ProxyError):
    """The operation came to nothing; ``str()`` says why."""


class _Connection(http.client.HTTPConnection):
    """*handed* is a descriptor that goes to the proxy with the first bytes."""

    def __init__(self, made: socket.socket, handed: int | None) -> None:
        super().__init__("localhost")
        self.sock = made
        self._handed = handed

    def send(self, data: Any) -> None:
        handed, self._handed = self._handed, None
        if handed is not None:
            data = data[socket.send_fds(self.sock, [data], [handed]) :]
        super().send(data)


def ask(
    data_dir: Path,
    operation: str,
    arguments: dict[str, Any],
    report: Callable[[Any], None],
    patience: float = _PATIENCE,
    handed: int | None = None,
) -> Any:
    """What the proxy that runs on *data_dir* answers; it may be silent for *patience* seconds.

    *report* is told what it says on its way.  *handed* is the descriptor of a file that the proxy reads or writes; it may
    not be allowed to open that file itself.

    Raises NotRunning, OperationFailed.
    """
    try:
        connected = adminaddress.connect(data_dir)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(f"no proxy runs on {data_dir}") from error
    except OSError as error:
        raise OperationFailed(
            f"{data_dir / adminaddress.NAME}: {error.strerror}; ask as the user who runs the proxy"
        ) from error
    connected.settimeout(patience)
    connection = _Connection(connected, handed)
    try:
        connection.request("POST", f"/{operation}", msgspec.json.encode(arguments), {"Content-Type": "application/json"})
        return _result(connection.getresponse(), report)
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise OperationFailed(f"the proxy on {data_dir} broke off its answer: {error or type(error).__name__}") from error
    finally:
        connection.close()


def _result(response: http.client.HTTPResponse, report: Callable[[Any], None]) -> Any:
    while line := response.readline():
        said = msgspec.json.decode(line)
        if "error" in said:
            raise OperationFailed(said["error"]["detail"])
        if "result" in said:
            return said["result"]
        report(said["progress"])
    raise http.client.IncompleteRead(b"")
