"""Where CI jobs exchange ID tokens: the endpoints of the public index, which clients know, and their discovery (PEP 807).

Errors have the form that these clients print: ``message``, and ``errors`` with a ``code`` and a ``description`` each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from proxy.errors import BadRequest, MethodNotAllowed, NotFound, ProxyError, SentUnencrypted
from proxy.interfaces import IExchange
from proxy.settings import KIB
from proxy.web.answers import Answer, Ask
from proxy.web.origin import origin
from proxy.web.problems import problem
from proxy.web.routes import SHOWN, ExchangeRoute

#: The longest body of a request (bytes).
_LONGEST = 64 * KIB
#: What there is, and how it is asked.
EXCHANGES: Mapping[str, str] = {"audience": "GET", "mint-token": "POST", "burn-token": "POST"}
_UNENCRYPTED = (
    "a token arrived over plain http, where others may have read it, and was not looked at: use https"
    " (access.allow_plaintext_auth = true permits plain http)"
)


class _Sent(msgspec.Struct):
    token: str


class Exchanging:
    """Answers for *exchange*, if there is one.  *uploading* are the indexes that take uploads; *default* is at the root."""

    def __init__(self, exchange: IExchange | None, uploading: Iterable[str], default: str | None) -> None:
        self._exchange = exchange
        #: The root of the endpoints by discovery key (PEP 807): the SHA-256 of the path of an upload URL.
        self._roots: dict[str, str] = {}
        for name in uploading:
            root = f"/index/{quote(name)}/"
            self._add(root, root)
            if name == default:
                self._add("/", "/")

    def _add(self, uploads: str, root: str) -> None:
        for path in (uploads, uploads[:-1], f"{uploads}legacy/", f"{uploads}legacy"):
            self._roots[hashlib.sha256(path.encode()).hexdigest()] = root

    async def discovery(self, key: str, ask: Ask) -> Answer:
        """Where the endpoints for the upload URL with this *key* are.  Raises NotFound."""
        root = None if self._exchange is None else self._roots.get(key)
        if root is None:
            raise NotFound("there is no trusted publishing for this upload URL")
        base = f"{origin(ask)}{root}_/oidc/"
        return _answer(ask, 200, {"audience-endpoint": f"{base}audience", "mint-token-endpoint": f"{base}mint-token"})

    async def answer(self, route: ExchangeRoute, ask: Ask) -> Answer:
        """Raises NotFound, MethodNotAllowed."""
        method = EXCHANGES.get(route.verb)
        if self._exchange is None or method is None:
            raise NotFound(
                "this proxy exchanges no ID tokens" if method else f"{ask.path[:SHOWN]}: there is nothing at this path"
            )
        if ask.method != method and (method, ask.method) != ("GET", "HEAD"):
            allow = "GET, HEAD" if method == "GET" else method
            raise MethodNotAllowed(f"{ask.method} {ask.path[:SHOWN]}: only {allow} is answered here", allow=allow)
        try:
            return await self._answer(self._exchange, route, ask)
        except ProxyError as error:
            return _failed(ask, error)

    async def _answer(self, exchange: IExchange, route: ExchangeRoute, ask: Ask) -> Answer:
        if route.verb == "audience":
            return _answer(ask, 200, {"audience": exchange.audience})
        if not ask.caller.confidential:
            raise SentUnencrypted(_UNENCRYPTED)
        sent = await _read(ask)
        if route.verb == "burn-token":
            await exchange.burn(sent.token, ask.caller.address)
            return _answer(ask, 202, {"success": True})
        minted = await exchange.mint(sent.token, route.index, ask.caller.address)
        return _answer(ask, 200, {"success": True, "token": minted.token, "expires": minted.expires})


async def _read(ask: Ask) -> _Sent:
    """What *ask* sends.  Raises ContentTooLarge, BadRequest."""
    received = b"" if ask.body is None else await ask.body.whole(_LONGEST, ask.deadline)
    try:
        return msgspec.json.decode(received, type=_Sent)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequest('the body is not {"token": "…"} in JSON') from None


def _answer(ask: Ask, status: int, members: Mapping[str, object]) -> Answer:
    wanted = "application/vnd.pypi.pytp.v1+json"  # PEP 807
    media = wanted if wanted in (ask.header("accept") or "") else "application/json"
    return Answer(status, [("Content-Type", media), ("Cache-Control", "no-store")], msgspec.json.encode(members))


def _failed(ask: Ask, error: ProxyError) -> Answer:
    described = {"code": error.code, "description": str(error) or error.title}
    answer = _answer(ask, error.status, {"message": "Token request failed", "errors": [described]})
    plain = problem(error)
    answer.headers = [*answer.headers, *(each for each in plain.headers if each[0] == "Retry-After")]
    answer.reason, answer.word = plain.reason, plain.word
    return answer
