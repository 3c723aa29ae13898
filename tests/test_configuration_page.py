"""docs/configuration.md lists the keys of conf/pypiproxy.toml with the same defaults, and its examples work."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.config import load

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")
FILE = (ROOT / "conf" / "pypiproxy.toml").read_text("utf-8")
#: Heading on the page, and the table of the file that it is about.
TABLES = {
    "## `[server]`": "server",
    "## `[upstream.NAME]`": "upstream",
    "## `[[index]]`": "index",
    "### Hosted indexes": "hosted",
    "### Group indexes": "group",
    "## `[warm]`": "warm",
    "## `[access]`": "access",
    "### `[access.ldap]`": "ldap",
    "### `[access.reverse_proxy]`": "reverse_proxy",
    "## `[[grant]]`": "grant",
    "## `[ci]`": "ci",
    "### `[ci.issuer.NAME]`": "issuer",
    "### `[[ci.rule]]`": "rule",
}


def rows(heading: str) -> dict[str, str]:
    """Key and default of each row below *heading*."""
    section = re.split(r"^##", PAGE.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE))


def tables(text: str) -> Mapping[str, Mapping[str, Any]]:
    """The keys of each table in *text*; those of all upstreams together."""
    values = tomllib.loads(text)
    return {
        "server": values["server"],
        "upstream": {key: value for upstream in values["upstream"].values() for key, value in upstream.items()},
        **{table: _own(values["index"], number) for number, table in enumerate(("index", "hosted", "group"))},
        "warm": values.get("warm", {}),
        # Names of groups are no keys.
        "access": {key: value for key, value in values["access"].items() if key not in ("groups", "ldap", "reverse_proxy")},
        **{table: values["access"].get(table, {}) for table in ("ldap", "reverse_proxy")},
        "grant": {key: value for each in values.get("grant", []) for key, value in each.items()},
        "ci": {key: value for key, value in values.get("ci", {}).items() if key not in ("issuer", "rule")},
        "issuer": {key: value for each in values.get("ci", {}).get("issuer", {}).values() for key, value in each.items()},
        "rule": {key: value for each in values.get("ci", {}).get("rule", []) for key, value in each.items()},
    }


def _own(indexes: list[dict[str, Any]], number: int) -> Mapping[str, Any]:
    """The keys of the index *number* that not every index has; of the first, all."""
    if number >= len(indexes):
        return {}
    return {key: value for key, value in indexes[number].items() if not number or key not in ("name", "kind")}


UNCOMMENTED = "\n".join(re.sub(r"^# (?=[a-z_]+ = |\[)", "", line) for line in FILE.splitlines())
#: The file sets these for its only index or upstream; on the page they are required, or depend on others.
WITHOUT_DEFAULT = {"name", "upstreams", "url", "default"}


@pytest.mark.parametrize(("heading", "table"), TABLES.items())
def test_the_page_lists_every_key_of_the_file(heading: str, table: str) -> None:
    assert sorted(rows(heading)) == sorted(tables(UNCOMMENTED)[table])


@pytest.mark.parametrize(("heading", "table"), TABLES.items())
def test_the_page_states_the_defaults_of_the_file(heading: str, table: str) -> None:
    for key, value in tables(FILE)[table].items():
        if key not in WITHOUT_DEFAULT:
            stated = re.fullmatch(r"`(.+)`", rows(heading)[key])
            assert stated is not None, key
            assert tomllib.loads(f"{key} = {stated[1]}") == {key: value}


@pytest.mark.parametrize("example", re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
def test_the_examples_are_accepted(example: str, tmp_path: Path) -> None:
    file = tmp_path / "pypiproxy.toml"
    file.write_text(example, "utf-8")
    assert len(load(file, environ={"CORP_PASSWORD": "secret"}).indexes) == len(tomllib.loads(example)["index"])


@pytest.mark.parametrize("endpoint", re.findall(r"^\| `((?:tcp|unix|ssl)[^`]+)` \|", PAGE, re.MULTILINE))
def test_the_endpoints_are_those_that_twisted_knows(endpoint: str, tmp_path: Path) -> None:
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    if not endpoint.startswith("ssl:"):  # that one needs its files
        assert serverFromString(reactor, endpoint) is not None
