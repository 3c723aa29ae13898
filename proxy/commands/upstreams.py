"""``pypiproxy upstreams``: how the upstreams of a running proxy stand."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.tables import show
from proxy.core.amounts import duration, moment

_COLUMNS = (
    ("index", False),
    ("upstream", False),
    ("state", False),
    ("down until", False),
    ("latency", True),
    ("in flight", True),
    ("waiting", True),
    ("failures", True),
    ("lag", True),
    ("last failure", False),
)


@click.command()
@click.option("--index", help="Only the upstreams of this index.")
@options
def upstreams(place: ProxyPlace, index: str | None) -> None:
    """Show how the upstreams of the running proxy stand, in order of preference."""
    states = place.ask("upstreams", running=True, index=index)
    if place.as_json:
        say(states)
    else:
        show(_COLUMNS, [_row(state) for state in states])


def _row(state: dict[str, Any]) -> list[str]:
    return [
        state["index"],
        state["name"],
        f"{state['state']}, distrusted" if state["marked"] else state["state"],
        moment(state["paused_until"]),
        "-" if state["latency"] is None else duration(state["latency"]),
        str(state["in_flight"]),
        str(state["waiting"]),
        str(state["failures"]),
        "-" if state["lag"] is None else duration(state["lag"]),
        _why(state),
    ]


def _why(state: dict[str, Any]) -> str:
    """The last failure; while its files are distrusted, the reason of that; and the addresses that failed lately.

    Before all that, that its configured URL is not that of the index.
    """
    why = "-"
    if state["better_url"]:
        why = f"no pages at its url, but at {state['better_url']}: set it to that"
    elif state["marked"]:
        why = str(state["marked"])
    elif state["last_failure"] is not None:
        why = f"{moment(state['last_failure_at'])} {state['last_failure']}"
    resting = ", ".join(state["resting"])
    return f"{why}; resting: {resting}" if resting else why
