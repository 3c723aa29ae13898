"""The login of a browser, with the same users, passwords and tokens as everything else, and throttled as they are."""

from __future__ import annotations

import base64

from twisted.logger import Logger
from twisted.web.template import Tag, tags

from proxy.errors import LoginRequired
from proxy.web.answers import Answer, Ask
from proxy.web.dashboard.forms import fields_of
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.dashboard.shell import Frame, Shell
from proxy.web.dashboard.viewers import Viewer
from proxy.web.door import Door
from proxy.web.hypertext import hyperlink

_UNENCRYPTED = (
    "Passwords and tokens are not taken over plain http from other machines, where others may read them. Open this page with "
    "https, or on the host of the proxy."
)


class BrowserLogins:
    """Begins and ends *sessions* of those whom *door* knows; its pages are made by *shell*."""

    log = Logger()

    def __init__(self, door: Door, sessions: BrowserSessions, shell: Shell) -> None:
        self._told = False
        self._door = door
        self._sessions = sessions
        self._shell = shell

    async def page(self, ask: Ask, complaint: str | None = None, user: str = "") -> Answer:
        """The form, for who sends *ask*; *complaint* is what was wrong the last time, of *user*.

        Where a password would be refused because others may read it on the way, there is no form to send it with.
        """
        if not ask.caller.confidential:
            return await self._shell.page("Log in", Frame("../"), tags.p(_UNENCRYPTED, class_="bad", role="alert"), status=403)
        form = tags.form(
            tags.p(tags.label("User name", for_="user"), _field("user", "text", "username", user)),
            tags.p(tags.label("Password or token", for_="password"), _field("password", "password", "current-password")),
            tags.p(tags.button("Log in", type="submit")),
            method="post",
            action="login",
        )
        told = [] if complaint is None else [tags.p(complaint, class_="bad", role="alert")]
        return await self._shell.page("Log in", Frame("../"), *told, form, status=200 if complaint is None else 403)

    async def begin(self, ask: Ask) -> Answer:
        """Answer *ask*, which sends the form.  Raises BadRequest, SentUnencrypted, RightsUnknown, Overloaded."""
        fields = await fields_of(ask)
        user, password = fields.get("user", ""), fields.get("password", "")
        if not user or not password:
            return await self.page(ask, "Enter a user name, and a password or a token.", user[:100])
        credential = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
        try:
            principal = await self._door.login(ask, credential)
        except LoginRequired:
            return await self.page(ask, "The user name, the password or the token is wrong, or no longer valid.", user[:100])
        self._look_at_scheme(ask)
        return see_other("../", ("Set-Cookie", self._sessions.begin(principal, credential, ask)))

    def _look_at_scheme(self, ask: Ask) -> None:
        """Log, once, if the proxy that passes *ask* on does not say whether it came over https."""
        if self._told or ask.secure or not ask.caller.vouched_for or ask.header("x-forwarded-proto") is not None:
            return
        self._told = True
        self.log.warn(
            "a browser has logged in through one of server.trusted_proxies, which sends no X-Forwarded-Proto: the cookie is "
            "set without Secure, as over http; have that proxy send the header (conf/nginx and conf/haproxy do)"
        )

    async def end(self, ask: Ask) -> Answer:
        """Answer *ask*, which wants to be logged out: that harms nobody, so it needs no token.  Raises BadRequest."""
        await fields_of(ask)
        return see_other("../", ("Set-Cookie", self._sessions.end(ask)))

    def stated(self, viewer: Viewer, up: str) -> tuple[Tag | str, ...]:
        """Who *viewer* is, for the foot of a page; *up* is the relative URL of ``/``."""
        if viewer.principal.is_anonymous:
            return " · ", hyperlink(f"{up}-/login", "Log in")
        button = tags.button("Log out", type="submit")
        return f" · {viewer.principal} ", tags.form(button, method="post", action=f"{up}-/logout")


def _field(name: str, kind: str, purpose: str, value: str = "") -> Tag:
    return tags.input(id=name, name=name, type=kind, value=value, autocomplete=purpose, required="required")


def see_other(location: str, *headers: tuple[str, str]) -> Answer:
    """Have the browser get the page at *location*, a relative URL."""
    return Answer(303, [("Location", location), ("Cache-Control", "no-store"), *headers])
