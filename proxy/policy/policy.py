"""The gate: ``policy.visible(file, project, facts, now, view)`` is the one decision on whether a file may be seen.

| question | is asked by |
|---|---|
| :meth:`Policy.project` | the list of projects, for each name; and whatever names a project, before anybody else is asked |
| :meth:`Policy.files` | whatever is about to look at a page: a project without visible files costs no look at one |
| :meth:`Policy.visible` | whatever names a file: pages, files, companions, documents, prefetch, presence, export |

Each verdict includes those above it in the table: a file of a hidden project is hidden.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

from msgspec import Struct

from proxy.model import File, LedgerEntry
from proxy.policy.quarantine import Quarantine
from proxy.policy.rules import Project, Rule, Viewpoint
from proxy.policy.verdicts import VISIBLE, Verdict, united


class Policy(Struct, frozen=True, dict=True):
    """Some *rules*, and what they say together.  *now* is the wall time in seconds since the epoch."""

    rules: tuple[Rule, ...] = ()

    @cached_property
    def name(self) -> str:
        """Names these very rules with their parameters: policies with the same name decide alike."""
        return hashlib.sha256("\n".join(map(repr, self.rules)).encode()).hexdigest()[:16]

    @property
    def judges_projects(self) -> bool:
        """Whether any rule can hide a project: otherwise :meth:`project` need not be asked."""
        return bool(self._of_projects)

    @property
    def judges_files(self) -> bool:
        """Whether any rule looks at single files: otherwise :meth:`visible` says for each file what :meth:`files` says."""
        return bool(self._of_single_files)

    def project(self, name: str, now: float, view: Viewpoint) -> Verdict:
        """Whether the project *name* (normalised) exists for clients."""
        rules = self._of_projects
        return united(rule.project(name, now, view) for rule in rules) if rules else VISIBLE

    def files(self, project: Project, now: float, view: Viewpoint) -> Verdict:
        """Whether any file of *project* may be seen."""
        verdict = self.project(project.name, now, view)
        return united((verdict, *(rule.files(project, now, view) for rule in self._of_files)))

    def visible(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        """Whether *file* of *project* may be seen; *facts* are what the ledger has of it."""
        return self.visible_among(self.files(project, now, view), file, project, facts, now, view)

    def visible_among(
        self, files: Verdict, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint
    ) -> Verdict:
        """As :meth:`visible`, for who asks about many files of a project: *files* is what :meth:`files` has said of all."""
        rules = self._of_single_files
        if files is VISIBLE and len(rules) == 1:
            return rules[0].file(file, project, facts, now, view)
        return united((files, *(rule.file(file, project, facts, now, view) for rule in rules)))

    @cached_property
    def _of_projects(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if type(rule).project is not Rule.project)

    @cached_property
    def _of_files(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if type(rule).files is not Rule.files)

    @cached_property
    def _of_single_files(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if type(rule).file is not Rule.file)


#: What every index goes by.
STANDARD = Policy((Quarantine(),))
