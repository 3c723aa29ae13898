"""The door: who may have the answer to a request, decided once, for both lanes.

Theory of operation.  A request asks a :class:`Question`: a permission on a project of an index, or on the index.  What
everybody may have is given to everybody, and a credential with it is not looked at.  Otherwise the credential is examined, and
the rights on the index that the project comes from decide.  Without a credential the answer is 401; with one that does not
suffice it is 404, which is the same as for what does not exist.

To be the same it must not depend on anything that exists.  So where a part of an index is restricted, every 404 has the same
words; and who sends no credential gets 401 for what does not exist, as for what the restricted part of a group holds.

A remembered answer (:mod:`proxy.web.hot`) asks the same question again, with what is remembered of credentials: claims,
accounts and rights may have changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace
from zope.interface import implementer

from proxy.access.principals import ANONYMOUS, Principal
from proxy.access.rights import Access, OpenReading, Rights
from proxy.access.roles import Permission
from proxy.access.scrapers import Scrapers
from proxy.accounts.audit import Unaudited
from proxy.core.audited import Audited, AuditOutcome
from proxy.core.events import AccessRefused, RefusalReason
from proxy.core.warming import is_mark
from proxy.errors import LoginRequired, NotFound, ProxyError, RightsUnknown, SentUnencrypted, StorageFailed
from proxy.interfaces import IAccounts, IAuditLog, IRecorder, IRepository
from proxy.model import EMPTY
from proxy.names import normalize
from proxy.statistics.recorders import UNRECORDED
from proxy.web.answers import Answer, AnswerSource, Ask, Headers, Ready
from proxy.web.callers import Caller
from proxy.web.routes import SHOWN, Below, Route

#: What each method at a pattern asks for; ``None``: nothing that anybody needs a right for.
Permissions = Mapping[str, Mapping[str, Permission | None]]

_LOGIN = "a user name and a password are needed here, or a token as the password"
_WRONG = "the user name, the password or the token is wrong, or no longer valid"
_UNENCRYPTED = (
    "a password or token arrived over plain http, where others may have read it, and was not examined: use https, and replace "
    "it (access.allow_plaintext_auth = true permits plain http)"
)


class Question(Struct, frozen=True):
    """Whether somebody may use *permission* on *project* (normalised) of the index *repository*, ``None``: on the index."""

    permission: Permission
    repository: IRepository
    project: str | None


class Admitted(Struct, frozen=True):
    """*principal* may have the answer; *private*: not everybody may, or not everybody gets the same.

    That goes by the rights on *owners*, from which the project may come.
    """

    principal: Principal
    private: bool
    owners: tuple[str, ...] = ()


class Reading(Struct, frozen=True):
    """What somebody may see of an index: *visible* says so of names of projects (normalised), in any thread.

    *standing* is the same for all who may see the same.
    """

    visible: Callable[[str], bool]
    standing: Hashable


@implementer(IAccounts)
class NoAccounts:
    """Nobody is known by any credential."""

    def remembered(self, credential: bytes) -> Principal | None:
        return None

    async def authenticate(self, credential: bytes, origin: str) -> Principal | None:
        return None


#: In Python 3.11 a member of an enumeration takes long to find.
_ALLOWED = Access.ALLOWED
_OPEN, _NOBODY, _UNAUDITED = OpenReading(), NoAccounts(), Unaudited()


class Door:
    """Admits to the indexes *repositories* as *rights* say; *permissions* are those of the routes.

    *settled* waits until it is known whom projects of groups belong to, or raises StorageFailed.  *recorder* is told
    whom it refuses.  *scrapers* are those who may read the metrics, ``None``: everybody may.  Without any argument it is open,
    and nobody can change anything.
    """

    def __init__(
        self,
        rights: Rights = _OPEN,
        accounts: IAccounts = _NOBODY,
        audit: IAuditLog = _UNAUDITED,
        repositories: Mapping[str, IRepository] = EMPTY,
        permissions: Permissions = EMPTY,
        settled: Callable[[], Awaitable[None]] | None = None,
        recorder: IRecorder = UNRECORDED,
        scrapers: Scrapers | None = None,
    ) -> None:
        self._recorder = recorder
        self._scrapers = scrapers
        self._rights = rights
        self._settled = settled
        self._accounts = accounts
        self._audit = audit
        self._repositories = repositories
        self._permissions = permissions

    def question(self, route: Route, method: str) -> Question | None:
        """What a request with *method* asks at *route*; ``None``: nothing that anybody needs a right for."""
        if not isinstance(route, Below):
            return None
        permission = self._permissions.get(route.pattern, EMPTY).get(method)
        repository = self._repositories.get(route.index)
        if permission is None or repository is None:
            return None
        return Question(permission, repository, normalize(route.values[0]) if "{project}" in route.pattern else None)

    # -- the long way ------------------------------------------------------------------------------------------------------

    async def admit(self, ask: Ask, question: Question) -> Admitted:
        """Who sends *ask*, who may have the answer to *question*.

        Raises LoginRequired, NotFound, SentUnencrypted, RightsUnknown, StorageFailed, Overloaded.
        """
        if self._settled is not None and question.repository.leaves != (question.repository.name,):
            with suppress(StorageFailed):  # that concerns those alone that need to know
                await self._settled()
        owners = _owners(question)
        everybody = self._access(ANONYMOUS, question)
        if everybody is Access.ALLOWED and not self._is_partial(question):
            return Admitted(ANONYMOUS, private=False, owners=owners)
        principal = await self._known(ask)
        if principal is None:
            if everybody is Access.ALLOWED:
                return Admitted(ANONYMOUS, private=True, owners=owners)
            self._refused(ask, ANONYMOUS, question, AuditOutcome.LOGIN)
            raise LoginRequired(_LOGIN) if everybody is Access.LOGIN else _nothing(ask)
        if self._access(principal, question) is Access.ALLOWED:
            return Admitted(principal, private=True, owners=_owners(question))
        self._refused(ask, principal, question, AuditOutcome.REFUSED)
        raise _nothing(ask)

    async def admit_scraper(self, ask: Ask) -> None:
        """Return if who sends *ask* may read the metrics.

        Raises LoginRequired, NotFound, SentUnencrypted, RightsUnknown, Overloaded.
        """
        if self._scrapers is None or self._scrapers.includes(ANONYMOUS):
            return
        principal = await self._known(ask)
        if principal is None:
            self._recorder.record(AccessRefused(RefusalReason.LOGIN))
            raise LoginRequired(_LOGIN)
        if not self._scrapers.includes(principal):
            self._recorder.record(AccessRefused(RefusalReason.HIDDEN))
            raise _nothing(ask)

    async def confirmed(self, ask: Ask, admission: Admitted, question: Question) -> Admitted:
        """*admission*, once the answer to *question* is there and before it is given.

        To find the answer a group looks into the directories of its hosted members, and what it finds there belongs to them
        from then on: who was admitted to what others have is not admitted to that.  Raises as :meth:`admit`.
        """
        return admission if _owners(question) == admission.owners else await self.admit(ask, question)

    async def missing(self, ask: Ask, admission: Admitted, question: Question, error: ProxyError) -> ProxyError:
        """What to answer in the place of *error*, which who was admitted gets for what may not exist.

        It must not tell that nothing is hidden there.

        Raises as :meth:`admit`.
        """
        if question.project is None or not self._hides(question):
            return error
        if admission.principal.is_anonymous and await self._known(ask) is None:
            self._refused(ask, ANONYMOUS, question, AuditOutcome.LOGIN)
            return LoginRequired(_LOGIN)
        return _nothing(ask)

    def presented(self, answer: Answer, admission: Admitted, question: Question) -> Answer:
        """*answer* as it is given to who was admitted, now and when the same is asked again."""
        if admission.private:
            answer.headers = private(answer.headers)
        if answer.again is not None and self._hides(question):
            answer.again = self._again(answer.again, question)
        return answer

    async def viewer(self, ask: Ask) -> Principal:
        """Who sends *ask*, to be shown what they may see of everything; without a credential, what everybody may see.

        Raises LoginRequired, SentUnencrypted, RightsUnknown, Overloaded.
        """
        return await self._known(ask) or ANONYMOUS

    async def login(self, ask: Ask, credential: bytes) -> Principal:
        """Who stands behind *credential*, which *ask* has brought in another way than others do.

        Raises as :meth:`viewer`.
        """
        return await self._principal(ask, credential)

    def may(self, principal: Principal, permission: Permission, repository: IRepository, project: str | None) -> bool:
        """Whether *principal* may use *permission* on *project* (normalised) of *repository*; not while that cannot be told."""
        try:
            return self._access(principal, Question(permission, repository, project)) is Access.ALLOWED
        except (RightsUnknown, StorageFailed):
            return False

    def standing(self, principal: Principal) -> Hashable:
        """The same value for all who may read the same."""
        return self._rights.standing(principal)

    def reads_metrics(self, principal: Principal) -> bool:
        """Whether *principal* may read the metrics."""
        return self._scrapers is None or self._scrapers.includes(ANONYMOUS) or self._scrapers.includes(principal)

    def reading(self, principal: Principal, repository: IRepository) -> Reading | None:
        """What *principal* may see in lists of *repository*; ``None``: everything."""
        if self._sees_all(principal, repository):
            return None

        def visible(project: str) -> bool:
            return self._access(principal, Question(Permission.READ, repository, project)) is Access.ALLOWED

        return Reading(visible, self._rights.standing(principal))

    def note(
        self, ask: Ask, action: str, outcome: AuditOutcome, *, index: str, project: str | None = None, what: str | None = None
    ) -> None:
        """Record what became of an *action* of who sends *ask*, who was admitted and is known."""
        who, origin = str(ask.caller.principal), ask.caller.address
        self._audit.note(Audited(who, origin, action, outcome, index, project, what))

    # -- the hot lane ------------------------------------------------------------------------------------------------------

    def lets_in(self, question: Question | None, credential: bytes | None, caller: Caller) -> bool:
        """Whether *caller* with *credential* may have the answer to *question*, as far as that is known without waiting."""
        if question is None:
            return True
        try:
            if self._access(ANONYMOUS, question) is _ALLOWED:
                return True
            if caller.principal is not ANONYMOUS and not caller.principal.is_anonymous:
                return self._access(caller.principal, question) is _ALLOWED
            if credential is None or not caller.confidential:
                return False
            principal = self._accounts.remembered(credential)
            return principal is not None and self._access(principal, question) is _ALLOWED
        except (RightsUnknown, StorageFailed):
            return False

    def _again(self, source: AnswerSource, question: Question) -> AnswerSource:
        """*source*, with answers that say whether they are private now."""

        def again() -> Ready | None:
            ready = source()
            if ready is None:
                return None
            name, make = ready
            try:
                if self._access(ANONYMOUS, question) is _ALLOWED:
                    return (False, name), make
            except (RightsUnknown, StorageFailed):
                return None
            return (True, name), lambda: _made_private(make())

        return again

    # -- decisions ---------------------------------------------------------------------------------------------------------

    def _access(self, principal: Principal, question: Question) -> Access:
        rights, repository, project = self._rights, question.repository, question.project
        if project is not None:
            owners = repository.owners(project)
            if len(owners) == 1:  # as nearly always, up to three times for each hot request
                return rights.may(principal, question.permission, owners[0], project)
            each = [rights.may(principal, question.permission, leaf, project) for leaf in owners]
            return next((access for access in each if access is not Access.ALLOWED), Access.ALLOWED)
        found = [rights.may(principal, question.permission, leaf, None) for leaf in repository.leaves]
        return Access.ALLOWED if Access.ALLOWED in found else found[0]

    def _sees_all(self, principal: Principal, repository: IRepository) -> bool:
        return all(self._rights.reads_all(principal, leaf) for leaf in repository.leaves)

    def _is_partial(self, question: Question) -> bool:
        """Whether the answer to *question*, which everybody may have, has more in it for some."""
        return (
            question.project is None
            and question.permission is Permission.READ
            and not self._sees_all(ANONYMOUS, question.repository)
        )

    def _hides(self, question: Question) -> bool:
        """Whether a project called as that of *question* is hidden from some in one of the indexes that it may come from."""
        return any(
            self._rights.may(ANONYMOUS, question.permission, leaf, question.project) is not Access.ALLOWED
            for leaf in question.repository.leaves
        )

    async def _known(self, ask: Ask) -> Principal | None:
        """Who sends *ask*, by what a trusted proxy states, else by the credential in it; ``None``: it has none.

        Raises as :meth:`_principal`.
        """
        if not ask.caller.principal.is_anonymous:
            return ask.caller.principal
        credential = _credential(ask)
        return None if credential is None else await self._principal(ask, credential)

    async def _principal(self, ask: Ask, credential: bytes) -> Principal:
        """Who stands behind *credential*.  Raises LoginRequired, SentUnencrypted, RightsUnknown."""
        if not ask.caller.confidential:
            self._audit.note(Audited("a credential", ask.caller.address, "log in", AuditOutcome.PLAINTEXT))
            self._recorder.record(AccessRefused(RefusalReason.PLAINTEXT))
            raise SentUnencrypted(_UNENCRYPTED)
        principal = await self._accounts.authenticate(credential, ask.caller.address)
        if principal is None:
            self._recorder.record(AccessRefused(RefusalReason.WRONG))
            raise LoginRequired(_WRONG)
        return principal

    def _refused(self, ask: Ask, principal: Principal, question: Question, outcome: AuditOutcome) -> None:
        self._recorder.record(AccessRefused(RefusalReason.LOGIN if outcome is AuditOutcome.LOGIN else RefusalReason.HIDDEN))
        index, project = question.repository.name, question.project
        self._audit.note(Audited(str(principal), ask.caller.address, question.permission.value, outcome, index, project))


def _owners(question: Question) -> tuple[str, ...]:
    return () if question.project is None else tuple(question.repository.owners(question.project))


def _credential(ask: Ask) -> bytes | None:
    said = ask.header("authorization")
    if said is None:
        return None
    credential = said.encode("latin-1").strip(b" \t")
    return None if is_mark(credential) else credential


def _nothing(ask: Ask) -> NotFound:
    return NotFound(f"there is nothing at {ask.path[:SHOWN]}")


def private(headers: Headers) -> Headers:
    """*headers* of an answer that caches in between may not give to others (RFC 9111 section 5.2.2.7)."""
    found = [(name, _confined(name, value)) for name, value in headers]
    names = {name.lower() for name, _ in found}
    if "cache-control" not in names:
        found.append(("Cache-Control", "private"))
    if "vary" not in names:
        found.append(("Vary", "Authorization"))
    return found


def _confined(name: str, value: str) -> str:
    match name.lower():
        case "cache-control" if "no-store" not in value:
            return ", ".join(["private", *(each for each in value.split(", ") if each != "public")])
        case "vary":
            return f"{value}, Authorization"
    return value


def _made_private(answer: Answer) -> Answer:
    return replace(answer, headers=private(answer.headers))
