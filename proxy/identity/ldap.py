"""Users and groups of an LDAP directory (RFC 4511), asked with python-ldap, which is an extra: ``pypiproxy[ldap]``.

Theory of operation.  A login opens a connection, with TLS before anything is said, and takes three steps: the one entry with
that name is searched for; its password is tried by binding as it; and its groups are searched for.  The name that counts is the
one in the entry, because directories do not tell upper case from lower.  Everything blocks, so it runs in threads of its own,
each step for a few seconds at most.  A failure is no wrong password: nobody is let in, and nobody is told to type it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ldap
from ldap.filter import escape_filter_chars
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from zope.interface import implementer

from proxy.access.principals import DirectoryUser, is_user_name
from proxy.errors import Overloaded, RightsUnknown
from proxy.interfaces import IDirectory
from proxy.mechanism.offload import Offload
from proxy.mechanism.rotating import Observing, Rotating
from proxy.mechanism.secret_files import one_line
from proxy.settings import LdapSettings

#: Logins that are under way at one time, and those that may wait for them.
_THREADS, _MOST_WAITING = 4, 200
#: How long a login that failed counts as a trouble, if nobody logs in after that (seconds).
_LATELY = 300.0
#: For how long it counts as one that a login was refused because too many waited, and how often that is logged (seconds).
_SHED_LATELY = 60.0
#: Groups of one user that count.
_MOST_GROUPS = 1000
#: What a directory answers to a password that is wrong, or whose account is locked.
_WRONG = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,
    ldap.UNWILLING_TO_PERFORM,
    ldap.CONSTRAINT_VIOLATION,
    ldap.NO_SUCH_OBJECT,
    ldap.INSUFFICIENT_ACCESS,
)


@implementer(IDirectory)
class LdapDirectory:
    """The directory of *settings*."""

    log = Logger()

    def __init__(self, settings: LdapSettings, reactor: IReactorFromThreads, observing: Observing) -> None:
        self._settings = settings
        self._threads = Offload(reactor, _THREADS, "ldap")
        self._waiting = 0
        #: Why it did not answer the last time, and when that was.
        self._failing: str | None = None
        self._failed_at = 0.0
        #: When the last login was refused because too many waited, and when that was logged.
        self._shed_at = self._shed_told = -math.inf
        self._clock = observing.clock
        file = settings.bind_password_file
        files = {} if file is None else {"access.ldap.bind_password_file": file}
        self._password: Rotating[str] = Rotating(files, _only, observing, value=settings.bind_password or "")

    @property
    def rotating(self) -> tuple[Rotating[Any], ...]:
        """The files that have to be looked at regularly."""
        return (self._password,) if self._password.files else ()

    @property
    def trouble(self) -> str | None:
        """What is wrong if it did not answer the last login, and that was lately.  Any client may read it."""
        if self._failing is None or not 0 <= self._clock() - self._failed_at < _LATELY:
            return None
        return f"the directory of access.ldap does not answer ({self._failing}): its users cannot log in; check its server"

    @property
    def overload(self) -> str | None:
        """What is wrong if it answers, and a login was lately refused because too many waited.  Any client may read it."""
        if self.trouble is not None or not 0 <= self._clock() - self._shed_at < _SHED_LATELY:
            return None
        return (
            f"more than {_MOST_WAITING} logins waited for the directory of access.ldap: others were answered 503; "
            "check how fast its server answers"
        )

    def stop(self) -> None:
        """End the threads.  Blocks until what was begun has ended."""
        self._threads.stop()

    async def find(self, user: str) -> DirectoryUser | None:
        return await self._asked(user, None) if is_user_name(user) else None

    async def login(self, user: str, password: bytes) -> DirectoryUser | None:
        if not password or b"\0" in password or not is_user_name(user):
            return None  # to bind without a password succeeds for everybody (RFC 4513 section 5.1.2)
        return await self._asked(user, password)

    async def _asked(self, user: str, password: bytes | None) -> DirectoryUser | None:
        if self._waiting >= _MOST_WAITING:
            self._shed()
            raise Overloaded("too many logins wait for the directory: ask again")
        self._waiting += 1
        try:
            found = await self._threads.run(self._look_up, user, password, self._password.value)
        except ldap.LDAPError as error:
            why = _words(error)
            if why != self._failing:
                self.log.error("the directory {url} does not answer: {why}", url=self._settings.url, why=why)
            self._failing, self._failed_at = why, self._clock()
            raise RightsUnknown("who may log in is not known for now: the directory does not answer") from None
        finally:
            self._waiting -= 1
        if self._failing is not None:
            self.log.info("the directory {url} answers again", url=self._settings.url)
        self._failing = None
        return found

    def _shed(self) -> None:
        now = self._shed_at = self._clock()
        if not 0 <= now - self._shed_told < _SHED_LATELY:
            self._shed_told = now
            self.log.warn(
                "{count} logins wait for the directory {url}: others are answered 503",
                count=self._waiting,
                url=self._settings.url,
            )

    # -- in a thread -------------------------------------------------------------------------------------------------------

    def _look_up(self, user: str, password: bytes | None, search_password: str) -> DirectoryUser | None:
        """The user, if *password* is right; ``None``: whatever it is.  Raises LDAPError."""
        settings = self._settings
        with self._connected() as directory:
            self._bind_to_search(directory, search_password)
            named = f"(&({settings.user_attribute}={escape_filter_chars(user)}){settings.user_filter})"
            found = _entries(directory, settings.base, named, settings.user_attribute, 2)
            if len(found) != 1:
                return None
            ((dn, names),) = found
            name = next((each for each in names if each.casefold() == user.casefold()), "")
            if not is_user_name(name):
                return None
            if password is not None and not _is_right(directory, dn, password):
                return None
            if settings.group_base is None:
                return DirectoryUser(name)
            if password is not None:
                self._bind_to_search(directory, search_password)
            wanted = settings.group_filter.replace("{dn}", escape_filter_chars(dn)).replace("{user}", escape_filter_chars(name))
            groups = _entries(directory, settings.group_base, wanted, settings.group_attribute, _MOST_GROUPS)
            return DirectoryUser(name, frozenset(each for _, values in groups for each in values))

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        settings = self._settings
        directory = ldap.initialize(settings.url)
        try:
            directory.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
            # Entries of other directories would be asked for there, with this password.
            directory.set_option(ldap.OPT_REFERRALS, 0)
            directory.set_option(ldap.OPT_NETWORK_TIMEOUT, settings.timeout)
            directory.set_option(ldap.OPT_TIMEOUT, settings.timeout)
            directory.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
            if settings.ca_file is not None:
                directory.set_option(ldap.OPT_X_TLS_CACERTFILE, str(settings.ca_file))
            directory.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # takes the options above
            if settings.start_tls and settings.url.startswith("ldap:"):
                directory.start_tls_s()
            yield directory
        finally:
            with suppress(ldap.LDAPError):  # it is closed already
                directory.unbind_s()

    def _bind_to_search(self, directory: Any, password: str) -> None:
        try:
            directory.simple_bind_s(self._settings.bind_dn or "", password)
        except ldap.INVALID_CREDENTIALS:
            raise ldap.OTHER({"desc": "the password of access.ldap.bind_dn is wrong"}) from None


def _is_right(directory: Any, dn: str, password: bytes) -> bool:
    try:
        directory.simple_bind_s(dn, password)
    except _WRONG:
        return False
    return True


def _entries(directory: Any, base: str, wanted: str, attribute: str, most: int) -> list[tuple[str, list[str]]]:
    """The entries below *base* that fit the filter *wanted*, at most *most*, each with its values of *attribute*."""
    try:
        found = directory.search_ext_s(base, ldap.SCOPE_SUBTREE, wanted, [attribute], sizelimit=most)
    except ldap.NO_SUCH_OBJECT:
        return []
    except ldap.SIZELIMIT_EXCEEDED:
        if most > 2:
            raise
        return [("", []), ("", [])]  # more than one
    entries = ((dn, values) for dn, values in found if dn is not None)
    return [(dn, [text for each in _of(values, attribute) if (text := _text(each))]) for dn, values in entries]


def _of(values: Mapping[str, list[bytes]], attribute: str) -> list[bytes]:
    """The values of *attribute*, whose name may come in another case than it was asked for."""
    return next((found for name, found in values.items() if name.lower() == attribute.lower()), [])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _only(contents: Mapping[str, bytes]) -> str:
    (content,) = contents.values()
    return one_line(content)


def _words(error: ldap.LDAPError) -> str:
    """What *error* says, without anything that was sent."""
    said = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return ": ".join(str(said[key]) for key in ("desc", "info") if key in said) or type(error).__name__
