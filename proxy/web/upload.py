"""Uploads: a form that is posted to a hosted index becomes a file of it, or an error that says what is wrong.

Theory of operation.  Who may upload is decided before a byte of the body is read, so a client that waits for ``100 Continue``
keeps its file.  Then the body is read by :mod:`proxy.web.upload_form`.

An upload is one piece of work that no client interrupts.  A client that leaves ends its body, and the work ends by that and
leaves nothing; once the body is whole, the file is added whether the client still waits or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, succeed

from proxy.access.principals import Principal
from proxy.access.roles import Permission
from proxy.errors import BadUpload, MethodNotAllowed
from proxy.interfaces import IReceiving, IRepository
from proxy.mechanism.flight import uninterrupted
from proxy.mechanism.waiters import Waiters
from proxy.web.answers import Answer, Ask
from proxy.web.changing import refuse_foreign
from proxy.web.door import Door, Question
from proxy.web.origin import origin
from proxy.web.routes import SHOWN

if TYPE_CHECKING:
    from proxy.web.upload_form import FormUpload

#: Indexes that one line names.
_NAMED = 3


class Uploads:
    """Takes uploads for the indexes *receiving* from whom *door* admits; the index *default* is also at the root."""

    def __init__(self, receiving: Mapping[str, IReceiving], default: str | None, door: Door) -> None:
        self._receiving = receiving
        self._default = default
        self._door = door
        self._in_progress = 0
        self._quiet: Waiters[None] = Waiters()

    def taken_by(self, index: str) -> bool:
        """Whether *index* takes uploads."""
        receiving = self._receiving.get(index)
        return receiving is not None and receiving.takes_uploads

    async def answer(self, repository: IRepository, ask: Ask) -> Answer:
        """The answer to the upload *ask* to the index *repository*, which takes uploads.  Raises ProxyError."""
        refuse_foreign(ask)

        async def permitted(project: str | None) -> Principal:
            return (await self._door.admit(ask, Question(Permission.UPLOAD, repository, project))).principal

        await permitted(None)
        body = ask.body
        if body is None:
            raise BadUpload("the request has no body: an upload is a form with a file")
        from proxy.web.upload_form import FormUpload  # loaded by the first one: few services take any

        form = FormUpload(self._receiving[repository.name], permitted, self._door, ask, body)
        work = uninterrupted(self._counted(form))
        try:
            return await work
        except CancelledError:
            body.lost()
            raise

    def settled(self) -> Deferred[None]:
        """Fires when no upload is in progress.  Told when all connections are closed."""
        return self._quiet.wait() if self._in_progress else succeed(None)

    def refusal(self, ask: Ask, index: str | None, leaves: Collection[str], allow: str) -> MethodNotAllowed:
        """The error for an upload to a path that takes none: it is of *index*, which has its projects from *leaves*.

        *index* is ``None`` for a path that is of no index; *allow* are the methods of the path.
        """
        if index is None or self.taken_by(index):
            why = f"{ask.path[:SHOWN]} takes no uploads"
        else:
            why = f"the index {index} takes no uploads"
        return MethodNotAllowed(f"{why}: {self.whereabouts(ask, leaves if index is None else (index, *leaves))}", allow=allow)

    def whereabouts(self, ask: Ask, near: Collection[str] = ()) -> str:
        """A sentence that says where uploads go: to those of the indexes *near* that take some, or else to any."""
        taking = sorted(filter(self.taken_by, self._receiving))
        named = [each for each in taking if each in near] or taking
        if not named:
            return "no index of this proxy takes any (one of the kind hosted does)"
        here = origin(ask)
        urls = [f"{here}{'/' if each == self._default else f'/index/{quote(each)}/'}legacy/" for each in named[:_NAMED]]
        return f"they go to {' or '.join(urls)}{' or others' if len(named) > _NAMED else ''}"

    async def _counted(self, form: FormUpload) -> Answer:
        self._in_progress += 1
        try:
            return await form.received()
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self._quiet.wake(None)
