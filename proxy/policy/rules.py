"""What a rule is, and what it is asked about.

A rule is one module with one class and has one test module.  It overrides the questions that it answers and leaves the others
to :class:`Rule`, which hides nothing.  Rules are pure: they read no clock and perform no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from proxy.model import File, LedgerEntry
from proxy.policy.verdicts import VISIBLE, Verdict


class Viewpoint(Struct, frozen=True):
    """Where the question comes from: ``index`` is the name of the index that is looked at."""

    index: str


class Project(Struct, frozen=True):
    """A project: its normalised name, and the status that its page states (PEP 792), if it is kept and states any."""

    name: str
    status: str | None = None


class Rule(Struct, frozen=True):
    """A rule that hides nothing.

    ``repr()`` of a rule names it together with its parameters: rules with the same one decide alike.
    """

    #: What verdicts and operators call it.
    name: ClassVar[str]

    def project(self, name: str, now: float, view: Viewpoint) -> Verdict:
        """Whether the project *name* exists for clients.  It is asked for each entry of the list, without any page at hand."""
        return VISIBLE

    def files(self, project: Project, now: float, view: Viewpoint) -> Verdict:
        """Whether any file of *project* may be seen, whatever the file."""
        return VISIBLE

    def file(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        """Whether *file* may be seen.

        *file* is what the page states of it now, or the ledger where the page no longer lists it.  *facts* are the ledger's
        and are ``None`` for a file that was never served; they hold where the two differ.
        """
        return VISIBLE

    def hides(self, why: str, until: float | None = None) -> Verdict:
        """The verdict that this rule hides something; *why* and *until* are as in :class:`Verdict`."""
        return Verdict(self.name, why, until)
