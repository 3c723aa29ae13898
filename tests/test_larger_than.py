"""The rule that was made up for the tests of the gate."""

from __future__ import annotations

import pytest

from proxy.model import File, LedgerEntry
from proxy.policy.policy import Policy
from proxy.policy.rules import Project, Viewpoint
from proxy.policy.verdicts import Verdict
from tests.support.larger_than import LargerThan

HIDDEN = Verdict("larger-than", "larger than 100 bytes")


@pytest.mark.parametrize(
    ("stated", "recorded", "now", "verdict"),
    [
        (100, None, 50.0, Verdict()),
        (101, None, 49.0, Verdict(until=50.0)),
        (101, None, 50.0, HIDDEN),
        (None, None, 50.0, Verdict()),
        (None, 101, 50.0, HIDDEN),
        (101, 100, 50.0, Verdict()),
    ],
    ids=["small", "not yet", "large", "unknown", "known since it was served", "the ledger knows better"],
)
def test_files_larger_than_some_size_are_hidden_from_some_moment_on(
    stated: int | None, recorded: int | None, now: float, verdict: Verdict
) -> None:
    policy = Policy((LargerThan(100, since=50.0),))
    file = File("six-1.0.tar.gz", "https://up.example/six-1.0.tar.gz", size=stated)
    facts = None if recorded is None else LedgerEntry("ab" * 32, recorded, {}, file.url, 1.0)
    assert policy.visible(file, Project("six"), facts, now, Viewpoint("pypi")) == verdict
