"""One file to many clients that want all of it at the same moment, while it arrives: one loop per step, and next to no objects.

Theory of operation.  The body of an answer that many get is a :class:`~proxy.web.answers.SharedFile`.  A :class:`Receiver` is
one client of it that has taken all that it was given so far: no response, no coroutine, no timer.  What there is when it comes
is sent at once, head and body, as the hot lane sends; of a file that is stored, that is often all of it.  Those who wait for
more of a file that is still arriving are the receivers of one :class:`FanOut`, which is told when there is more, and hands it
to all of them in one loop.

A receiver whose socket does not take all goes the long way from there on, as do all of them when the disk is full: a response
goes on behind the bytes that were sent.  So who is slow holds up nobody, and what there is to say of slow clients (stalls,
back-pressure) is said in one place, :mod:`proxy.web.responding`.  Each receiver holds a source of its own from the beginning,
so a full disk keeps what it has not been sent yet.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.ranges import Span
from proxy.errors import ProxyError
from proxy.interfaces import IBytesSource
from proxy.mechanism.request_ids import RequestIds
from proxy.mechanism.transports import is_plain_socket, send_file_now
from proxy.web.answers import Answer, FileBody, SharedFile
from proxy.web.encoding import Encoded, with_request_id
from proxy.web.patience import Patience
from proxy.web.read_ahead import is_cached
from proxy.web.requested import Requested
from proxy.web.responses import Responses, logged
from proxy.web.sender import shorter
from proxy.web.sending import TURN
from proxy.web.silence import Silence

_errors = Logger(namespace="proxy.web")


class Receiver(Struct, eq=False):
    """One client, which *asked*, and has taken the head of *answer* and its bytes up to *position* of *source*."""

    fan_outs: FanOuts
    asked: Requested
    answer: Answer
    source: IBytesSource
    request_id: str
    first_byte: float
    position: int = 0
    fan_out: FanOut | None = None

    def cancel(self) -> None:
        """Its client has left."""
        self.fan_outs.left(self)


class GoesOn(Protocol):
    """What sends the rest to those who do not take all at once (:class:`proxy.web.serving.Front`)."""

    patience: Patience

    def answer_with(self, asked: Requested, answer: Answer, encoded: bytes) -> None:
        """Answer *asked* with *answer*, whose head on a connection that goes on is *encoded*."""

    def send_rest(self, receiver: Receiver, rest: FileBody) -> None:
        """Send *receiver* the *rest*, which is what it has not got yet."""


class FanOuts:
    """All files that go to several clients at once.  *responses* is told of each answer that has ended."""

    def __init__(self, reactor: IReactorTime, responses: Responses, ids: RequestIds, goes_on: GoesOn) -> None:
        self._reactor = reactor
        self._responses = responses
        self._ids = ids
        self._goes_on = goes_on
        self._under_way: dict[SharedFile, FanOut] = {}

    def send(self, asked: Requested, shared: SharedFile, encoded: Encoded) -> bool:
        """Answer *asked*, which is counted already, with *encoded*, whose body is *shared*.

        False: there is no more of it for anybody, and another way has to be found.
        """
        source = shared.another()
        if source is None:
            return False
        answer, outlet = encoded.answer, asked.outlet
        if outlet.must_end() or not is_plain_socket(outlet.transport):
            own = Answer(answer.status, answer.headers, FileBody(source, None), answer.reason, answer.word)
            self._goes_on.answer_with(asked, own, encoded.head)
            return True
        request_id = self._ids.of(asked.head.raw, trusted=asked.caller.vouched_for)
        receiver = Receiver(self, asked, answer, source, request_id, self._reactor.seconds() - asked.began)
        outlet.write(with_request_id(encoded.head, request_id))
        try:
            self._start(receiver, shared)
        except Exception as error:  # noqa: BLE001  # logged, and the client must see a cut-off body
            self.cut_off(receiver, error)
        return True

    def _start(self, receiver: Receiver, shared: SharedFile) -> None:
        """Send what there is, and see what becomes of the rest."""
        source = receiver.source
        there = source.extent()
        goal = min(there, TURN)
        # The disk is waited for elsewhere.
        took = goal > 0 and is_cached(source.fileno(), 0, goal) and self.carry(receiver, goal)
        if receiver.position == shared.size:
            self.finished(receiver)
        elif not took or goal < there or source.ended():
            self.go_on(receiver)
        else:
            self._wait(receiver, shared)

    def _wait(self, receiver: Receiver, shared: SharedFile) -> None:
        """*receiver* has all that there is: more will come."""
        fan_out = self._under_way.get(shared)
        if fan_out is None:
            own = shared.another()
            if own is None:
                self.go_on(receiver)
                return
            fan_out = self._under_way[shared] = FanOut(self, shared, own, self._reactor, self._goes_on.patience)
            fan_out.listen()
        receiver.fan_out = fan_out
        fan_out.receivers[receiver] = None
        receiver.asked.outlet.wait(receiver)

    def carry(self, receiver: Receiver, goal: int) -> bool:
        """Send the bytes up to *goal*; whether the client took them.  Raises StorageFailed when they are not right."""
        source, transport = receiver.source, receiver.asked.outlet.transport
        assert is_plain_socket(transport)
        if goal == source.size:
            source.confirm()
        while receiver.position < goal:
            wanted = goal - receiver.position
            sent = send_file_now(transport, source.fileno(), receiver.position, wanted)
            if sent is None:
                return False
            if not sent:
                raise shorter()
            receiver.position += sent
            source.advanced(receiver.position)
            if sent < wanted:
                return False
        return True

    def go_on(self, receiver: Receiver) -> None:
        """Send the rest the long way."""
        size = receiver.source.size
        assert size is not None
        self._goes_on.send_rest(receiver, FileBody(receiver.source, Span(receiver.position, size)))

    def finished(self, receiver: Receiver) -> None:
        """All of it has been sent."""
        receiver.source.close()
        receiver.asked.outlet.completed(last=False)
        self._ended(receiver)

    def cut_off(self, receiver: Receiver, error: Exception) -> None:
        """The rest cannot be sent: make sure that what was sent does not look complete."""
        path = logged(receiver.asked.head)[1]
        if isinstance(error, ProxyError):
            _errors.error("{path} was cut off: {error}", path=path, error=error, request_id=receiver.request_id)
        else:
            _errors.failure("bug: {path} was cut off", Failure(error), path=path, request_id=receiver.request_id)
        receiver.source.close()
        receiver.asked.outlet.abort()
        self._ended(receiver, cut_off=True)

    def left(self, receiver: Receiver) -> None:
        """The client of *receiver* has left."""
        fan_out = receiver.fan_out
        if fan_out is not None and receiver in fan_out.receivers:
            del fan_out.receivers[receiver]
            receiver.source.close()
            self._ended(receiver, cut_off=True)
            fan_out.end_if_empty()

    def over(self, fan_out: FanOut) -> None:
        """Nobody waits for *fan_out* any more."""
        if self._under_way.get(fan_out.shared) is fan_out:
            del self._under_way[fan_out.shared]

    def _ended(self, receiver: Receiver, *, cut_off: bool = False) -> None:
        answer = receiver.answer
        self._responses.ended(
            receiver.asked,
            receiver.request_id,
            answer.status,
            receiver.position,
            answer.word,
            receiver.first_byte,
            cut_off=cut_off,
        )


class FanOut:
    """Those who wait for more of *shared*, which *source* sees arrive.

    It ends all of them when nothing has come for as long as *patience* lasts.
    """

    def __init__(
        self, fan_outs: FanOuts, shared: SharedFile, source: IBytesSource, reactor: IReactorTime, patience: Patience
    ) -> None:
        self._fan_outs = fan_outs
        self.shared = shared
        self._source = source
        self.receivers: dict[Receiver, None] = {}
        #: Up to where all have it.
        self._position = source.extent()
        self._over = False
        self._silence = Silence(reactor, patience.silence_within)
        self._silence.watch(self)

    def listen(self) -> None:
        """Be told when there is more."""
        self._source.on_change(self._more)

    @property
    def hungry(self) -> bool:
        """Whether it waits for bytes to arrive, as it does all the time."""
        return not self._over

    def give_up(self, why: Exception) -> None:
        """End all with an error."""
        receivers = self._taken()
        self._end()
        for each in receivers:
            self._fan_outs.cut_off(each, why)

    def end_if_empty(self) -> None:
        """End when nobody waits."""
        if not self.receivers:
            self._end()

    def _more(self) -> None:
        if self._over:
            return
        try:
            self._step()
        except Exception as error:  # noqa: BLE001  # each of them sees a cut-off body
            self.give_up(error)
            return
        self.end_if_empty()
        if not self._over:
            self.listen()

    def _step(self) -> None:
        """Hand on what there is.  Raises what made the download fail, and StorageFailed."""
        source = self._source
        goal = source.extent()
        in_memory = bool(source.from_memory(goal, 1))
        if goal > self._position and not in_memory:
            self._position = goal
            self._silence.moved()
            for each in list(self.receivers):
                if each in self.receivers:  # nobody has left meanwhile
                    self._hand_on(each, goal)
            source.advanced(goal)
        # There may be more to see and the end of it at once: nobody is told again.
        if self.receivers and (in_memory or source.ended()):
            # The disk is full: that is a matter of each reader's pace.
            for each in self._taken():
                self._fan_outs.go_on(each)

    def _hand_on(self, receiver: Receiver, goal: int) -> None:
        try:
            took = self._fan_outs.carry(receiver, goal)
            if receiver.position == self.shared.size:
                del self.receivers[receiver]
                self._fan_outs.finished(receiver)
            elif not took:
                del self.receivers[receiver]
                self._fan_outs.go_on(receiver)
        except Exception as error:  # noqa: BLE001  # logged, and this client must see a cut-off body
            # Its next request may be taken in here: whatever comes of that concerns no other receiver.
            self.receivers.pop(receiver, None)
            self._fan_outs.cut_off(receiver, error)

    def _taken(self) -> list[Receiver]:
        receivers = list(self.receivers)
        self.receivers.clear()
        return receivers

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._silence.end()
            self._fan_outs.over(self)
            self._source.close()
