"""The gate: what rules say together, and until when."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import File, LedgerEntry
from proxy.policy.policy import STANDARD, Policy
from proxy.policy.quarantine import Quarantine
from proxy.policy.rules import Project, Rule, Viewpoint
from proxy.policy.verdicts import VISIBLE, Verdict, united

FILE = File("six-1.0.tar.gz", "https://up.example/six-1.0.tar.gz")
VIEW = Viewpoint("pypi")


@pytest.mark.parametrize("status", [None, "active", "archived", "deprecated", "quarantined", "Quarantined", "unheard-of"])
def test_pep_792_only_a_quarantined_project_has_no_visible_file(status: str | None) -> None:
    project = Project("six", status)
    hidden = status == "quarantined"
    for verdict in (STANDARD.files(project, 0.0, VIEW), STANDARD.visible(FILE, project, None, 0.0, VIEW)):
        assert (verdict.visible, verdict.hidden_by, verdict.until) == (not hidden, "quarantine" if hidden else None, None)
    assert STANDARD.project("six", 0.0, VIEW).visible


A, B = Verdict("a", "of a", 10.0), Verdict("b", "of b", 20.0)
FOR_EVER = Verdict("c", "of c")


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ([], VISIBLE),
        ([VISIBLE, VISIBLE], VISIBLE),
        ([Verdict(until=20.0), VISIBLE, Verdict(until=10.0)], Verdict(until=10.0)),
        ([VISIBLE, A], A),
        ([Verdict(until=5.0), A], A),
        ([A, B], B),
        ([B, A], B),
        ([A, FOR_EVER, B], FOR_EVER),
    ],
)
def test_what_one_rule_hides_is_hidden_until_the_last_lets_it_go(verdicts: list[Verdict], together: Verdict) -> None:
    assert united(verdicts) == together


class Between(Rule, frozen=True):
    """Hides everything from *start* to *stop*, as *level* says: projects, all files of one, or single files."""

    name = "between"

    level: str
    start: float
    stop: float

    def project(self, name: str, now: float, view: Viewpoint) -> Verdict:
        return self._at(now, "project")

    def files(self, project: Project, now: float, view: Viewpoint) -> Verdict:
        return self._at(now, "files")

    def file(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        return self._at(now, "file")

    def _at(self, now: float, level: str) -> Verdict:
        if level != self.level or now >= self.stop:
            return VISIBLE
        return Verdict(until=self.start) if now < self.start else self.hides("out of hours", self.stop)


MOMENTS = st.integers(0, 20).map(float)
RULES = st.builds(
    lambda level, start, lasts: Between(level, start, start + lasts),
    st.sampled_from(["project", "files", "file"]),
    MOMENTS,
    st.one_of(st.integers(1, 20).map(float), st.just(math.inf)),
)


@given(st.lists(RULES, max_size=4), MOMENTS, MOMENTS)
def test_a_verdict_holds_until_the_moment_that_it_names(rules: list[Between], now: float, later: float) -> None:
    policy, project = Policy(tuple(rules)), Project("six")
    asked = (
        lambda now: policy.project("six", now, VIEW),
        lambda now: policy.files(project, now, VIEW),
        lambda now: policy.visible(FILE, project, None, now, VIEW),
    )
    verdicts = [ask(now) for ask in asked]
    for ask, verdict in zip(asked, verdicts, strict=True):
        assert verdict.until is None or verdict.until > now
        if now <= later and (verdict.until is None or later < verdict.until):
            assert ask(later).visible == verdict.visible
    # A file of a hidden project is hidden, and so is one of a project without visible files.
    for whole, part in pairwise(verdicts):
        assert whole.visible or not part.visible


def test_policies_of_the_same_rules_have_the_same_name_and_others_another() -> None:
    assert Policy((Quarantine(),)).name == STANDARD.name != Policy().name
    assert Policy((Between("file", 1.0, 2.0),)).name != Policy((Between("file", 1.0, 3.0),)).name


def test_a_policy_says_which_questions_it_has_answers_to() -> None:
    assert (STANDARD.judges_projects, STANDARD.judges_files) == (False, False)
    between = Policy((Quarantine(), Between("file", 1.0, 2.0)))
    assert (between.judges_projects, between.judges_files) == (True, True)
