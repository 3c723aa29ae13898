"""What it means for a client where it is told to look: whether it asks the proxy and nothing else.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.core.bypasses import OtherSources
from proxy.core.clients import ENVIRONMENT, Address, settings
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.doctor.machine import NotRead, Stated
from proxy.simple.links import shown

_PORTS = {"http": 80, "https": 443}


def is_below(url: str, base: str) -> bool:
    """Whether *url* leads to what is at *base* or below it; user information is of no account."""
    try:
        parts, root = urlsplit(url.strip()), urlsplit(base)
        same = [
            (each.scheme.lower(), (each.hostname or "").lower(), each.port or _PORTS.get(each.scheme.lower()))
            for each in (parts, root)
        ]
    except ValueError:
        return False
    return same[0] == same[1] and f"{parts.path.rstrip('/')}/".startswith(f"{root.path.rstrip('/')}/")


def is_remote(source: str) -> bool:
    """Whether *source* is on another machine, as far as its form says, and no folder of this one."""
    return "://" in source and not source.startswith("file:")


class Client(Struct, frozen=True):
    """A client and what it is told.  *present*: whether it is used here, so that it has to be told something."""

    name: str
    told: tuple[Stated, ...]
    present: bool


def client_findings(client: Client, address: Address) -> Iterator[Diagnosis]:
    """Whether *client* asks the proxy at *address* and nothing else."""
    yield from unreadable(client.name, client.told)
    sources = [each for each in client.told if isinstance(each, OtherSources)]
    replacing = [each for each in sources if each.instead]
    if replacing:
        yield from _index(client.name, replacing[-1], address)
    elif client.present:
        seen = "is told nothing: it asks its default index, past the proxy"
        yield fault(client.name, "index", seen, _setting(client.name, address))
    for each in sources:
        if not each.instead:
            yield from _beside(client.name, each, address)


def unreadable(subject: str, told: Iterable[Stated]) -> Iterator[Diagnosis]:
    """The files that could not be read."""
    for each in told:
        if isinstance(each, NotRead):
            yield warning(
                subject, "files", f"{each.file} {_clause(each.why)}", f"look at it: what it says to {subject} is not known"
            )


def _clause(why: str) -> str:
    return why if why.startswith(("is ", "cannot ")) else f"cannot be read: {why}"


def _index(client: str, found: OtherSources, address: Address) -> Iterator[Diagnosis]:
    where = f"({found.setting} in {found.where})"
    astray = [url for url in found.urls if not is_below(url, address.base)]
    if astray:
        yield fault(
            client, "index", f"asks {', '.join(map(shown, astray))} and not the proxy {where}", _setting(client, address)
        )
        return
    url = found.urls[-1]
    if "simple" not in urlsplit(url).path.split("/"):
        seen = f"asks {shown(url)}, which lacks simple/ at its end {where}"
        yield warning(client, "index", seen, f"write {address.index}: each page costs a redirect otherwise")
    else:
        yield fine(client, "index", f"asks {shown(url)} {where}")


def _beside(client: str, found: OtherSources, address: Address) -> Iterator[Diagnosis]:
    for url in found.urls:
        if is_below(url, address.base):
            continue
        words = f"also looks at {shown(url)} ({found.setting} in {found.where})"
        if is_remote(url):
            advice = (
                "remove it: what it has does not come through the proxy, and whoever may publish there can offer a project "
                "under the name of a private one; if it is needed, make it an upstream of an index of the proxy"
            )
            yield fault(client, "bypass", f"{words}, past the proxy", advice)
        else:
            advice = "remove it if the files there should come from the proxy; a hosted index serves them to all machines"
            yield warning(client, "bypass", f"{words}, which the proxy knows nothing of", advice)


def project_findings(told: Sequence[Stated], address: Address) -> Iterator[Diagnosis]:
    """What the project in the present directory names whatever its client is told."""
    yield from unreadable("project", told)
    for each in told:
        if isinstance(each, NotRead):
            continue
        for url in each.urls:
            if not is_remote(url) or is_below(url, address.base):
                continue
            if each.setting == "the lock file":
                seen = f"{each.where} was made with {shown(url)}: uv sync --frozen downloads past the proxy"
                yield warning("project", "lock", seen, "make the lock file with the proxy as index: uv lock")
            elif each.setting.startswith("--"):
                seen = f"{each.where} has {each.setting} {shown(url)}: pip asks that, past the proxy"
                yield fault("project", "bypass", seen, f"remove the option; the index is set where pip runs ({address.index})")
            else:
                seen = f"{each.where} names {shown(url)} ({each.setting}): that does not come through the proxy"
                advice = (
                    "require it by name and version, and publish it to an index of the proxy; or accept that it bypasses it"
                )
                yield warning("project", "bypass", seen, advice)


def _setting(client: str, address: Address) -> str:
    """What makes *client* ask the proxy."""
    try:
        found = settings(client, address)
    except (KeyError, ValueError):
        return f"set its index to {address.index}"
    chosen = next((each for each in found if each.where == ENVIRONMENT and address.index in each.text), found[0])
    lines = "; ".join(line for line in chosen.text.splitlines() if line)
    return f"{lines} (pypiproxy client-config {client} --url {address.base} has other ways)"
