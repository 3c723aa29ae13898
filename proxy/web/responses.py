"""The responses of one site: how many are under way, and what is told of each that has ended: metrics, statistics, the log."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from proxy.core.events import Answered
from proxy.core.visits import Subject
from proxy.core.warming import AGENT, WORD, is_warming
from proxy.interfaces import IRecorder, IVisits
from proxy.mechanism.request_ids import RequestIds
from proxy.mechanism.waiters import Waiters
from proxy.web.access_log import log_request
from proxy.web.answers import printable
from proxy.web.callers import Caller, is_from_here
from proxy.web.heads import RequestHead
from proxy.web.hot import Hit
from proxy.web.requested import Requested
from proxy.web.user_agents import UserAgent, user_agent_of


class Responses:
    """What *recorder* and *visits* are told, and the access log, if there is *access_log*; *ids* are those of the requests."""

    def __init__(
        self, reactor: IReactorTime, recorder: IRecorder, visits: IVisits, ids: RequestIds, *, access_log: bool
    ) -> None:
        self._reactor = reactor
        self._recorder = recorder
        self._visits = visits
        self._ids = ids
        self._access_log = access_log
        self.in_progress = 0
        self._quiet: Waiters[None] = Waiters()

    def quiet(self) -> Deferred[None]:
        """Fires when no response is in progress."""
        return self._quiet.wait() if self.in_progress else succeed(None)

    def begin(self) -> None:
        """One more is in progress, until it has :meth:`ended`."""
        self.in_progress += 1

    def end(self) -> None:
        """One that has begun is in progress no more."""
        self.in_progress -= 1
        if not self.in_progress:
            self._quiet.wake(None)

    def ended(
        self,
        asked: Requested,
        request_id: str,
        status: int,
        sent: int,
        word: str,
        first_byte: float | None,
        *,
        cut_off: bool = False,
    ) -> None:
        """Account for the response to *asked*, which is over; *sent* bytes of its body were sent.

        *first_byte* is when its head was sent, in seconds after the request; ``None``: it never was.
        """
        head, caller, (place, subject) = asked.head, asked.caller, asked.about
        method, path, user_agent = logged(head)
        event = Answered(method, status, sent, self._reactor.seconds() - asked.began, word, place, first_byte)
        warm = is_warming(user_agent.text, head.fields) and is_from_here(caller, head.raw)
        self.account(event, subject, caller.address, path, user_agent, request_id, warm=warm, cut_off=cut_off)
        self.end()

    def account(
        self,
        event: Answered,
        subject: Subject | None,
        client: str,
        path: str,
        user_agent: UserAgent,
        request_id: str,
        *,
        warm: bool = False,
        cut_off: bool = False,
    ) -> None:
        """Account for the response *event* to *user_agent* at *client*, about *subject*.

        A request of *warm* is not one of a client: it is counted as such, whatever its cache status.
        """
        if warm and event.place is not None:
            counted = event._replace(word=WORD, place=event.place._replace(area=None))
        else:
            counted = event
        self._recorder.record(counted)
        if subject is not None and not warm:
            self._visits.note(event, subject, client, user_agent.agent)
        if self._access_log:
            log_request(event, client, path, user_agent, request_id, " cut off" if cut_off else "")

    def at_once(self, hit: Hit, user_agent: UserAgent, caller: Caller, raw: bytes) -> None:
        """Account for the answer *hit* to the request of *user_agent* with the head *raw*, which took no time."""
        event, subject, address = hit.event, hit.subject, caller.address
        request_id = self._ids.of(raw, trusted=True) if caller.vouched_for else self._ids.new()
        if user_agent.text == AGENT and is_from_here(caller, raw):
            self.account(event, subject, address, hit.path, user_agent, request_id, warm=True)
            return
        # What `account` does, without the call.
        self._recorder.record(event)
        if subject is not None:
            self._visits.note(event, subject, address, user_agent.agent)
        if self._access_log:
            log_request(event, address, hit.path, user_agent, request_id, "")


def logged(head: RequestHead) -> tuple[str, str, UserAgent]:
    """Method and target of *head*, fit for a log, and who sends it."""
    return printable(head.method), printable(head.target), user_agent_of(head)
