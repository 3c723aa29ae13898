"""The life of one download as a table: which state follows when something happens.  Pure: no I/O, no Twisted.

Theory of operation.  :data:`TABLE` is all there is to know: :func:`after` looks the next state up, and what is not in the table
cannot happen.  What a state means for those who write and read is said by the sets below it and nowhere else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class SpoolState(enum.Enum):
    """Where a download stands."""

    #: Bytes come in, go to the disk and are shown, all but the end.
    ARRIVING = "arriving"
    #: The disk takes no more: bytes pass through memory, and nothing is kept.
    PASSING = "passing"
    #: Writing has failed; what was written before is shown, and nothing more is taken.
    BROKEN = "broken"
    #: What has arrived is known to be wrong.
    WRONG = "wrong"
    #: All that has arrived is being forgotten, to begin again at byte 0.
    EMPTYING = "emptying"
    #: All of it is here and right.
    COMPLETE = "complete"
    #: Given up: what has arrived is being put away, for a later download where that can use it.
    STOPPING = "stopping"
    #: Given up, and what has arrived is wrong or half forgotten: it is being removed.
    DROPPING = "dropping"
    #: Given up, and put away.
    FAILED = "failed"
    #: Given up, and removed.
    DROPPED = "dropped"


class SpoolEvent(enum.Enum):
    """What may happen to a download."""

    #: The disk takes no more, and no room could be made.
    OVERFLOWED = "overflowed"
    #: A write failed for a reason that is no matter of the disk.
    BROKE = "broke"
    #: What has arrived turned out to be wrong.
    REFUTED = "refuted"
    #: It has to begin again at byte 0; and nothing is left of what had arrived.
    BEGAN_ANEW = "began anew"
    EMPTIED = "emptied"
    #: All of it is here and was found right.
    COMPLETED = "completed"
    #: No more of it will come; and what had arrived has been seen to.
    GAVE_UP = "gave up"
    SETTLED = "settled"


_S, _E = SpoolState, SpoolEvent

#: (state, event) -> state.  A write that was under way when a download was given up, refuted or begun anew may still end in any
#: way: that changes nothing any more.
TABLE: Mapping[tuple[SpoolState, SpoolEvent], SpoolState] = {
    (_S.ARRIVING, _E.OVERFLOWED): _S.PASSING,
    (_S.ARRIVING, _E.BROKE): _S.BROKEN,
    (_S.ARRIVING, _E.REFUTED): _S.WRONG,
    (_S.ARRIVING, _E.BEGAN_ANEW): _S.EMPTYING,
    (_S.ARRIVING, _E.COMPLETED): _S.COMPLETE,
    (_S.ARRIVING, _E.GAVE_UP): _S.STOPPING,
    (_S.PASSING, _E.BROKE): _S.BROKEN,
    (_S.PASSING, _E.REFUTED): _S.WRONG,
    (_S.PASSING, _E.BEGAN_ANEW): _S.EMPTYING,
    (_S.PASSING, _E.COMPLETED): _S.COMPLETE,
    (_S.PASSING, _E.GAVE_UP): _S.STOPPING,
    (_S.BROKEN, _E.REFUTED): _S.WRONG,
    (_S.BROKEN, _E.BEGAN_ANEW): _S.EMPTYING,
    (_S.BROKEN, _E.GAVE_UP): _S.STOPPING,
    (_S.WRONG, _E.REFUTED): _S.WRONG,
    (_S.WRONG, _E.BEGAN_ANEW): _S.EMPTYING,
    (_S.WRONG, _E.GAVE_UP): _S.DROPPING,
    (_S.EMPTYING, _E.OVERFLOWED): _S.EMPTYING,
    (_S.EMPTYING, _E.BROKE): _S.EMPTYING,
    (_S.EMPTYING, _E.REFUTED): _S.EMPTYING,
    (_S.EMPTYING, _E.BEGAN_ANEW): _S.EMPTYING,
    (_S.EMPTYING, _E.EMPTIED): _S.ARRIVING,
    (_S.EMPTYING, _E.GAVE_UP): _S.DROPPING,
    # What was verified stays, whatever is said of the download afterwards.
    (_S.COMPLETE, _E.REFUTED): _S.COMPLETE,
    (_S.COMPLETE, _E.GAVE_UP): _S.COMPLETE,
    (_S.STOPPING, _E.OVERFLOWED): _S.STOPPING,
    (_S.STOPPING, _E.BROKE): _S.STOPPING,
    (_S.STOPPING, _E.SETTLED): _S.FAILED,
    (_S.DROPPING, _E.OVERFLOWED): _S.DROPPING,
    (_S.DROPPING, _E.BROKE): _S.DROPPING,
    (_S.DROPPING, _E.EMPTIED): _S.DROPPING,
    (_S.DROPPING, _E.SETTLED): _S.DROPPED,
}

#: Bytes that come are taken.
TAKING = frozenset({SpoolState.ARRIVING, SpoolState.PASSING})
#: Nothing may be seen: what has arrived is not to be trusted.
HIDDEN = frozenset({SpoolState.WRONG, SpoolState.EMPTYING, SpoolState.DROPPING, SpoolState.DROPPED})
#: No more will come.
GIVEN_UP = frozenset({SpoolState.STOPPING, SpoolState.DROPPING, SpoolState.FAILED, SpoolState.DROPPED})


def after(state: SpoolState, event: SpoolEvent) -> SpoolState:
    """The state that follows when *event* happens in *state*.  Raises ValueError for what cannot happen."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ValueError(f"a download that is {state.value} cannot have {event.value}") from None
