"""Claims: which index the name of a project belongs to, whatever files there are of it."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable

from msgspec import Struct

#: Who causes a claim to a name that no file is uploaded of; the first file changes that.
OPERATOR = "an operator"


class ClaimState(enum.Enum):
    """What a claim does in the groups that its index is a member of."""

    #: The name belongs to the index: no group looks it up in a later member.
    CLAIMED = "claimed"
    #: Nothing yet: a later member is known to serve the name too, and an operator has to decide.
    HELD = "held"


#: Why a name is held that belongs to another hosted index.  Who uploads need not be one who may know that index has it.
OF_ANOTHER = "it belongs to another hosted index, and groups with that go on serving what that one has"


class NameClaim(Struct, frozen=True, order=True):
    """The claim of *index* to *project* (normalised).

    ``since`` is in seconds since the epoch, ``by`` names the principal that caused it.  ``why`` is the reason why it is held.
    """

    index: str
    project: str
    state: ClaimState
    since: float
    by: str
    why: str = ""

    @property
    def is_second(self) -> bool:
        """Whether another hosted index had claimed the name: it is nobody else's in groups without that index."""
        return self.state is ClaimState.HELD and self.why == OF_ANOTHER


class Patterns:
    """Patterns of normalised names: ``*`` stands for any characters, ``?`` for one."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.texts = tuple(patterns)
        texts = [re.escape(each).replace(r"\*", ".*").replace(r"\?", ".") for each in self.texts]
        self._pattern = re.compile("|".join(texts)) if texts else None

    def match(self, project: str) -> bool:
        """Whether one of them matches all of *project*."""
        return self._pattern is not None and self._pattern.fullmatch(project) is not None


class Reservation(Struct, frozen=True):
    """All names that belong to certain hosted indexes, or to ones that are not configured any more."""

    names: frozenset[str]
    patterns: Patterns

    def holds(self, project: str) -> bool:
        """Whether *project* (normalised) is among them."""
        return project in self.names or self.patterns.match(project)

    def digest(self) -> str:
        """What is the same as long as it holds the same names.  Takes milliseconds for thousands of them."""
        texts = [*sorted(self.names), "", *sorted(self.patterns.texts)]
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()
