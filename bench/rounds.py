"""A scenario's repetitions, the servers taking turns, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence

from bench.scenarios import Scenario, Settings
from bench.servers import Server
from bench.table import Row

#: What a server that cannot do what a scenario asks makes it raise (JSON that is none is a ValueError).
_CANNOT = (RuntimeError, OSError, http.client.HTTPException, ValueError, LookupError)


def measure(scenario: Scenario, settings: Settings, servers: Sequence[Server], repetitions: int) -> list[Row]:
    """A row for each metric.  A server that fails once is left out of all of them, with the reason on stderr."""
    values: dict[str, list[Sequence[float]]] = {server.name: [] for server in servers}
    for _ in range(repetitions):
        for server in servers:
            if server.name not in values:
                continue
            print(f"{scenario.name}: {server.name}", file=sys.stderr)
            try:
                if scenario.cold or not server.runs:
                    server.stop()
                    server.start()
                values[server.name].append(scenario.measure(settings, server))
            except _CANNOT as error:
                print(f"{scenario.name}: {server.name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
                print(server.last_words(), file=sys.stderr)
                del values[server.name]
                # It may be in any state; the next scenario gets a new one.
                server.stop()
    return [
        Row(
            scenario.name,
            metric,
            servers[0].name,
            {name: [each[column] for each in measured] for name, measured in values.items()},
        )
        for column, metric in enumerate(scenario.metrics)
    ]
