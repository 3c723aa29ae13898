"""Files that hold a secret: what they may contain, and whether others can read them.

No message repeats anything that is in a file.  Nothing here loads Twisted: commands that only read the configuration are quick.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from proxy.expressions import expression

_CONTROL = expression(r"[\x00-\x1f\x7f]")
_ENCRYPTED = expression(rb"^(?:-----BEGIN ENCRYPTED |Proc-Type:.*ENCRYPTED)", re.MULTILINE)


def one_line(data: bytes) -> str:
    """The only line of a file that contains *data*, without the line end.  Raises ValueError, which states the reason."""
    try:
        secret = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not a text file") from None
    check_secret(secret)
    return secret


def check_secret(secret: str) -> None:
    """Raise ValueError unless *secret* can be sent in a header."""
    if not secret or _CONTROL.search(secret):
        raise ValueError("is empty or has control characters")


def netrc_entry(file: Path, host: str) -> tuple[str, str]:
    """Login and password for *host* in the netrc file *file*.  Raises OSError, and ValueError, which states the reason."""
    import netrc  # few upstreams have one

    try:
        found = netrc.netrc(file).authenticators(host)
    except netrc.NetrcParseError as error:
        # Its own message may quote a password.
        raise ValueError(f"cannot be understood (line {error.lineno})") from None
    if not found or not found[0] or not found[2]:
        raise ValueError(f"has no login and password for machine {host}")
    return found[0], found[2]


def read_by_all(path: Path) -> int | None:
    """The mode of the file at *path* if every user of this machine may read it, else ``None``.

    Whoever may not enter one of the directories above a file cannot read it, whatever its mode is.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) and mode & stat.S_IROTH):
            return None
        # Links that lead to it may be where nobody else can enter; it is where it is.
        reached = all(each.stat().st_mode & stat.S_IXOTH for each in path.resolve(strict=True).parents)
    except OSError:
        return None
    return stat.S_IMODE(mode) if reached else None


def needs_passphrase(pem: bytes) -> bool:
    """Whether a key in *pem* is encrypted.  OpenSSL would ask for the pass phrase on the terminal, and wait."""
    return _ENCRYPTED.search(pem) is not None
