"""Names that somebody may have meant: what a message about an unknown name suggests."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(given: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of *known* that is most like *given*; ``None`` if none is, by *cutoff* (from 0, anything, to 1, the same)."""
    from difflib import get_close_matches  # most names are known

    return next(iter(get_close_matches(given, known, n=1, cutoff=cutoff)), None)


def suggested(given: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The rest of a message about *given*, which is not *known*: a question with the nearest name, or nothing."""
    near = nearest(given, known, cutoff)
    return "" if near is None else f"; did you mean {near}?"


def no_index(given: str | None, known: Iterable[str]) -> str:
    """What to say about an index *given* by a name that is not among those *known*."""
    names = sorted(known)
    return f"there is no index named {given!r} here; there is {', '.join(names)}{suggested(given or '', names)}"
