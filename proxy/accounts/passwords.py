"""Hashes of passwords: argon2id for those that are set here, and bcrypt, which ``htpasswd -B`` writes.

Everything here takes tens of milliseconds, and runs in a thread.
"""

from __future__ import annotations

import hmac
import re

from msgspec import Struct

from proxy.expressions import expression

#: bcrypt looks at no more of a password (bytes).
_BCRYPT_LONGEST = 72
_ARGON2ID = expression(r"\$argon2id\$v=\d{1,3}\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,3})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+", re.ASCII)
_BCRYPT = expression(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
#: What a hash may cost at most: KiB and passes of argon2id, and the logarithm of bcrypt's rounds.
_MOST_MEMORY, _MOST_PASSES, _MOST_ROUNDS = 1 << 20, 100, 16


class HashingCost(Struct, frozen=True):
    """What it costs to make a hash with argon2id, or to compare a password with it: *memory* is in KiB."""

    memory: int
    passes: int
    lanes: int


#: The OWASP cheat sheet's choice for servers: some 20 ms, one hash at a time.
SERVER_COST = HashingCost(memory=19456, passes=2, lanes=1)


def nobodys(cost: HashingCost) -> str:
    """The hash of a password that nobody knows: to compare with it takes as long as with one that is made at *cost*."""
    settings = f"m={cost.memory},t={cost.passes},p={cost.lanes}"
    return f"$argon2id$v=19${settings}$c29tZXRoaW5nLW9yLW90aGVy$R0XvJ5Sh2fFsyUfBJSWlpjQaPTZ1mPYCvj1TxBYjf1o"


def is_hash(text: str) -> bool:
    """Whether *text* is a hash that passwords can be compared with, at a bearable cost."""
    if (found := _ARGON2ID.fullmatch(text)) is not None:
        return int(found[1]) <= _MOST_MEMORY and int(found[2]) <= _MOST_PASSES
    found = _BCRYPT.fullmatch(text)
    return found is not None and int(found[1]) <= _MOST_ROUNDS


def hashed(password: bytes, cost: HashingCost = SERVER_COST) -> str:
    """A new hash of *password*."""
    from argon2 import PasswordHasher, Type

    hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory, parallelism=cost.lanes, type=Type.ID)
    return hasher.hash(password)


def is_right(password: bytes, of: str) -> bool:
    """Whether *password* is the one that was hashed to *of*."""
    if of.startswith("$2"):
        import bcrypt

        try:
            made = bcrypt.hashpw(password[:_BCRYPT_LONGEST], of.encode("ascii"))
        except ValueError:  # NUL, or a salt that is none
            return False
        return hmac.compare_digest(made[-31:], of.encode("ascii")[-31:])
    from argon2.exceptions import InvalidHashError, VerificationError
    from argon2.low_level import Type, verify_secret

    try:
        return verify_secret(of.encode("ascii"), password, Type.ID)
    except (VerificationError, InvalidHashError):
        return False
