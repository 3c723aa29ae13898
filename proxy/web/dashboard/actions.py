"""What the buttons on the page of a project do: the right that each needs, its form, and what has to be confirmed.  Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct
from twisted.web.template import Tag, tags

from proxy.access.roles import Permission
from proxy.core.amounts import counted, size
from proxy.errors import BadRequest
from proxy.web.dashboard.markup import element
from proxy.web.hypertext import hyperlink

#: Files that are listed before something is done with them.
_LISTED = 100


class FormField(NamedTuple):
    """A field of a form: its *name* is that of an argument."""

    name: str
    label: str
    required: bool = True


class ButtonAction(NamedTuple):
    """What a button does: the *permission* that it needs, whether on *hosted* indexes alone or on others, and its words."""

    permission: Permission
    hosted: bool
    #: What it is called on the page, and what is said when it is done.
    label: str
    done: str
    fields: tuple[FormField, ...] = ()
    #: What is asked before it is done, ``None``: it can be undone; and what that is called, with the number of files.
    asked: str | None = None


_VERSION, _ANY = FormField("which", "Version or file"), FormField("which", "Version or file (empty: all)", required=False)
_REASON, _RELEASE, _TARGET = FormField("reason", "Reason (optional)", required=False), FormField("version", "Version"), "target"

ACTIONS: Mapping[str, ButtonAction] = {
    "refresh": ButtonAction(Permission.ADMINISTER, False, "Refresh from upstream", "The page was requested from upstream."),
    "pin": ButtonAction(Permission.ADMINISTER, False, "Pin", "What is cached is pinned: it is never evicted.", (_ANY,)),
    "unpin": ButtonAction(Permission.ADMINISTER, False, "Unpin", "It is no longer pinned.", (_ANY,)),
    "purge": ButtonAction(Permission.ADMINISTER, False, "Purge from the cache", "It was removed from the cache.", (_ANY,)),
    "yank": ButtonAction(Permission.MAINTAIN, True, "Yank", "The version is yanked.", (_VERSION, _REASON)),
    "unyank": ButtonAction(Permission.MAINTAIN, True, "Unyank", "The version is no longer yanked.", (_VERSION,)),
    "promote": ButtonAction(
        Permission.MAINTAIN,
        True,
        "Promote",
        "The version was promoted to this index.",
        (_RELEASE, FormField(_TARGET, "To the index")),
        "These files are added to the index {target}. They stay in {index} too.",
    ),
    "delete": ButtonAction(
        Permission.MAINTAIN,
        True,
        "Delete",
        "The files were deleted.",
        (_ANY,),
        "These files are deleted from the index {index}, and builds that need them fail from then on. Yank them instead if "
        "new builds alone should not use them.",
    ),
}


class Chosen(Struct, frozen=True):
    """The *action* called *name*, on *project* (normalised) of *index*, from the page of it in the index *shown*."""

    name: str
    action: ButtonAction
    index: str
    project: str
    shown: str

    @property
    def page(self) -> str:
        """The page that it was chosen on, from ``/-/act``."""
        return f"project/{self.shown}/{self.project}"

    def arguments(self, fields: Mapping[str, str]) -> dict[str, str]:
        """What the operation is called with.  Raises BadRequest."""
        found = {"source" if self.name == "promote" else "index": self.index, "project": self.project}
        for each in self.action.fields:
            value = fields.get(each.name, "").strip()
            if value:
                found[each.name] = value
            elif each.required:
                raise BadRequest(f"{self.action.label}: {each.label.lower()} is missing")
        return found

    def form(self, token: str, targets: Sequence[str]) -> Tag:
        """The form on the page; *token* is the viewer's, *targets* are the indexes that they may promote to."""
        return tags.form(
            *self._hidden(token),
            *(_input(f"{self.name}-{self.index}-{each.name}", each, targets) for each in self.action.fields),
            tags.button(self.action.label, type="submit"),
            method="post",
            action="../../act",
            class_="row",
        )

    def confirmation(self, found: object, arguments: Mapping[str, str], token: str, *, changed: str | None) -> list[Tag]:
        """What is shown before it is done to what was *found*.

        *changed*: that is something else than was confirmed, and what has become of that if anything was begun.
        """
        files = outcome_of(found).new
        named = {**arguments, "index": self.index}
        words = [] if changed is None else ["Meanwhile, the files have changed.", changed]
        told = [tags.p(each, class_="bad", role="alert") for each in words if each]
        left = len(files) - _LISTED
        fields = [*self._hidden(token), *(_hidden(each, arguments.get(each, "")) for each in ("which", "version", "target"))]
        return [
            *told,
            tags.p((self.action.asked or "").format_map(named)),
            tags.ul([tags.li(each.filename, " ", tags.span(size(each.size), class_="amount")) for each in files[:_LISTED]]),
            *([tags.p(f"And {counted(left, 'other file')}.")] if left > 0 else []),
            tags.form(
                *fields,
                _hidden("confirmed", confirmed_by(found)),
                tags.button(f"{self.action.label} {counted(len(files), 'file')}", type="submit", class_="danger"),
                tags.span(hyperlink(self.page, "Cancel")),
                method="post",
                action="act",
                class_="choice",
            ),
        ]

    def _hidden(self, token: str) -> list[Tag]:
        values = {"action": self.name, "index": self.index, "project": self.project, "shown": self.shown, "token": token}
        return [_hidden(name, value) for name, value in values.items()]


class NamedFile(Struct, frozen=True):
    """A file that something is done with."""

    filename: str
    size: int


class ActionOutcome(Struct, frozen=True):
    """What an operation did to files, or would do to *new* ones; *held*: why they are not served there yet."""

    new: list[NamedFile]
    held: str | None = None


def outcome_of(found: object) -> ActionOutcome:
    """What the operation says that answered *found*."""
    return msgspec.convert({"new": found} if isinstance(found, list) else found, ActionOutcome)


def confirmed_by(found: object) -> str:
    """What confirms that something is done to *found* and nothing else."""
    return hashlib.sha256(msgspec.json.encode(found)).hexdigest()


def _hidden(name: str, value: str) -> Tag:
    return tags.input(type="hidden", name=name, value=value)


def _input(id_: str, field: FormField, targets: Sequence[str]) -> Tag:
    needed = {"required": "required"} if field.required else {}
    if field.name == _TARGET:
        inside = Tag("select")(*(element("option", each) for each in targets), id=id_, name=field.name, **needed)
    else:
        inside = tags.input(id=id_, name=field.name, type="text", maxlength="300", **needed)
    return tags.div(tags.label(field.label, for_=id_), inside)
