"""Reading typed values out of a TOML table, so that every mistake is found in one go.

A `ConfigTable` hands out values by key through *readers*: functions from the raw TOML value to the wanted one, which raise
`Unacceptable` with what they expected.  Mistakes gather in a list of sentences; the caller gets the default and goes on, and
looks at the list in the end.  Keys that nobody asked for are mistakes too; their values are not shown: they may be secrets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from proxy.core.near import nearest

T = TypeVar("T")
Reader = Callable[[Any], T]

#: Where people put secrets in other programs' files, and where they go here.
_MISPLACED = {
    "password": "secrets are not kept in this file: name a file with password_file or a variable with password_env",
    "bind_password": (
        "secrets are not kept in this file: name a file with bind_password_file or a variable with bind_password_env"
    ),
    "token": "secrets are not kept in this file: name a file with token_file or a variable with token_env",
}

_SHOWN = 100


class Spelled(str):
    """A value that can only be text, as that of an environment variable: readers take ``4096`` in it for a number."""


class Unacceptable(ValueError):
    """A value is not what its key expects.  ``shown`` replaces the value in the message, where it may hold a secret."""

    def __init__(self, expected: str, shown: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.shown = shown


def shown_value(value: Any) -> str:
    """*value* much as it stands in the file, cut to a length that fits a message."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def mistake(key: str, value: Any, problem: Unacceptable) -> str:
    """The sentence for one unacceptable value."""
    expected = _unquoted(problem.expected) if isinstance(value, Spelled) else problem.expected
    return f"{key} = {problem.shown or shown_value(value)}: expected {expected}"


def _unquoted(expected: str) -> str:
    """*expected* without what it says of quotes, which TOML needs and a variable does not."""
    return expected.replace(", without quotes", "").replace(" in quotes", "")


class ConfigTable:
    """One table of the file: *values* at *path* (such as ``upstream.corp``), in the file called *source*."""

    def __init__(self, values: Mapping[str, Any], source: str, path: str, mistakes: list[str]) -> None:
        self._values = values
        self._source = source
        self._path = path
        self._mistakes = mistakes
        self._known: list[str] = []
        #: What messages call keys whose values are not from the file.
        self._variables: dict[str, str] = {}

    def overridden(
        self, values: Mapping[str, Spelled], variable: Callable[[str], str], without: Sequence[str] = ()
    ) -> ConfigTable:
        """This table with *values* instead of its own, and *without* some of its keys.

        Messages call a key that was set so by what *variable* makes of it.
        """
        own = {key: value for key, value in self._values.items() if key not in without}
        table = ConfigTable({**own, **values}, self._source, self._path, self._mistakes)
        table._variables = {key: variable(key) for key in values}
        return table

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        """The keys that there are."""
        return iter(self._values)

    def take(self, key: str, reader: Reader[T], default: T) -> T:
        """The value of *key* as *reader* understands it; *default* when it is absent or a mistake."""
        self._known.append(key)
        if key not in self._values:
            return default
        try:
            return reader(self._values[key])
        except Unacceptable as problem:
            self._mistakes.append(mistake(self.key(key), self._values[key], problem))
            return default

    def complain(self, key: str, what: str) -> None:
        """Note a mistake that is not about one value."""
        self._mistakes.append(f"{self.key(key)}: {what}")

    def require(self, key: str, expected: str) -> None:
        """Note a mistake if *key* is absent."""
        if key not in self._values:
            self.complain(key, f"missing; expected {expected}")

    def key(self, key: str) -> str:
        """*key* as messages name it: file, table and key, or the variable that it is set by."""
        if key in self._variables:
            return self._variables[key]
        return f"{self._source}: {self._path}.{key}" if self._path else f"{self._source}: {key}"

    def tables(self, key: str) -> Iterable[tuple[str, ConfigTable]]:
        """The named tables ``[key.NAME]``."""
        self._known.append(key)
        value, path = self._values.get(key, {}), self._below(key)
        if not isinstance(value, dict):
            self.complain(key, f"expected tables [{path}.NAME]")
            return
        for name, inner in value.items():
            if isinstance(inner, dict):
                yield name, ConfigTable(inner, self._source, f"{path}.{name}", self._mistakes)
            else:
                self.complain(f"{key}.{name}", f"expected a table [{path}.NAME]; is the name missing?")

    def array(self, key: str) -> Iterable[ConfigTable]:
        """The tables ``[[key]]``, counted from 0 in messages."""
        self._known.append(key)
        value, path = self._values.get(key, []), self._below(key)
        if not isinstance(value, list) or not all(isinstance(inner, dict) for inner in value):
            self.complain(key, f"expected tables [[{path}]], with two brackets on each side")
            return
        for number, inner in enumerate(value):
            yield ConfigTable(inner, self._source, f"{path}[{number}]", self._mistakes)

    def table(self, key: str) -> ConfigTable:
        """The table ``[key]``, empty when absent."""
        self._known.append(key)
        value, path = self._values.get(key, {}), self._below(key)
        if not isinstance(value, dict):
            self.complain(key, f"expected a table [{path}], with one bracket on each side")
            value = {}
        return ConfigTable(value, self._source, path, self._mistakes)

    def _below(self, key: str) -> str:
        """Where the tables at *key* are in the file."""
        return f"{self._path}.{key}" if self._path else key

    def done(self) -> None:
        """Note every key that nobody asked for, with the nearest one that exists."""
        for key in self._values:
            if key in self._known:
                continue
            prefix = self._variables[key][: -len(key)] if key in self._variables else None
            if key in _MISPLACED and f"{key}_file" in self._known:
                self.complain(key, _MISPLACED[key] if prefix is None else _misplaced(f"{prefix}{key.upper()}"))
                continue
            near = nearest(key, self._known)
            if prefix is not None:
                every = ", ".join(f"{prefix}{known.upper()}" for known in sorted(self._known))
                meant = f"; did you mean {prefix}{near.upper()}?" if near else f"; expected one of {every}"
                self.complain(key, f"there is no such variable{meant}")
                continue
            meant = f"; did you mean {near}?" if near else f"; expected one of {', '.join(sorted(self._known))}"
            self.complain(key, f"there is no such key{meant}")


def _misplaced(variable: str) -> str:
    """What to do instead of putting a secret into *variable*."""
    return (
        f"a secret is named, not stated: name a file with {variable}_FILE, "
        f"or with {variable}_ENV another variable whose value is the secret"
    )
