"""The fail-open switch of a farm (docs/fail-open.md), as a machine with builds sees it.  Pure, apart from the file it reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from proxy.core.clients import Address
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.doctor.machine import Machine
from proxy.doctor.sources import is_below
from proxy.simple.links import shown

#: The variables that ``conf/fail-open/pypiproxy.sh`` reads, and where it looks for the switch.
DIRECT, FILE, PUBLIC, PROJECTS = "PYPIPROXY_DIRECT", "PYPIPROXY_SWITCH", "PYPIPROXY_PUBLIC_INDEX", "PYPIPROXY_PROJECTS"
PLACE = "etc/pypiproxy/direct"

_SUBJECT = "fail-open"


def switch_findings(machine: Machine, address: Address, public: Collection[str] | None) -> Iterator[Diagnosis]:
    """Whether the switch is on, and whether it can be used.

    *public* are the URLs of indexes of the proxy that hold nothing private, ``None`` if that is not known.
    """
    place = Path(machine.environ.get(FILE) or machine.root / PLACE)
    positions = {f"{DIRECT} in the environment": machine.environ.get(DIRECT)}
    try:
        positions[str(place)] = machine.text(place)
    except (OSError, ValueError) as error:
        yield warning(
            _SUBJECT, "switch", f"{place} cannot be read: {_words(error)}", "make it readable for the users of builds"
        )
    stated = {where: (text or "").strip() for where, text in positions.items() if text is not None}
    on = [where for where, text in stated.items() if text == "on"]
    odd = [where for where, text in stated.items() if text not in ("on", "off", "")]
    for where in odd:
        yield fault(_SUBJECT, "switch", f"{where} is neither on nor off: it counts as off", "write on or off")
    if on:
        seen = f"the switch is on ({', '.join(on)}): jobs with public projects alone ask the public index, past the proxy"
        yield warning(_SUBJECT, "switch", seen, "turn it off as soon as the proxy serves again (docs/fail-open.md)")
    index = machine.environ.get(PUBLIC)
    if not index:
        if on:
            seen = f"{PUBLIC} is not set: every job is refused the switch"
            yield fault(_SUBJECT, "index", seen, f"export {PUBLIC}= with the URL of the index that mirrors the public one")
        elif not odd:
            yield fine(_SUBJECT, "switch", f"is not set up here ({PUBLIC} is not set)")
        return
    yield from _index(index, address, public)
    if not on and not odd:
        declared = machine.environ.get(PROJECTS) or "nothing"
        yield fine(_SUBJECT, "switch", f"the switch is off; {PROJECTS} declares {declared} here")


def _index(index: str, address: Address, public: Collection[str] | None) -> Iterator[Diagnosis]:
    if not is_below(index, address.base):
        advice = f"set it to an index of {address.base}, or examine the proxy that it names"
        yield fault(_SUBJECT, "index", f"{PUBLIC} = {shown(index)} is no index of {address.base}", advice)
    elif public is not None and not any(is_below(index, each) for each in public):
        advice = (
            "name an index of the kind proxy whose upstreams are public: jobs that use a group or a hosted index must not be "
            "switched, or whoever publishes their private names on the public index is installed"
        )
        yield fault(_SUBJECT, "index", f"{PUBLIC} = {shown(index)} is an index that may hold private projects", advice)


def _words(error: OSError | ValueError) -> str:
    return (error.strerror or "unknown error") if isinstance(error, OSError) else str(error)
