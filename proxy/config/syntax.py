"""What is wrong with a file that is not TOML, as messages about values say it: the line, the key, and what was expected."""

from __future__ import annotations

import re
import tomllib

_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
#: The key that a line sets.  Its value is not shown: it may be a secret.
_KEY = re.compile(r"\s*([\w.\"'-]{1,100}?)\s*=")
#: One of several tables of a name.
_ARRAY = re.compile(r"\s*\[\[\s*([\w.\"'-]{1,100}?)\s*\]\]")
#: What messages of the parser begin with, and what to say instead.
_EXPECTED = {
    "Invalid value": 'a value: text, durations and sizes in quotes ("10m"), a number, true, false, or a list in brackets',
    "Expected newline or end of document": 'nothing after the value; durations and sizes are in quotes ("10m", "20GB")',
    "Expected '='": 'a line such as key = "value", a table such as [server], or a comment that begins with #',
    "Invalid statement": 'a line such as key = "value", a table such as [server], or a comment that begins with #',
    "Cannot overwrite": "each key once per table; it is set twice",
    "Cannot declare": "each table once; several tables of one name are written with two brackets, such as [[index]]",
    "Cannot mutate": "each table once, and its keys below it",
    "Illegal character": "a closing quote on the same line, and no control characters",
    "Unterminated": "a closing quote",
    "Unescaped '\\'": "backslashes to be doubled, or the text in single quotes",
    "Unclosed array": "a ] at the end of the list, and commas between its values",
    "Expected ']'": "a ] at the end of the table's name",
    "Expected ']]'": "]] at the end of the table's name",
    "Unclosed inline table": "a } at the end of the table in braces",
}


def syntax_mistake(text: str, error: tomllib.TOMLDecodeError) -> str:
    """Line, key and what was expected, for the *error* that parsing *text* raised."""
    said = str(error)
    at = _AT.search(said)
    number = int(at[1]) if at is not None and at[1] else len(text.splitlines())
    lines = text.splitlines()
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    key = _KEY.match(line)
    where = f"line {number}: {key[1]}" if key is not None else f"line {number}"
    if said.startswith("Cannot overwrite") and (table := _ARRAY.match(line)) is not None:
        name = table[1]
        return f"{where}: [{name}] is above, with one bracket: expected [[{name}]], with two brackets on each side, there too"
    expected = next((words for begin, words in _EXPECTED.items() if said.startswith(begin)), None)
    if expected is None:
        return f"{where}: is not valid TOML: {_AT.sub('', said)}"
    return f"{where}: expected {expected}"
