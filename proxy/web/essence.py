"""What of a request's head an answer may depend on: its bytes without whole lines that are of no matter.

If what is left of a head is what is left of one that :mod:`proxy.web.heads` has taken, that module would take it too: only
whole lines have been left out, each of them a field without control characters.  So a request can be recognised by its essence
without being parsed.  That takes no expression, which would look at each byte ten times as long.
"""

from __future__ import annotations

import re

from proxy.core.warming import marks
from proxy.web.heads import END, MOST_FIELDS
from proxy.web.user_agents import NO_USER_AGENT, UserAgent, user_agent

#: Fields that no answer to a GET depends on.
OF_NO_MATTER = frozenset(
    {
        b"accept-language",
        b"dnt",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"user-agent",
    }
)
#: Heads longer than this have no essence (bytes).
LONGEST = 4096

#: All that is in lines.
_IN_LINES = bytes({0x09, *range(0x20, 0x7F), *range(0x80, 0x100)})
_AGENT = re.compile(rb"\r\n[Uu][Ss][Ee][Rr]-[Aa][Gg][Ee][Nn][Tt]:[\t ]*+([^\r\n]*+)")
_LEFT_OUT, _SAYS_WHO, _CREDENTIAL, _KEPT = range(4)


def _spellings(name: bytes) -> tuple[bytes, ...]:
    """The field *name* as clients write it, with the colon."""
    before, _, last = name.title().rpartition(b"-")
    acronym = b"-".join((before, last.upper())) if before else name.upper()
    return name + b":", name.title() + b":", acronym + b":"


_KINDS = {
    **{each: _LEFT_OUT for name in OF_NO_MATTER for each in _spellings(name)},
    **dict.fromkeys(_spellings(b"user-agent"), _SAYS_WHO),
    **dict.fromkeys(_spellings(b"authorization"), _CREDENTIAL),
}
#: Lines that stay may be as many; with one of each kind that is left out, there are still no more than are read.
_MOST_LINES = MOST_FIELDS - len(_KINDS)

#: What is left of a head, what it says first of its sender (``User-Agent``), and the credential in it.
Essence = tuple[bytes, bytes, bytes | None]


def essence(raw: bytes) -> Essence | None:
    """What is left of the head *raw*; ``None`` if that says nothing about the rest of it.

    A credential is left out if it is the only one, and not the mark of what the proxy asks itself (:mod:`proxy.core.warming`);
    with such a mark there is no essence.  A line whose name is spelled as no client does stays.
    """
    lines = raw.split(b"\r\n")
    if (
        len(raw) > LONGEST
        or raw.find(END) != len(raw) - len(END)
        or len(lines) > _MOST_LINES
        or len(raw.translate(None, _IN_LINES)) != 2 * len(lines) - 2
    ):
        return None
    said = credential = None
    left = [lines[0]]
    for line in lines[1:]:
        name = line[: line.find(b":") + 1]
        kind = _KINDS.get(name, _KEPT)
        if kind == _KEPT:
            left.append(line)
        elif kind == _SAYS_WHO:
            if said is None:
                said = line[len(name) :].strip(b" \t")
        elif kind == _CREDENTIAL:
            if credential is not None:
                return None
            credential = line[len(name) :].strip(b" \t")
            if marks(credential):
                return None
    return b"\r\n".join(left), _said(raw) if said is None else said, credential


class _Line:
    """A line of no matter that a client sends: its *name*, with the end of the line before, and what was in it."""

    __slots__ = ("kind", "name", "program", "stem", "stem_program", "value", "whole")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.kind = _KINDS[name]
        self.name = b"\r\n" + name
        self.value = value.strip(b" \t")
        #: All of it, with both ends; ``None`` where the client says something else each time.
        self.whole: bytes | None = b"%b%b\r\n" % (self.name, value)
        #: Of a ``User-Agent``: who says that, and how it begins if only its last word changes, with who says that.
        self.program = user_agent(self.value) if self.kind == _SAYS_WHO else NO_USER_AGENT
        self.stem = b""
        self.stem_program = NO_USER_AGENT

    def changed(self, value: bytes) -> bool:
        """Take note of another *value*, with the blanks around it; false if it is none."""
        if value.translate(None, _IN_LINES):
            return False
        self.whole, self.value = None, value.strip(b" \t")
        if self.kind == _SAYS_WHO:
            self.program = user_agent(self.value)
            before, blank, _ = value.rpartition(b" ")
            if before:
                self.stem = self.name + before + blank
                self.stem_program = user_agent(before.lstrip(b" \t"))
        return True


class Habit:
    """Which lines of no matter one client sends, on one connection: where to look for what is left of its next head.

    That is found in a third of the time of :func:`essence`, which takes a head apart without knowing what is in it.
    """

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[bytes, _Line] = {}

    def learn(self, raw: bytes) -> None:
        """The client has sent the head *raw*, which has an essence, and may send others in turn."""
        for line in raw.split(b"\r\n"):
            name = line[: line.find(b":") + 1]
            if name in _KINDS and name not in self._lines:
                self._lines[name] = _Line(name, line[len(name) :])

    def essence(self, raw: bytes) -> tuple[bytes, UserAgent, bytes | None] | None:
        """The :func:`essence` of the head *raw*, which has been taken, with who says what it says of its sender.

        That is if the client has sent what it usually does.  Otherwise anything that is the essence of no head that has been
        taken, or ``None``.
        """
        if raw[-4:] != END or len(raw) > LONGEST:
            return None
        program, credential = NO_USER_AGENT, None
        for line in self._lines.values():
            if line.whole is not None and len(shorter := raw.replace(line.whole, b"\r\n", 1)) != len(raw):
                raw = shorter
            elif line.stem and (start := raw.find(line.stem)) >= 0 and (word := _word(raw, start + len(line.stem))).isalnum():
                raw = raw[:start] + raw[start + len(line.stem) + len(word) :]
                if program is NO_USER_AGENT:
                    known = line.stem_program
                    program = UserAgent(f"{known.text} {word.decode('ascii')}", known.shown, known.agent)
                continue
            elif (start := raw.find(line.name)) >= 0:
                end = raw.find(b"\r\n", start + 2)
                if not line.changed(raw[start + len(line.name) : end]):
                    return None
                raw = raw[:start] + raw[end:]
            else:
                continue
            if line.kind == _SAYS_WHO:
                if program is NO_USER_AGENT:
                    program = line.program
            elif line.kind == _CREDENTIAL:
                credential = line.value
                if marks(credential):
                    return None
        return raw, program, credential


def _word(raw: bytes, start: int) -> bytes:
    """The rest of the line that is at *start*."""
    return raw[start : raw.find(b"\r\n", start)]


def _said(raw: bytes) -> bytes:
    found = _AGENT.search(raw)
    return b"" if found is None else found[1].rstrip(b" \t")
