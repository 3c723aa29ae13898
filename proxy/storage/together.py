"""Questions to a store that works in one thread: those that wait at the same time are answered together.

Theory of operation.  Each question is noted, and its turn is asked for in the thread.  Whoever's turn comes first has all that
wait by then answered, in their order; the others find their answer there.  So what is the same for all of them (a transaction,
a look at whether the file is the one that was opened) is paid for once, and the more wait, the less each of them costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from msgspec import Struct
from twisted.internet.defer import CancelledError

from proxy.interfaces import IOffload

Q = TypeVar("Q")


class Posed(Struct, Generic[Q], eq=False):
    """A question that somebody waits for, and its answer or what it fails with once it is *settled*."""

    question: Q
    settled: bool = False
    answer: Any = None
    failure: BaseException | None = None

    def have(self, answer: Any) -> None:
        """It is answered."""
        self.settled, self.answer, self.failure = True, answer, None

    def fail(self, failure: BaseException) -> None:
        """It cannot be answered, which whoever waits for it is told by *failure*."""
        self.settled, self.failure = True, failure


class Together(Generic[Q]):
    """Has *answer* called with all questions that wait, in the one thread of *offload*; it settles each of them."""

    def __init__(self, offload: IOffload, answer: Callable[[Sequence[Posed[Q]]], None]) -> None:
        self._offload = offload
        self._answer_all = answer
        #: What is waited for, and not begun.  A deque's ends may be used from any thread.
        self._waiting: deque[Posed[Q]] = deque()

    async def ask(self, question: Q) -> Any:
        """The answer to *question*.  Raises what it fails with."""
        posed = Posed(question)
        self._waiting.append(posed)
        try:
            return await self._offload.run(self._answer, posed)
        except CancelledError:
            with suppress(ValueError, IndexError):  # it is being answered, or was
                self._waiting.remove(posed)
            raise

    def _answer(self, posed: Posed[Q]) -> Any:
        """In the thread: the answer to *posed*, with all that wait if it has none yet."""
        if not posed.settled:
            batch: list[Posed[Q]] = []
            while self._waiting:
                batch.append(self._waiting.popleft())
            try:
                self._answer_all(batch)
            except BaseException as error:  # noqa: BLE001  # whatever it is, nobody waits for ever
                for each in batch:
                    if not each.settled:
                        each.fail(error)
        if posed.failure is not None:
            raise posed.failure
        return posed.answer


def settle_each(batch: Iterable[Posed[Q]], answer: Callable[[Q], Any]) -> None:
    """Settle each of *batch* with what *answer* returns or raises for its question."""
    for each in batch:
        try:
            each.have(answer(each.question))
        except Exception as error:  # noqa: BLE001  # told to whoever asked
            each.fail(error)
