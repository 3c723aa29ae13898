"""The buttons on the page of a project, for those who have the right to what they do; each leaves a line in the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from twisted.web.template import Tag, tags

from proxy.access.roles import Permission
from proxy.core.audited import AuditOutcome
from proxy.errors import BadRequest, NotFound, ProxyError
from proxy.interfaces import IRepository, Operation
from proxy.mechanism.flight import uninterrupted
from proxy.names import is_project_name, normalize
from proxy.web.answers import Answer, Ask
from proxy.web.dashboard.forms import fields_of
from proxy.web.dashboard.logins import see_other
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.dashboard.viewers import Viewer, Viewers
from proxy.web.door import Door, Question
from proxy.web.routes import SHOWN


class _Action(NamedTuple):
    """What a button does: the *permission* that it needs, whether on *hosted* indexes alone or on others, and its words."""

    permission: Permission
    hosted: bool
    #: What it is called on the page, and what is said when it is done.
    label: str
    done: str
    #: Whether one version has to be named, or may be; ``None``: it is for the project as a whole.
    version: bool | None = None
    reason: bool = False


_ACTIONS: Mapping[str, _Action] = {
    "refresh": _Action(Permission.ADMINISTER, False, "Refresh from upstream", "The page was requested from upstream."),
    "pin": _Action(Permission.ADMINISTER, False, "Pin", "What is cached is pinned: it is never evicted.", False),
    "unpin": _Action(Permission.ADMINISTER, False, "Unpin", "It is no longer pinned.", False),
    "purge": _Action(Permission.ADMINISTER, False, "Purge from the cache", "It was removed from the cache.", False),
    "yank": _Action(Permission.MAINTAIN, True, "Yank", "The version is yanked.", True, True),
    "unyank": _Action(Permission.MAINTAIN, True, "Unyank", "The version is no longer yanked.", True),
}


class ProjectActions:
    """Performs *operations* on projects of *repositories*, of which those in *hosted* have files of their own.

    *viewers* tell who may; *door* is asked once more, and records what was done.
    """

    def __init__(
        self,
        viewers: Viewers,
        door: Door,
        sessions: BrowserSessions,
        repositories: Mapping[str, IRepository],
        hosted: frozenset[str],
        operations: Mapping[str, Operation],
    ) -> None:
        self._viewers = viewers
        self._door = door
        self._sessions = sessions
        self._repositories = repositories
        self._hosted = hosted
        self._operations = operations

    def buttons(self, viewer: Viewer, ask: Ask, repository: IRepository, project: str) -> list[Tag]:
        """Forms for what *viewer*, who sends *ask*, may do with *project* (normalised) of *repository*; and what was done."""
        done = _ACTIONS.get(ask.query.removeprefix("done="))
        found: list[Tag] = [] if done is None else [tags.p(done.done, class_="good", role="status")]
        token = self._sessions.form_token(ask, viewer.principal)
        for index in repository.owners(project):
            forms = [
                _form(name, each, index, repository.name, project, token)
                for name, each in _ACTIONS.items()
                if each.hosted is (index in self._hosted)
                and self._viewers.may(viewer.principal, each.permission, index, project)
            ]
            if forms:
                found.append(tags.details(tags.summary(f"Change {project} in {index}"), *forms))
        return found

    async def perform(self, ask: Ask) -> Answer:
        """Answer *ask*, which sends one of the forms.  Raises ProxyError."""
        fields = await fields_of(ask)
        viewer, ask = await self._viewers.of(ask)
        name, index, project = (fields.get(each, "") for each in ("action", "index", "project"))
        action, repository = _ACTIONS.get(name), self._repositories.get(index)
        if action is None or repository is None or not is_project_name(project) or action.hosted is not (index in self._hosted):
            raise BadRequest(f"{ask.path[:SHOWN]}: the form names no action, index or project that there is")
        admitted = await self._door.admit(ask, Question(action.permission, repository, normalize(project)))
        if not self._sessions.is_ours(fields.get("token", ""), ask, viewer.principal):
            raise BadRequest("the form is of another login: go back, reload the page, and try again")
        shown = fields.get("shown", "")
        if shown not in self._repositories:
            raise NotFound("the form names no index that there is")
        arguments = _arguments(action, index, normalize(project), fields)
        await self._performed(ask.by(admitted.principal), name, arguments)
        return see_other(f"project/{shown}/{normalize(project)}?done={name}")

    async def _performed(self, ask: Ask, name: str, arguments: Mapping[str, str]) -> None:
        outcome = AuditOutcome.FAILED
        what = " ".join(f"{key}={value}" for key, value in arguments.items() if key in ("which", "reason")) or None
        try:
            # Who leaves does not interrupt what is half done.
            await uninterrupted(self._perform(name, arguments))
            outcome = AuditOutcome.DONE
        except ProxyError:
            raise
        finally:
            self._door.note(ask, name, outcome, index=arguments["index"], project=arguments["project"], what=what)

    async def _perform(self, name: str, arguments: Mapping[str, str]) -> object:
        return await self._operations[name](lambda said: None, **arguments)


def _arguments(action: _Action, index: str, project: str, fields: Mapping[str, str]) -> dict[str, str]:
    """What the operation is called with.  Raises BadRequest."""
    found = {"index": index, "project": project}
    which, reason = fields.get("which", "").strip(), fields.get("reason", "").strip()
    if action.version is not None and which:
        found["which"] = which
    elif action.version:
        raise BadRequest("name a version or a file")
    if action.reason and reason:
        found["reason"] = reason
    return found


def _form(name: str, action: _Action, index: str, shown: str, project: str, token: str) -> Tag:
    hidden = {"action": name, "index": index, "project": project, "shown": shown, "token": token}
    inputs = [tags.input(type="hidden", name=key, value=value) for key, value in hidden.items()]
    fields: Sequence[Tag] = ()
    if action.version is not None:
        label = "Version or file" if action.version else "Version or file (empty: all)"
        fields = [_text(f"{name}-{index}-which", "which", label, required=action.version)]
    if action.reason:
        fields = [*fields, _text(f"{name}-{index}-reason", "reason", "Reason (optional)", required=False)]
    return tags.form(
        *inputs, *fields, tags.button(action.label, type="submit"), method="post", action="../../act", class_="row"
    )


def _text(id_: str, name: str, label: str, *, required: bool) -> Tag:
    needed = {"required": "required"} if required else {}
    return tags.div(tags.label(label, for_=id_), tags.input(id=id_, name=name, type="text", maxlength="300", **needed))
