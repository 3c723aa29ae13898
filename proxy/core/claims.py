"""Claims: which index the name of a project belongs to, whatever files there are of it."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

from attrs import frozen


class ClaimState(enum.Enum):
    """What a claim does in the groups that its index is a member of."""

    #: The name belongs to the index: no group looks it up in a later member.
    CLAIMED = "claimed"
    #: Nothing yet: a later member is known to serve the name too, and an operator has to decide.
    HELD = "held"


@frozen(slots=True, order=True)
class NameClaim:
    """The claim of *index* to *project* (normalised).

    ``since`` is in seconds since the epoch, ``by`` names the principal that caused it.  ``why`` is the reason why it is held.
    """

    index: str
    project: str
    state: ClaimState
    since: float
    by: str
    why: str = ""


class Patterns:
    """Patterns of normalised names: ``*`` stands for any characters, ``?`` for one."""

    def __init__(self, patterns: Iterable[str]) -> None:
        texts = [re.escape(each).replace(r"\*", ".*").replace(r"\?", ".") for each in patterns]
        self._pattern = re.compile("|".join(texts)) if texts else None

    def match(self, project: str) -> bool:
        """Whether one of them matches all of *project*."""
        return self._pattern is not None and self._pattern.fullmatch(project) is not None
