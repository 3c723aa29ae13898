"""What maintainers change in a hosted index over HTTP: ``POST …/projects/<project>/<operation>`` with a JSON object.

The answer is what the operation returns, as ``pypiproxy`` prints it with ``--json``.  The operations are those of the admin
socket; who may have them performed here, the door decides by the right to maintain the project.

A browser may send a credential that it remembers, or that a proxy in front knows, with a request that a page of another site
has made.  Such a page cannot send JSON without asking first (CORS), which nobody here permits; and what the browser says of the
page (``Sec-Fetch-Site``) is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from proxy.access.principals import Principal
from proxy.access.roles import Permission
from proxy.core.audited import AuditOutcome
from proxy.errors import BadRequest, MethodNotAllowed, NotFound, ProxyError
from proxy.interfaces import IRepository, Operation
from proxy.mechanism.flight import uninterrupted
from proxy.model import EMPTY
from proxy.settings import KIB
from proxy.web.answers import Answer, Ask
from proxy.web.door import Door, Question
from proxy.web.routes import SHOWN

#: The longest body of a request (bytes).
_LONGEST = 16 * KIB
_JSON = "application/json"


class _Yank(msgspec.Struct, forbid_unknown_fields=True):
    which: str
    reason: str | None = None


class _Unyank(msgspec.Struct, forbid_unknown_fields=True):
    which: str


class _Delete(msgspec.Struct, forbid_unknown_fields=True):
    which: str | None
    dry: bool = False


class _Status(msgspec.Struct, forbid_unknown_fields=True):
    status: str | None = None
    reason: str | None = None


class _Promote(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    version: str
    dry: bool = False


#: The operations, each with what its JSON object may have.
CHANGES: Mapping[str, type[msgspec.Struct]] = {
    "yank": _Yank,
    "unyank": _Unyank,
    "delete": _Delete,
    "status": _Status,
    "promote": _Promote,
}


def refuse_foreign(ask: Ask) -> None:
    """Raise BadRequest if a browser sends *ask* for a page of another site."""
    if ask.header("sec-fetch-site") in ("cross-site", "same-site"):
        raise BadRequest(f"{ask.path[:SHOWN]}: a page of another site has sent this, and nothing was changed")


class Changes:
    """Has *operations* on the *hosted* indexes performed for whom *door* admits.  *repositories* are all indexes."""

    def __init__(
        self,
        door: Door,
        repositories: Mapping[str, IRepository] = EMPTY,
        hosted: frozenset[str] = frozenset(),
        operations: Callable[[], Mapping[str, Operation]] = lambda: EMPTY,
    ) -> None:
        self._door = door
        self._repositories = repositories
        self._hosted = hosted
        self._operations = operations

    def are_made_in(self, index: str) -> bool:
        """Whether *index* has files of its own, which may be changed."""
        return index in self._hosted

    def refusal(self, ask: Ask, repository: IRepository) -> MethodNotAllowed:
        """The error for a change of an index that has no files of its own."""
        near = [each for each in repository.leaves if each in self._hosted]
        where = f": ask at /index/{near[0]}/" if near else ""
        return MethodNotAllowed(f"the index {repository.name} has no files of its own to change{where}", allow="")

    async def answer(self, repository: IRepository, project: str, operation: str, ask: Ask) -> Answer:
        """The answer to *ask*, which is to have *operation* performed on *project* (normalised).  Raises ProxyError."""
        refuse_foreign(ask)
        admitted = await self._door.admit(ask, Question(Permission.MAINTAIN, repository, project))
        read = await _read(ask, CHANGES[operation])
        by = ask.by(admitted.principal)
        if isinstance(read, _Promote):
            await self.permit_target(by, project, read.target)
        asked: dict[str, object] = msgspec.structs.asdict(read)
        arguments = {"source" if isinstance(read, _Promote) else "index": repository.name, "project": project, **asked}
        what = " ".join(f"{key}={value}" for key, value in asked.items() if isinstance(value, str)) or None
        result = await self._performed(by, operation, arguments, repository.name, project, what)
        headers = [("Content-Type", _JSON), ("Cache-Control", "no-store")]
        return Answer(200, headers, msgspec.json.encode(result) + b"\n")

    async def permit_target(self, ask: Ask, project: str, target: str) -> Principal:
        """Raises NotFound for an index that who sends *ask* may not upload to, as for one that does not exist."""
        nothing = NotFound(f"there is no hosted index {target[:SHOWN]!r} that you may upload {project} to")
        if target not in self._hosted:
            raise nothing
        try:
            return (await self._door.admit(ask, Question(Permission.UPLOAD, self._repositories[target], project))).principal
        except NotFound:
            raise nothing from None

    async def _performed(
        self, ask: Ask, operation: str, arguments: Mapping[str, object], index: str, project: str, what: str | None
    ) -> object:
        # Who leaves does not interrupt what is half done.
        try:
            result = await uninterrupted(self._perform(operation, arguments))
        except ProxyError:
            self._door.note(ask, operation, AuditOutcome.FAILED, index=index, project=project, what=what)
            raise
        self._door.note(ask, operation, AuditOutcome.DONE, index=index, project=project, what=what)
        return result

    async def _perform(self, operation: str, arguments: Mapping[str, object]) -> object:
        return await self._operations()[operation](lambda said: None, **arguments)


async def _read(ask: Ask, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """What *ask* sends.  Raises ContentTooLarge, BadRequest."""
    sent = (ask.header("content-type") or "").partition(";")[0].strip().lower()
    if sent != _JSON:
        raise BadRequest(f"expected a JSON object with Content-Type: {_JSON}, not {sent[:SHOWN] or 'a request without one'}")
    received = b"" if ask.body is None else await ask.body.whole(_LONGEST, ask.deadline)
    try:
        return msgspec.json.decode(received, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the JSON object cannot be used: {error}") from error
