"""Why the resolver found nothing, in its own words, with a hint that fits: what to change so that the next run succeeds."""

from __future__ import annotations

import re

#: What uv says before its reason.
_PREAMBLE = re.compile(r"No solution found when resolving dependencies(?: for [^:]*)?:? *(?:cause:)? *")
#: Expressions that occur in a reason, the most telling first, and what to do about it.
_HINTS = (
    (
        re.compile(r"HTTP status|Request failed|Failed to fetch|error sending request"),
        "see which upstream does not answer with pypiproxy upstreams, and run this again later",
    ),
    (
        re.compile(r"building from source is disabled|no usable wheels"),
        "leave out --only-binary, or require a version that has a wheel",
    ),
    (re.compile(r"\b(?:ABI|[Pp]latform|Python) tag\b|wheels with a matching"), "name another --python or --platform"),
    (re.compile(r"does not satisfy Python|requested Python version"), "name another --python, or require an older version"),
    (
        re.compile(r"not found in the package registry"),
        "check the spelling, and whether an upstream has the project",
    ),
    (
        re.compile(r"there (?:is|are) no versions? of|only .+ (?:is|are) available"),
        "require a version that exists; if it was published just now, run pypiproxy refresh PROJECT first",
    ),
    (re.compile(r"Failed to build|build backend|failed to parse metadata"), "build it on this machine to see why it fails"),
)
_CONFLICT = "relax one of the requirements that exclude each other, or put them in files of their own"


def explained(words: str) -> str:
    """The reason in uv's *words*, in one sentence, and a hint."""
    reason = _PREAMBLE.sub("", words, count=1).strip()
    hint = next((hint for expression, hint in _HINTS if expression.search(reason)), _CONFLICT)
    return f"{reason.rstrip('.')}. To do: {hint}"
