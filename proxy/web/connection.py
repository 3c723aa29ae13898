"""The states of a client connection, what may happen in each, and what follows: a table, without a socket in sight.

Theory of operation.  A connection is in one :class:`ConnectionState`.  Whatever happens to it is a :class:`ConnectionEvent`,
and :data:`TRANSITIONS` has the next state and what is to be done on the way there.  A state determines the rest: how long it
may last (:data:`LIMITS`), what it counts as where connections are counted (:data:`STANDINGS`), and whether bytes are read
(:data:`READING`).  What is not in the table cannot happen, and a KeyError says so.

One request is answered at a time.  ``ANSWERING`` begins with the head of a request that a route answers, and ends when the last
byte of the answer has been handed to the transport; ``SENDING`` follows if the transport has more of it than it wants to have.
What comes meanwhile is held, and belongs to the next request.

Whatever is written may be the byte that fills the transport, which says so before the write returns.  So an answer that is
written in one state may be complete in the one that ``FULL`` leads to, and the table has its end there, too.

A connection ends in one of three ways.  It is *closed* when all that the client sent has been read: the transport sends what it
has and closes.  It *lingers* when there may be more to read (a refused request may have a body): a socket that is closed with
unread bytes sends a reset, which destroys what the client has not read yet, so the answer is followed by the end of the
stream, and what comes is discarded until the client closes (RFC 9112 section 9.6).  It is *aborted* when the client takes
nothing: a reset destroys what the system has not sent yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class _Name(Enum):
    """Names that are looked up for each request: by identity, which is what they are compared by."""

    __hash__ = object.__hash__


class ConnectionState(_Name):
    """What a connection is doing."""

    #: It waits for a request.
    IDLE = auto()
    #: A part of a head has come.
    HEAD_BEGUN = auto()
    #: A route answers.
    ANSWERING = auto()
    #: The same, and the transport wants no more bytes at present.
    BLOCKED = auto()
    #: The answer is complete; the transport wants no more bytes, and so the next request waits.
    SENDING = auto()
    #: The last answer is complete: what the transport has is sent, and what comes is discarded.
    CLOSING = auto()
    #: The same, and the client is waited for.
    LINGERING = auto()
    CLOSED = auto()


class ConnectionEvent(_Name):
    """What happens to a connection."""

    #: Bytes have come that are not a whole head.
    BEGUN = auto()
    #: A request has come that takes more than one write to answer.
    ASKED = auto()
    #: An answer has been handed to the transport, and the connection goes on.
    ANSWERED = auto()
    #: The last answer has been handed to the transport, and all that the client sent has been read.
    FINISHED = auto()
    #: The last answer has been handed to the transport, and the client may be sending more.
    CUT_SHORT = auto()
    #: The transport wants no more bytes; it wants bytes again.
    FULL = auto()
    DRAINED = auto()
    #: The state has lasted for its limit; one of :data:`EMPTYING`: and what is to be sent has moved no further.
    OVERDUE = auto()
    #: The connection is needed for others, or the service stops.
    DISMISSED = auto()
    #: The transport has lost it.
    LOST = auto()


class ConnectionAction(_Name):
    """What a transition asks of the channel."""

    NOTHING = auto()
    #: Look whether the next request is held.
    TAKE_NEXT = auto()
    #: Answer 408: what has come of a head is all that will.
    REFUSE = auto()
    #: Close when all is sent.
    CLOSE = auto()
    #: End the stream when all is sent, and close when the client does.
    LINGER = auto()
    #: Close now, without sending what is left.
    ABORT = auto()


class Limit(_Name):
    """How long a state may last."""

    #: As long as it takes: answers have limits of their own.
    NONE = auto()
    #: The setting ``server.idle_timeout``.
    IDLE = auto()
    #: :data:`HEAD_WITHIN`, or the idle timeout if that is shorter.
    HEAD = auto()
    #: The setting ``server.stall_timeout``.
    STALL = auto()
    #: :data:`LINGERS_WITHIN`.
    LINGER = auto()


class ConnectionStanding(_Name):
    """What a connection counts as."""

    #: It may be closed when there are too many.
    WAITING = auto()
    #: It counts against ``server.max_connections``.
    BUSY = auto()
    LEAVING = auto()
    GONE = auto()


#: How long the head of a request may take from its first byte to its last (seconds).
HEAD_WITHIN = 10.0
#: How long a client that has got its last answer may send nothing before its connection is closed, and go on sending (seconds).
LINGERS_WITHIN, LINGERS_AT_MOST = 5.0, 30.0


def _rows() -> Mapping[tuple[ConnectionState, ConnectionEvent], tuple[ConnectionState, ConnectionAction]]:
    """The table, by state; each row is an event, the next state, and what is to be done."""
    s, e, a = ConnectionState, ConnectionEvent, ConnectionAction
    by_state: dict[ConnectionState, list[tuple[ConnectionEvent, ConnectionState, ConnectionAction]]] = {
        s.IDLE: [
            (e.BEGUN, s.HEAD_BEGUN, a.NOTHING),
            (e.ASKED, s.ANSWERING, a.NOTHING),
            (e.ANSWERED, s.IDLE, a.NOTHING),
            (e.CUT_SHORT, s.LINGERING, a.LINGER),
            (e.FULL, s.SENDING, a.NOTHING),
            (e.DRAINED, s.IDLE, a.NOTHING),
            (e.OVERDUE, s.CLOSING, a.CLOSE),
            (e.DISMISSED, s.CLOSING, a.CLOSE),
        ],
        s.HEAD_BEGUN: [
            (e.BEGUN, s.HEAD_BEGUN, a.NOTHING),
            (e.ASKED, s.ANSWERING, a.NOTHING),
            (e.ANSWERED, s.IDLE, a.NOTHING),
            (e.CUT_SHORT, s.LINGERING, a.LINGER),
            (e.FULL, s.SENDING, a.NOTHING),
            (e.DRAINED, s.HEAD_BEGUN, a.NOTHING),
            (e.OVERDUE, s.HEAD_BEGUN, a.REFUSE),
            (e.DISMISSED, s.CLOSING, a.CLOSE),
        ],
        s.ANSWERING: [
            (e.ANSWERED, s.IDLE, a.TAKE_NEXT),
            (e.FINISHED, s.CLOSING, a.CLOSE),
            (e.CUT_SHORT, s.LINGERING, a.LINGER),
            (e.FULL, s.BLOCKED, a.NOTHING),
            (e.DRAINED, s.ANSWERING, a.NOTHING),
        ],
        s.BLOCKED: [
            (e.ANSWERED, s.SENDING, a.NOTHING),
            (e.FINISHED, s.CLOSING, a.CLOSE),
            (e.CUT_SHORT, s.LINGERING, a.LINGER),
            (e.FULL, s.BLOCKED, a.NOTHING),
            (e.DRAINED, s.ANSWERING, a.NOTHING),
        ],
        s.SENDING: [
            (e.ANSWERED, s.SENDING, a.NOTHING),
            (e.CUT_SHORT, s.LINGERING, a.LINGER),
            (e.FULL, s.SENDING, a.NOTHING),
            (e.DRAINED, s.IDLE, a.TAKE_NEXT),
            (e.OVERDUE, s.CLOSING, a.ABORT),
        ],
        s.CLOSING: [
            (e.FULL, s.CLOSING, a.NOTHING),
            (e.DRAINED, s.CLOSING, a.NOTHING),
            (e.OVERDUE, s.CLOSING, a.ABORT),
        ],
        s.LINGERING: [
            (e.FULL, s.LINGERING, a.NOTHING),
            (e.DRAINED, s.LINGERING, a.NOTHING),
            (e.OVERDUE, s.CLOSING, a.ABORT),
        ],
        s.CLOSED: [
            (e.FULL, s.CLOSED, a.NOTHING),
            (e.DRAINED, s.CLOSED, a.NOTHING),
        ],
    }
    ended = {(state, e.LOST): (s.CLOSED, a.NOTHING) for state in s}
    return {(state, event): (then, do) for state, rows in by_state.items() for event, then, do in rows} | ended


#: (state, event) -> (next state, what is to be done).
TRANSITIONS = _rows()

#: state -> how long it may last.
LIMITS: Mapping[ConnectionState, Limit] = {
    ConnectionState.IDLE: Limit.IDLE,
    ConnectionState.HEAD_BEGUN: Limit.HEAD,
    ConnectionState.ANSWERING: Limit.NONE,
    ConnectionState.BLOCKED: Limit.NONE,
    ConnectionState.SENDING: Limit.STALL,
    ConnectionState.CLOSING: Limit.STALL,
    ConnectionState.LINGERING: Limit.LINGER,
    ConnectionState.CLOSED: Limit.NONE,
}

#: state -> what the connection counts as.
STANDINGS: Mapping[ConnectionState, ConnectionStanding] = {
    ConnectionState.IDLE: ConnectionStanding.WAITING,
    ConnectionState.HEAD_BEGUN: ConnectionStanding.WAITING,
    ConnectionState.ANSWERING: ConnectionStanding.BUSY,
    ConnectionState.BLOCKED: ConnectionStanding.BUSY,
    ConnectionState.SENDING: ConnectionStanding.BUSY,
    ConnectionState.CLOSING: ConnectionStanding.LEAVING,
    ConnectionState.LINGERING: ConnectionStanding.LEAVING,
    ConnectionState.CLOSED: ConnectionStanding.GONE,
}

#: The states in which the next request can be taken.
READY = frozenset({ConnectionState.IDLE, ConnectionState.HEAD_BEGUN})
#: The states in which bytes are read; in ``ANSWERING`` as long as little is held.
READING = frozenset(
    {
        ConnectionState.IDLE,
        ConnectionState.HEAD_BEGUN,
        ConnectionState.ANSWERING,
        ConnectionState.CLOSING,
        ConnectionState.LINGERING,
    }
)
#: The states in which bytes go out that nobody adds to.
EMPTYING = frozenset({ConnectionState.SENDING, ConnectionState.CLOSING, ConnectionState.LINGERING})
#: The states in which what is read is discarded.
DISCARDING = frozenset({ConnectionState.CLOSING, ConnectionState.LINGERING, ConnectionState.CLOSED})
