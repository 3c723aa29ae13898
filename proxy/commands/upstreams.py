"""``pypiproxy upstreams``: the state of the upstreams of a running proxy."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note
from proxy.commands.tables import show
from proxy.core.amounts import NONE, clock_time, duration, moment

_COLUMNS = (
    ("index", False),
    ("upstream", False),
    ("state", False),
    ("since", False),
    ("latency", True),
    ("in flight", True),
    ("waiting", True),
    ("failures", True),
    ("lag", True),
    ("url", False),
    ("addresses", False),
    ("last failure", False),
)


@click.command()
@click.option("--index", help="Only the upstreams of this index.")
@options
def upstreams(place: ProxyPlace, index: str | None) -> None:
    """Show the state of each upstream of the running proxy.

    The preferred upstream of each index is listed first.  An upstream that is "down" gets no request but one probe after the
    time that is shown.  Addresses that are "resting" failed lately and are tried after the others.
    """
    states = place.ask("upstreams", running=", and only a running one can say: start it with pypiproxy serve", index=index)
    if place.as_json:
        say(states)
    elif states:
        show(_COLUMNS, [_row(state) for state in states])
    else:
        note(f"{f'The index {index} is' if index else 'All indexes are'} offline: no upstream is asked.")


def _row(state: dict[str, Any]) -> list[str]:
    return [
        state["index"],
        state["name"],
        _state(state),
        moment(state.get("since")),
        NONE if state["latency"] is None else duration(state["latency"]),
        str(state["in_flight"]),
        str(state["waiting"]),
        str(state["failures"]),
        NONE if state["lag"] is None else duration(state["lag"]),
        state["url"],
        _addresses(state),
        _why(state),
    ]


def _state(state: dict[str, Any]) -> str:
    """``up``, ``down until 15:53:33`` or ``probing``."""
    word = state["state"]
    if word == "down" and state["paused_until"] is not None:
        word = f"down until {clock_time(state['paused_until'])}"
    return f"{word}, distrusted" if state["marked"] else word


def _addresses(state: dict[str, Any]) -> str:
    resting = set(state["resting"])
    known = dict.fromkeys([*state.get("addresses", ()), *state["resting"]])
    return ", ".join(f"{each} (resting)" if each in resting else each for each in known) or NONE


def _why(state: dict[str, Any]) -> str:
    """What is wrong with its URL or its files, else its last failure."""
    if state["better_url"]:
        return f"no pages at its url, but at {state['better_url']}: set it to that"
    if state["marked"]:
        return f"distrusted: it {state['marked']}"
    if state["last_failure"] is None:
        return NONE
    return f"{moment(state['last_failure_at'])} {state['last_failure']}"
