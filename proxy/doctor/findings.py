"""Findings: what was seen of one subject, whether that is in order, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from msgspec import Struct


class Grade(enum.Enum):
    """How good or bad a finding is."""

    OK = "ok"
    #: Builds work; something is likely to break, or is not as it is recommended.
    WARNING = "warning"
    #: Something does not work.
    FAULT = "fault"


class Diagnosis(Struct, frozen=True):
    """One thing that was examined.

    *subject* is what it is about ("upstream pypi"), *check* the kind of examination, a stable word for scripts.  *seen* is a
    sentence without a credential in it; *advice* says what to do, of everything but what is ok.
    """

    subject: str
    check: str
    grade: Grade
    seen: str
    advice: str | None = None


def fine(subject: str, check: str, seen: str) -> Diagnosis:
    """A finding that is in order."""
    return Diagnosis(subject, check, Grade.OK, seen)


def warning(subject: str, check: str, seen: str, advice: str) -> Diagnosis:
    """A finding to look at."""
    return Diagnosis(subject, check, Grade.WARNING, seen, advice)


def fault(subject: str, check: str, seen: str, advice: str) -> Diagnosis:
    """A finding that keeps something from working."""
    return Diagnosis(subject, check, Grade.FAULT, seen, advice)


def worst(findings: Iterable[Diagnosis]) -> Grade:
    """The grade of the worst of *findings*."""
    grades = {each.grade for each in findings}
    return next((grade for grade in (Grade.FAULT, Grade.WARNING) if grade in grades), Grade.OK)
