"""How long an answer may take, from its request to its last byte."""

from __future__ import annotations

from msgspec import Struct


class Patience(Struct, frozen=True, kw_only=True):
    """The time limits of an answer (seconds)."""

    #: A client that takes no byte for this long is dropped: ``server.stall_timeout``.
    stall_timeout: float
    #: An answer that has not begun after this long becomes a 503: pip gives up after 15 s without a byte, and what is under way
    #: goes on and is there when it asks again.
    answer_within: float = 12.0
    #: The same for a request whose body has come: what was uploaded is checked and stored, and nobody is to send it again.
    work_within: float = 600.0
    #: A body of which upstream has sent nothing for this long is cut off, for the same reason: clients that resume will.
    silence_within: float = 14.0
