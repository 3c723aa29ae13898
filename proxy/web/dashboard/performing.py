"""The buttons on the page of a project, for those who have the right to what they do; each leaves a line in the audit log.

Theory of operation.  A button sends a form.  What cannot be undone is only tried at first, and the answer is a page that lists
what would become of which files, with another form: that is performed if the same files are still found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.web.template import Tag, tags

from proxy.access.roles import Permission
from proxy.core.audited import AuditOutcome
from proxy.errors import BadRequest, FilesChanged, LoginRequired, NotFound, ProxyError
from proxy.interfaces import IRepository, Operation
from proxy.mechanism.flight import uninterrupted
from proxy.names import is_project_name, normalize
from proxy.web.answers import Answer, Ask
from proxy.web.changing import Changes
from proxy.web.dashboard.actions import ACTIONS, ButtonAction, Chosen, confirmed_by, outcome_of
from proxy.web.dashboard.forms import fields_of
from proxy.web.dashboard.logins import BrowserLogins, see_other
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.dashboard.shell import Frame, Shell
from proxy.web.dashboard.viewers import Viewer, Viewers
from proxy.web.door import Door, Question
from proxy.web.hypertext import hyperlink
from proxy.web.routes import SHOWN

#: Arguments that the audit log has.
_NOTED = ("which", "version", "target", "reason")


class ProjectActions:
    """Performs *operations* on projects of *repositories*, of which those in *hosted* have files of their own.

    *viewers* tell who may; *door* is asked once more, and records what was done; *changes* tells who may promote where.
    """

    def __init__(
        self,
        viewers: Viewers,
        door: Door,
        sessions: BrowserSessions,
        repositories: Mapping[str, IRepository],
        hosted: frozenset[str],
        operations: Mapping[str, Operation],
        changes: Changes,
        shell: Shell,
        logins: BrowserLogins,
    ) -> None:
        self._viewers = viewers
        self._door = door
        self._sessions = sessions
        self._repositories = repositories
        self._hosted = hosted
        self._operations = operations
        self._changes = changes
        self._shell = shell
        self._logins = logins

    def buttons(self, viewer: Viewer, ask: Ask, repository: IRepository, project: str) -> list[Tag]:
        """Forms for what *viewer*, who sends *ask*, may do with *project* (normalised) of *repository*; and what was done."""
        done = ACTIONS.get(ask.query.removeprefix("done="))
        found: list[Tag] = [] if done is None else [tags.p(done.done, class_="good", role="status")]
        token = self._sessions.form_token(ask, viewer.principal)
        for index in repository.owners(project):
            targets = self._targets(viewer, index, project)
            forms = [
                Chosen(name, each, index, project, repository.name).form(token, targets)
                for name, each in ACTIONS.items()
                if each.hosted is (index in self._hosted)
                and self._viewers.may(viewer.principal, each.permission, index, project)
                and (targets or name != "promote")
            ]
            if forms:
                found.append(tags.details(tags.summary(f"Change {project} in {index}"), *forms))
        return found

    def _targets(self, viewer: Viewer, index: str, project: str) -> Sequence[str]:
        """The indexes that *viewer* may promote *project* of *index* to."""
        return [
            each
            for each in sorted(self._hosted - {index})
            if self._viewers.may(viewer.principal, Permission.UPLOAD, each, project)
        ]

    async def perform(self, ask: Ask) -> Answer:
        """Answer *ask*, which sends one of the forms.  Raises ProxyError."""
        fields = await fields_of(ask)
        viewer, ask = await self._viewers.of(ask)
        name, index, project = (fields.get(each, "") for each in ("action", "index", "project"))
        action, repository = ACTIONS.get(name), self._repositories.get(index)
        if not is_project_name(project) or action is None or repository is None or not self._is_for(action, index):
            raise BadRequest(f"{ask.path[:SHOWN]}: the form names no action, index or project that there is")
        admitted = await self._door.admit(ask, Question(action.permission, repository, normalize(project)))
        if not self._sessions.is_ours(fields.get("token", ""), ask, viewer.principal):
            raise BadRequest("the form is of another login: go back, reload the page, and try again")
        if fields.get("shown", "") not in self._repositories:
            raise NotFound("the form names no index that there is")
        chosen = Chosen(name, action, index, normalize(project), fields["shown"])
        frame = Frame("../", None, self._logins.stated(viewer, "../"))
        try:
            return await self._answered(ask.by(admitted.principal), chosen, fields, frame)
        except ProxyError as error:
            if error.status >= 500 or isinstance(error, LoginRequired):
                raise  # with a challenge (RFC 9110 section 15.5.2)
            told = [tags.p(f"{error}", class_="bad", role="alert"), tags.p(hyperlink(chosen.page, f"Back to {chosen.project}"))]
            return await self._shell.page(f"{action.label}: nothing was changed", frame, *told, status=error.status)

    async def _answered(self, ask: Ask, chosen: Chosen, fields: Mapping[str, str], frame: Frame) -> Answer:
        """Do what was *chosen* with *fields*, for who sends *ask* and may, or ask for it once more.  Raises ProxyError."""
        action, arguments = chosen.action, chosen.arguments(fields)
        if "target" in arguments:
            await self._changes.permit_target(ask, chosen.project, arguments["target"])
        performed: dict[str, object] = {**arguments}
        if action.asked is not None:
            found = await self._tried(chosen, arguments)
            confirmed = fields.get("confirmed", "")
            if confirmed != confirmed_by(found):
                return await self._asked(chosen, arguments, found, fields, frame, changed="" if confirmed else None)
            performed["confirmed"] = found
        try:
            result = await self._performed(ask, chosen, performed)
        except FilesChanged as error:
            found = await self._tried(chosen, arguments)
            return await self._asked(chosen, arguments, found, fields, frame, changed=str(error))
        return await self._told(chosen, arguments, result, frame)

    async def _tried(self, chosen: Chosen, arguments: Mapping[str, str]) -> object:
        """What would become of which files if it were done now.  Raises ProxyError."""
        found = await self._operations[chosen.name](lambda said: None, **arguments, dry=True)
        if not outcome_of(found).new:
            raise BadRequest(f"all files of {arguments['version']} are in the index {arguments['target']} already")
        return found

    async def _asked(
        self,
        chosen: Chosen,
        arguments: Mapping[str, str],
        found: object,
        fields: Mapping[str, str],
        frame: Frame,
        *,
        changed: str | None,
    ) -> Answer:
        """The page that asks whether it shall be done to what was *found*.

        *changed*: something else was confirmed, and what has become of that if anything was begun.
        """
        # The token in the form that was sent is right for the next one too.
        content = chosen.confirmation(found, arguments, fields["token"], changed=changed)
        return await self._shell.page(f"{chosen.action.label} {chosen.project}?", frame, *content)

    def _is_for(self, action: ButtonAction, index: str) -> bool:
        return action.hosted is (index in self._hosted)

    async def _told(self, chosen: Chosen, arguments: Mapping[str, str], result: object, frame: Frame) -> Answer:
        """Lead to the page that shows what was done with *result*; there is none of a project without files."""
        if chosen.name == "promote":
            held = outcome_of(result).held
            if held is not None:
                told = [tags.p(chosen.action.done), tags.p(f"It is not served there yet: {held}", class_="bad")]
                return await self._shell.page(f"{chosen.action.label} {chosen.project}", frame, *told)
            return see_other(f"project/{arguments['target']}/{chosen.project}?done=promote")
        if chosen.name == "delete":
            try:
                await self._operations["delete"](lambda said: None, index=chosen.index, project=chosen.project, dry=True)
            except NotFound:
                left = f"The index {chosen.index} has no files of {chosen.project} any more. "
                content = tags.p(left, hyperlink("search", "Projects"), role="status")
                return await self._shell.page(f"{chosen.project} was deleted", frame, content)
        return see_other(f"{chosen.page}?done={chosen.name}")

    async def _performed(self, ask: Ask, chosen: Chosen, arguments: Mapping[str, object]) -> object:
        outcome = AuditOutcome.FAILED
        what = " ".join(f"{key}={value}" for key, value in arguments.items() if key in _NOTED) or None
        try:
            # Who leaves does not interrupt what is half done.
            result = await uninterrupted(self._perform(chosen.name, arguments))
            outcome = AuditOutcome.DONE
            return result
        finally:
            self._door.note(ask, chosen.name, outcome, index=chosen.index, project=chosen.project, what=what)

    async def _perform(self, name: str, arguments: Mapping[str, object]) -> object:
        return await self._operations[name](lambda said: None, **arguments)
