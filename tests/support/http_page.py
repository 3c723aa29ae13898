"""``docs/reference/http.md``, made from the routes: ``python -m tests.support.http_page`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.access.roles import Permission
from proxy.errors import BadBundle, ExchangeRefused, ProxyError
from proxy.web.changing import CHANGES
from proxy.web.exchanging import EXCHANGES
from proxy.web.operations import ANSWERED
from proxy.web.routes import CLAIMS
from proxy.web.site import CHANGING, ROUTES
from tests.support.process import ROOT

PAGE = ROOT / "docs" / "reference" / "http.md"

_HEAD = """\
# HTTP

What the proxy answers, at which path, to which method, and who may have it. Clients need the
[URL of an index](../clients.md#the-index-url) only; this page is for those who write programs or rules of a firewall.

## Below an index

Each index has these paths below `/index/NAME/`; the default index has them at `/` as well. The first row that fits counts.
*Right* is the [permission](../rights.md#roles) that a request needs; `-`: none. Until rights are configured, everybody may
read, and nobody may upload or maintain.

| path | methods | right | answer |
|---|---|---|---|
"""
_SEGMENTS = """
A segment in braces has to be what its name says; otherwise the answer is `404`:

| segment | what it is |
|---|---|
"""
_BESIDE = """
## Beside the indexes

| path | methods | right | answer |
|---|---|---|---|
"""
_PROBES = """
The addresses in [`probe_listen`](../configuration.md#server) answer `GET` and `HEAD` at `/-/live` and `/-/ready` only, and
those in [`metrics_listen`](../configuration.md#server) at `/-/metrics` only, which the other addresses do not serve then. With
[`metrics_for`](../operations.md#metrics), `/-/metrics` needs a login. Those in [`dashboard_listen`](../configuration.md#server)
answer at the paths of the [dashboard](../dashboard.md#at-an-address-of-its-own) only, and the other addresses no longer do.

## Success

| status | meaning |
|---|---|
| `200` | The answer. An upload and a change of a project are answered with `200`, too, when they are stored durably. |
| `204` | There is no icon (`/favicon.ico`). |
| `206` | The part of a file that `Range` asks for. |
| `304` | The client has this version of the page or file already (`If-None-Match`, `If-Modified-Since`). |
| `307` | Another path is meant: with a slash at its end, or with the normalized name of the project. |
| `416` | The file has no such part; `Content-Range` has its size. |

`Cache-Status` states [where an answer comes from](../operations.md#access-log).

## Errors

The reason phrase states what happened, since pip prints it. The body is problem JSON (RFC 9457) with `title`, `status`,
`detail` and `code`, and for a failure of upstream `attempts`; browsers receive a page. The access log has the code, too.
*Again*: the same request may succeed soon, and the answer has a `Retry-After`. The endpoints below `/_/oidc/` send errors in
the form that their clients know instead.

| status | code | again | meaning |
|---|---|---|---|
"""
_FOOT = """
This page is generated from the definitions in the code (`python -m tests.support.http_page`).
"""

#: What is at each path below an index.
_MEANINGS: Mapping[str, str] = {
    "": "A page for people about the index. What is posted is an upload, as at `legacy/`.",
    "simple": "The same as `simple/`.",
    "simple/": "The list of projects (PEP 503, PEP 691). A browser is shown a page.",
    "simple/{project}/": "The page of a project: its files (PEP 503, PEP 691). Another spelling of its name is redirected.",
    "simple/{project}": "A redirect to `simple/{project}/`.",
    "simple//{project}/": "A redirect to `simple/{project}/`: pipenv asks so.",
    "simple//{project}": "A redirect to `simple/{project}/`.",
    "files/{project}/{digest}/{file}": "A file; with `.metadata` at its end its metadata (PEP 658), with `.provenance` its"
    " attestations (PEP 740).",
    "packages/{project}/{digest}/{file}": "The same, for bandersnatch.",
    "links/": "One page with all files of a hosted index, for `--find-links`.",
    "links": "A redirect to `links/`.",
    "last-modified": "When the index was last in step with its upstreams (PEP 381).",
    "local-stats/days/{day}": "The [downloads of a day](../statistics.md#downloads-per-day) (PEP 381).",
    "simple/pypi/{project}/json": "The legacy JSON document, as pip-tools asks for it.",
    "{project}/json": "The legacy JSON document, as pip-tools asks for it.",
    "pypi/{project}/json": "The legacy JSON document of a project.",
    "pypi/{project}/{version}/json": "The legacy JSON document of a release.",
    "legacy": "Takes uploads, as `legacy/` does.",
    "legacy/": "Takes [uploads](../hosted-indexes.md#upload-a-file) to a hosted index.",
    "{project}/": "The page of the project for installers, whose index URL lacks `simple/`; they are told so.",
    **{
        f"projects/{{project}}/{operation}": f"Performs [`{operation}`](../moving-in.md#without-a-shell-on-the-host) with a"
        " JSON object on a project of a hosted index."
        for operation in CHANGES
    },
}
#: What the segments in braces are.
_WHAT: Mapping[str, str] = {
    "{project}": "a name of a project, in any spelling",
    "{version}": "a version",
    "{digest}": "the SHA-256 of the file, in hexadecimal",
    "{file}": "a name of a wheel, a source archive, or a file beside one",
    "{day}": "a date and `.bz2`, such as `2026-11-26.bz2`",
}
_EXCHANGED: Mapping[str, str] = {
    "audience": "the audience that an ID token must have",
    "mint-token": "a token for an ID token of a CI job",
    "burn-token": "ends such a token",
}


def page() -> str:
    """The text of the page."""
    return "".join(
        (
            _HEAD,
            *map(_below, ROUTES),
            _SEGMENTS,
            *(f"| `{each}` | {_WHAT[each]} |\n" for each in CLAIMS),
            _BESIDE,
            *(f"| `/-/{name}` | GET, HEAD | - | {what} |\n" for name, what in ANSWERED.items()),
            "| `/-/` | GET, HEAD | - | a list of these |\n",
            "| `/-/search`, `/-/setup`, `/-/project/INDEX/PROJECT`, `/-/events` | GET, HEAD | read | the dashboard |\n",
            "| `/-/login`, `/-/logout`, `/-/act` | POST | that of the button | its forms |\n",
            "| `/index/` | GET, HEAD | - | the indexes |\n",
            "| `/` | GET, HEAD | - | what this is and how clients use it, if no index is the default one |\n",
            "| `/favicon.ico` | GET, HEAD | - | nothing |\n",
            *(_exchange(verb, method) for verb, method in EXCHANGES.items()),
            "| `/.well-known/pytp/KEY` | GET, HEAD | - | where the endpoints for an upload URL are (PEP 807) |\n",
            _PROBES,
            *(_error(each) for each in sorted(set(_errors(ProxyError)), key=lambda each: (each.status, each.__name__))),
            _FOOT,
        )
    )


def _below(pattern: str) -> str:
    """The row of a path below an index: the methods by the right that they need."""
    rights: dict[Permission | None, list[str]] = {}
    for method, handling in ROUTES[pattern].items():
        if method == "POST" or pattern not in CHANGING:  # else the answer is 405
            rights.setdefault(handling.permission, []).append(method)
    methods = "; ".join(", ".join(each) for each in rights.values())
    needed = "; ".join("-" if each is None else each.value for each in rights)
    return f"| `{pattern or '/'}` | {methods} | {needed} | {_MEANINGS[pattern]} |\n"


def _exchange(verb: str, method: str) -> str:
    methods = "GET, HEAD" if method == "GET" else method
    paths = f"`/_/oidc/{verb}`, `/index/NAME/_/oidc/{verb}`"
    return f"| {paths} | {methods} | - | [CI jobs](../ci-identity.md): {_EXCHANGED[verb]} |\n"


def _errors(base: type[ProxyError]) -> Iterator[type[ProxyError]]:
    """What requests are answered with: the tree below *base*.  Others are for commands, or finer kinds of one of these."""
    if base.__module__ == ProxyError.__module__ and base is not BadBundle:
        yield base
        for each in base.__subclasses__():
            yield from _errors(each)


def _error(error: type[ProxyError]) -> str:
    status, code = f"`{error.status}`", f"`{error.code}`"
    if error is ExchangeRefused:
        status, code = "`422`, `429`, `503`", "as the public index has it"
    meaning = " ".join((error.__doc__ or error.title).split("\n\n")[0].split()).replace("``", "`")
    if error is ProxyError:
        meaning = "A fault of the proxy; its log has the traceback. Please report it."
    return f"| {status} | {code} | {'yes' if error.passing else 'no'} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
