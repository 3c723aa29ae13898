"""Errors as pages for people: the status, what happened, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from twisted.web.template import Tag, tags

from proxy import __version__
from proxy.core.amounts import duration
from proxy.errors import ProxyError, UpstreamFailed
from proxy.web.answers import Answer, Ask
from proxy.web.hypertext import hyperlink, instead_of, main_element

_RELOAD = "Reload this page in a few seconds."
_UPSTREAMS = (
    "If the error remains, the command pypiproxy upstreams on the proxy's host shows whether the index behind it answers."
)
_ONLY_READ = "Follow a link to a page or a file: nothing can be uploaded, changed or removed here."
_UPLOAD = "Correct what the message names, and upload the file again."
_DIGESTS = "Do not use the file. Ask those who run this proxy: its documentation has a section “Digests that do not match”."
#: What to do, by the code of the error.
_ADVICE: Mapping[str, str] = {
    "not-found": (
        "Check the spelling of the URL. The start page has the URL of each index, and a link to the projects that are cached."
    ),
    "not-here": (
        "Check the spelling. If it is right, ask those who run this proxy to bring it here with the command pypiproxy import."
    ),
    "method-not-allowed": _ONLY_READ,
    "content-too-large": _ONLY_READ,
    "bad-upload": _UPLOAD,
    "file-exists": "Give the file another version: the bytes of a file never change under its name.",
    "too-much": "Ask those who run this proxy for more room on the index.",
    "action-gone": "Upload the file with a tool such as twine.",
    "login-required": "Log in with your user name and password, or with any name and a token as the password.",
    "not-acceptable": "Omit format= from the URL, or use one of the types in the message.",
    "digest-changed": _DIGESTS,
    "digest-mismatch": _DIGESTS,
    "upstream-failed": f"{_RELOAD} {_UPSTREAMS} What is cached is served all the same.",
    "upstream-slow": f"{_RELOAD} The proxy continues to fetch what you requested. {_UPSTREAMS}",
    "upstream-denied": "Reloading does not help: the index behind this proxy refuses this. Ask those who run that index.",
    "storage-failed": f"{_RELOAD} If the error remains, the start page reports what is wrong with the disk of the proxy.",
    "loop-detected": "Correct the setting that the message names, and restart the proxy.",
    "internal-error": "Ask those who run this proxy to look at its log, and to report the fault to its developers.",
}


def error_page(error: ProxyError, plain: Answer, ask: Ask) -> Answer:
    """*plain*, the answer to *ask* for *error*, as a page."""
    title = f"{error.status} {error.title}"
    up = "../" * (ask.path.count("/") - 1) or "./"
    advice = _ADVICE.get(error.code, _RELOAD if error.passing else _ADVICE["not-found"])
    return instead_of(
        plain,
        title,
        tags.header(
            tags.h1(title),
            tags.p(
                f"pypiproxy answered this request with status {error.status} ({HTTPStatus(error.status).phrase}).", class_="bad"
            ),
        ),
        main_element(tags.h2("What happened"), *_happened(error), tags.h2("What to do"), tags.p(advice)),
        tags.footer(
            f"pypiproxy {__version__} · ",
            hyperlink(up, "start page"),
            " · ",
            hyperlink(f"{up}-/", "health and metrics"),
            f" · request {ask.request_id}",
        ),
    )


def _happened(error: ProxyError) -> list[Tag]:
    if isinstance(error, UpstreamFailed) and error.attempts:
        tried = [tags.li(_visible(f"{each}, after {duration(each.elapsed)}")) for each in error.attempts]
        return [tags.p(_visible(f"The proxy cannot fetch {error.what}. It asked:")), tags.ul(tried)]
    return [tags.p(_visible(str(error) or error.title))]


def _visible(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)
