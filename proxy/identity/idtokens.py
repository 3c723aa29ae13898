"""ID tokens (OpenID Connect Core 1.0 section 2): signed claims that an issuer makes about a job, for one audience.

Theory of operation.  :func:`stated` reads who a token says it is from, which nobody vouches for yet: with that the issuer and
its key are found.  :func:`verified` checks the signature with this key and nothing else, then the claims; only what it returns
may be believed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import msgspec
from joserfc import jwt
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError, MissingClaimError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from msgspec import Struct

from proxy.identity.keys import ALGORITHMS
from proxy.settings import KIB

#: The longest token that is looked at (characters).
LONGEST = 16 * KIB
#: How much the clocks of an issuer and of this machine may differ (seconds).
LEEWAY = 60

_TOKEN = re.compile(r"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.[A-Za-z0-9_-]++")


class BadIdToken(Exception):
    """A token is not accepted; ``str()`` says why, *code* says it to programs."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Statement(Struct, frozen=True):
    """What a token says of itself: unproven."""

    issuer: str
    algorithm: str
    kid: str | None


class _Head(msgspec.Struct):
    alg: str
    kid: str | None = None


class _Payload(msgspec.Struct):
    iss: str


class _Registry(JWSRegistry):
    #: Some issuers put their certificates there.
    max_header_length = 8 * KIB


def stated(token: str) -> Statement:
    """What *token* says of itself.  Raises BadIdToken for what is none, or is signed in a way that proves nothing."""
    parts = _TOKEN.fullmatch(token) if len(token) <= LONGEST else None
    if parts is None:
        raise BadIdToken("invalid-payload", "the token is no signed JSON Web Token")
    try:
        head = msgspec.json.decode(_bytes(parts[1]), type=_Head)
        payload = msgspec.json.decode(_bytes(parts[2]), type=_Payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error):
        raise BadIdToken("invalid-payload", "the token is no JSON Web Token with an issuer") from None
    if head.alg not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise BadIdToken("invalid-algorithm", f"the token is signed with {head.alg[:20]!r}; accepted are {known}")
    return Statement(payload.iss, head.alg, head.kid)


def verified(token: str, says: Statement, key: Key, audience: str, now: float) -> Mapping[str, object]:
    """The claims of *token*, which *says* so much of itself and is signed with *key* for *audience*; the time is *now*.

    Blocks while it computes.  Raises BadIdToken.
    """
    registry = _Registry(algorithms=[says.algorithm], strict_check_header=False)
    try:
        claims = jwt.decode(token, key, registry=registry).claims
        _check(claims, says.issuer, audience, int(now))
    except ExpiredTokenError:
        raise BadIdToken("invalid-token", "the token has expired") from None
    except MissingClaimError as error:
        raise BadIdToken("invalid-token", f"the token lacks what has to be in it: {error.claim}") from None
    except ClaimError as error:
        raise BadIdToken("invalid-token", _unfit(error, audience)) from None
    except (JoseError, ValueError, TypeError):
        raise BadIdToken("invalid-token", "the token is not signed by its issuer") from None
    return claims


def _check(claims: dict[str, object], issuer: str, audience: str, now: int) -> None:
    """Raise ClaimError unless *claims* are of *issuer*, for *audience*, and good *now*."""
    jwt.JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    ).validate(claims)


def _unfit(error: ClaimError, audience: str) -> str:
    match error.claim:
        case "aud":
            return f"the token is not for this proxy; ask for one for the audience {audience!r}"
        case "nbf" | "iat":
            return "the token is not valid yet: compare the clocks of its issuer and of this proxy"
    return f"the token has a claim that cannot be right: {error.claim}"


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
