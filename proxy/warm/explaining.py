"""Why something could not be had, with a hint that fits: what to change so that the next run succeeds.

A page that the proxy does not have is explained by the proxy's answer, everything else in the words of the resolver.
"""

from __future__ import annotations

import json
import re
from typing import Any

from proxy.errors import GivenUp, NotFound, NotHere, SlowUpstream, UpstreamFailed

#: What uv says of a request that did not give what was asked for.
_NO_ANSWER = r"HTTP status|Request failed|Failed to fetch|error sending request"
#: The project whose page the resolver did not get: it names the project, or the URL that it asked for.
_UNKNOWN = re.compile(r"(\S+) was not found in the package registry")
_FAILED = re.compile(rf"(?:{_NO_ANSWER}).*?/simple/([^/\s`]+)/")
#: Codes of answers during an outage.
_OUTAGE = (UpstreamFailed.code, SlowUpstream.code, GivenUp.code)
_SPELLING = "check the spelling, and whether an upstream has the project"

#: What uv says before its reason.
_PREAMBLE = re.compile(r"No solution found when resolving dependencies(?: for [^:]*)?:? *(?:cause:)? *")
#: Expressions that occur in a reason, the most telling first, and what to do about it.
_HINTS = (
    (
        re.compile(_NO_ANSWER),
        "see which upstream does not answer with pypiproxy upstreams, and run this again later",
    ),
    (
        re.compile(r"building from source is disabled|no usable wheels"),
        "leave out --only-binary, or require a version that has a wheel",
    ),
    (re.compile(r"\b(?:ABI|[Pp]latform|Python) tag\b|wheels with a matching"), "name another --python or --platform"),
    (re.compile(r"does not satisfy Python|requested Python version"), "name another --python, or require an older version"),
    (re.compile(r"not found in the package registry"), _SPELLING),
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


def unfound(words: str) -> str | None:
    """The project whose page the resolver did not get, as its *words* say; ``None`` if they are about something else."""
    found = _UNKNOWN.search(words) or _FAILED.search(words)
    return None if found is None else found[1]


def without_page(project: str, status: int, body: bytes) -> str | None:
    """Why the index has no page of *project*, and a hint: *status* and *body* are its answer.  ``None`` if they do not tell."""
    told = _told(body)
    code = told.get("code")
    if code in _OUTAGE:
        return f"upstream is unavailable ({_reasons(told)}). To do: see pypiproxy upstreams, and run this again later"
    if code == NotHere.code:
        return f"nothing of {project} is stored. To do: fetch it first, with pypiproxy warm {project}"
    if code == NotFound.code and "upstream answered 404" in str(told.get("detail")):
        return f"upstream has no project {project}. To do: {_SPELLING}"
    if code is None and status == 404:
        return f"the index has no project {project}. To do: {_SPELLING}"
    return None


def _told(body: bytes) -> dict[str, Any]:
    """The members of a problem document (RFC 9457); empty if *body* is none."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _reasons(told: dict[str, Any]) -> str:
    attempts = told.get("attempts")
    reasons = [str(each.get("reason")) for each in attempts if isinstance(each, dict)] if isinstance(attempts, list) else []
    return "; ".join(dict.fromkeys(reasons)) or str(told.get("detail"))
