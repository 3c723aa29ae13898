"""An issuer of ID tokens on loopback, as a CI system has one: discovery, keys, and a job's endpoint for tokens.

The endpoint is that of GitHub's runners: ``ACTIONS_ID_TOKEN_REQUEST_URL`` with ``audience=`` appended, and a bearer token.  It
runs in a thread of its own and ends each connection with the answer.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from proxy.model import EMPTY

#: The bearer token with which a job asks for its ID token.
RUNNER_TOKEN = "the-runner-s-own"
#: What a job of this runner is.
CLAIMS: Mapping[str, object] = {
    "sub": "repo:acme/widgets:ref:refs/heads/main",
    "repository": "acme/widgets",
    "repository_owner": "acme",
    "ref": "refs/heads/main",
    "environment": "release",
}
_ALGORITHMS = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519", "oct": "HS256"}


@cache
def rsa_key(kid: str, bits: int = 2048, alg: str | None = None) -> RSAKey:
    """A key that is made when it is wanted first, which takes tenths of a second; with *alg*, another for that alone."""
    return RSAKey.generate_key(bits, {"kid": kid} if alg is None else {"kid": kid, "use": "sig", "alg": alg})


class FakeIssuer:
    """An issuer on a port of 127.0.0.1; with *tls*, over https.  *path* is that of its URL."""

    def __init__(self, tls: ssl.SSLContext | None = None, path: str = "") -> None:
        self._tls = tls
        self._path = path
        self._key: Key | None = None
        #: The documents it answers with instead of its own, by path.
        self.documents: dict[str, bytes] = {}
        #: The paths that it was asked for.
        self.asked: list[str] = []
        #: What the jobs of its runner are.
        self.claims = dict(CLAIMS)
        self._server: ThreadingHTTPServer | None = None
        #: Tells the time that tokens are issued at.
        self.clock: Callable[[], float] = time.time
        self._port = 0
        #: Whether answers are given, or held back.
        self._answering = threading.Event()
        self._answering.set()

    # -- life

    def start(self) -> FakeIssuer:
        """Listen, on the same port as before if there was one."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), type("_Asked", (_Asked,), {"issuer": self}))
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        self._server, self._port = server, server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return self

    def stop(self) -> None:
        """Refuse connections; what was held back is answered."""
        server, self._server = self._server, None
        self._answering.set()
        if server is not None:
            server.shutdown()
            server.server_close()

    def hold(self) -> None:
        """Answer nothing until it is stopped."""
        self._answering.clear()

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._port}{self._path}"

    # -- keys and tokens

    @property
    def key(self) -> Key:
        """What it signs with: the same for all issuers that have not rotated theirs."""
        return self._key or rsa_key("first", alg="RS256")

    def rotate(self, kid: str = "second") -> None:
        """Sign with another key from now on, and publish no other."""
        self._key = ECKey.generate_key("P-256", {"kid": kid, "use": "sig"})

    def token(self, claims: Mapping[str, object] = EMPTY, *, key: Key | None = None, header: Mapping[str, str] = EMPTY) -> str:
        """An ID token for the audience ``pypiproxy``, good for five minutes, with *claims* beside the usual ones.

        A claim of ``None`` is left out.
        """
        key, now = key or self.key, int(self.clock())
        standing = {"iss": self.url, "aud": "pypiproxy", "iat": now, "nbf": now, "exp": now + 300}
        stated = {name: value for name, value in {**standing, **self.claims, **claims}.items() if value is not None}
        head = {"alg": _ALGORITHMS[key.key_type], "kid": key.kid or "", **header}
        return jwt.encode(head, stated, key, algorithms=[head["alg"]])

    # -- answers

    def answer(self, target: str, authorization: str | None) -> bytes | None:
        """The document at *target*; ``None``: there is none."""
        parts = urlsplit(target)
        self.asked.append(parts.path)
        self._answering.wait()
        if parts.path in self.documents:
            return self.documents[parts.path]
        match parts.path.removeprefix(self._path):
            case "/.well-known/openid-configuration":
                return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
            case "/keys":
                return json.dumps({"keys": [self.key.as_dict(private=False)]}).encode()
            case "/token" if (authorization or "").lower() == f"bearer {RUNNER_TOKEN}":
                audience = parse_qs(parts.query).get("audience", ["nobody"])[0]
                return json.dumps({"value": self.token({"aud": audience})}).encode()
        return None

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of a job of its runner has."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": RUNNER_TOKEN,
        }


class _Asked(BaseHTTPRequestHandler):
    """One request."""

    issuer: FakeIssuer

    def do_GET(self) -> None:
        document = self.issuer.answer(self.path, self.headers.get("Authorization"))
        self.send_response(404 if document is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(document or b"")))
        self.end_headers()
        self.wfile.write(document or b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def handle(self) -> None:
        with suppress(OSError):  # who asked has left
            super().handle()
