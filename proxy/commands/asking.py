"""How a command has an operation performed: by the proxy that runs on the data directory, or right here when none does."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from proxy.errors import ProxyError
from proxy.host import adminaddress

#: How long a running proxy may be silent (seconds): a tree that is read at a low rate says something now and then.
_PATIENCE = 300.0


class NotRunning(Exception):
    """No proxy answers on the data directory."""


class OperationFailed(ProxyError):
    """The operation came to nothing; ``str()`` says why."""


def ask(
    data_dir: Path,
    operation: str,
    arguments: dict[str, Any],
    report: Callable[[Any], None],
    patience: float = _PATIENCE,
    handed: int | None = None,
) -> Any:
    """What the proxy that runs on *data_dir* answers; it may be silent for *patience* seconds.

    *report* is called with each progress message.  *handed* is the descriptor of a file that the proxy reads or writes; the
    proxy need not have the rights to open that file.

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
    body = json.dumps(arguments).encode()
    # HTTP/1.0: the answer comes as it is, and ends with the connection.  http.client takes longer to load than this runs.
    head = f"POST /{operation} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        with connected, connected.makefile("rb") as answer:
            data = head.encode("ascii") + body
            rest = data if handed is None else data[socket.send_fds(connected, [data], [handed]) :]
            if rest:  # even an empty send fails when the proxy has answered, and closed the connection, already
                connected.sendall(rest)
            while answer.readline().strip():  # its head has nothing that the lines have not
                pass
            return _result(answer, report)
    except (OSError, EOFError, ValueError) as error:
        raise OperationFailed(f"the proxy on {data_dir} broke off its answer: {error or type(error).__name__}") from error


def _result(answer: Iterable[bytes], report: Callable[[Any], None]) -> Any:
    for line in answer:
        said = json.loads(line)
        if "error" in said:
            raise OperationFailed(said["error"]["detail"])
        if "result" in said:
            return said["result"]
        report(said["progress"])
    raise EOFError("it ends without a result")
