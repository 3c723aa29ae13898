"""Verdicts: whether something may be seen, which rule hides it, and until when that holds."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct


class Verdict(Struct, frozen=True):
    """What the rules say of one project or one file.

    ``hidden_by`` is the name of the rule that hides it, ``None`` when it is visible.  ``why`` completes the sentence "it is …".
    ``until`` is the next moment at which the verdict may change (seconds since the epoch), ``None`` when it never does: for
    each moment from the one that was asked about up to ``until`` (exclusive), the verdict is the same.
    """

    hidden_by: str | None = None
    why: str = ""
    until: float | None = None

    @property
    def visible(self) -> bool:
        """Whether it may be seen."""
        return self.hidden_by is None


VISIBLE = Verdict()


def earliest(one: float | None, other: float | None) -> float | None:
    """The earlier of two moments, of which ``None`` never comes."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def united(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several rules on one subject: it is visible if no rule hides it.

    What several rules hide stays hidden until the last of them lets it go, so that one is named.
    """
    hidden: Verdict | None = None
    until: float | None = None
    for verdict in verdicts:
        if verdict.visible:
            until = earliest(until, verdict.until)
        elif hidden is None or _lasts_longer(verdict, hidden):
            hidden = verdict
    if hidden is not None:
        return hidden
    return VISIBLE if until is None else Verdict(until=until)


def _lasts_longer(one: Verdict, other: Verdict) -> bool:
    if one.until is None or other.until is None:
        return one.until is None and other.until is not None
    return one.until > other.until
