"""PEP 792: a quarantined project must offer no file, those that were cached before included."""

from __future__ import annotations

from proxy.policy.rules import Project, Rule, Viewpoint
from proxy.policy.verdicts import VISIBLE, Verdict


class Quarantine(Rule, frozen=True):
    """Hides all files of a project whose page states the status ``quarantined``.  The project itself stays visible."""

    name = "quarantine"

    def files(self, project: Project, now: float, view: Viewpoint) -> Verdict:
        return self.hides("quarantined upstream") if project.status == "quarantined" else VISIBLE
