"""Uploads: a form that is posted to a hosted index becomes a file of it, or an error that says what is wrong.

Theory of operation.  Who may upload is decided before a byte of the body is read, so a client that waits for ``100 Continue``
keeps its file.  Then the body goes through `MultipartForm` into the port of the index, a block at a time: what the disk does
not take is not read from the client.  The fields are in any order, so the form is complete when its last byte has come; what is
known to be wrong when the file begins ends it there.

An upload is one piece of work that no client interrupts.  A client that leaves ends its body, and the work ends by that and
leaves nothing; once the body is whole, the file is added whether the client still waits or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from urllib.parse import quote

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed

from proxy.access.principals import Principal
from proxy.access.roles import Permission
from proxy.core.audited import AuditOutcome
from proxy.core.upload_forms import CONTENT, KEPT, check_action, check_filename, project_named, upload_form
from proxy.errors import BadUpload, MethodNotAllowed, ProxyError
from proxy.interfaces import IIncoming, IReceiving, IRepository
from proxy.mechanism.flight import uninterrupted
from proxy.mechanism.waiters import Waiters
from proxy.settings import KIB
from proxy.web.answers import Answer, Ask
from proxy.web.bodies import RequestBody
from proxy.web.changing import refuse_foreign
from proxy.web.door import Door, Question
from proxy.web.multipart_form import MultipartForm
from proxy.web.origin import origin
from proxy.web.problems import reason_phrase
from proxy.web.routes import SHOWN

#: Bytes that are written at once, unless fewer have come.
_BLOCK = 64 * KIB
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
        await self._permit(ask, repository, None)
        body = ask.body
        if body is None:
            raise BadUpload("the request has no body: an upload is a form with a file")
        form = MultipartForm(ask.header("content-type") or "", KEPT, CONTENT)
        work = uninterrupted(self._counted(repository, form, body, ask))
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

    # -- one upload

    async def _counted(self, repository: IRepository, form: MultipartForm, body: RequestBody, ask: Ask) -> Answer:
        self._in_progress += 1
        try:
            return await self._received(repository, form, body, ask)
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self._quiet.wake(None)

    async def _received(self, repository: IRepository, form: MultipartForm, body: RequestBody, ask: Ask) -> Answer:
        receiving = self._receiving[repository.name]
        incoming = await receiving.begin(None, body.length)
        try:
            await self._read(repository, form, body, incoming, ask)
            form.end()
            upload = upload_form(form.fields, form.filename)
            principal = await self._permit(ask, repository, upload.project)
            told = partial(
                self._door.note, ask.by(principal), "upload", index=receiving.name, project=upload.project, what=upload.filename
            )
            try:
                outcome = await incoming.accept(upload, principal.uploads_as)
            except ProxyError:
                told(AuditOutcome.FAILED)
                raise
            told(AuditOutcome.DONE)
            remark = receiving.remark(upload.project)
        finally:
            await incoming.discard()
        members = {
            "index": receiving.name,
            "project": upload.project,
            "filename": upload.filename,
            "outcome": outcome.value,
            "remark": remark,
        }
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        # Tools that print anything of a success print the reason phrase.
        reason = None if remark is None else reason_phrase(f"OK, but {remark}")
        return Answer(200, headers, msgspec.json.encode(members) + b"\n", reason)

    async def _read(
        self, repository: IRepository, form: MultipartForm, body: RequestBody, incoming: IIncoming, ask: Ask
    ) -> None:
        """Read *body* to its end, and write the file in it."""
        block: list[bytes] = []
        size, begun = 0, False
        while piece := await body.read():
            content = form.take(piece)
            if form.filename is not None and not begun:
                begun = True
                await self._check_early(repository, form, ask)
            if content:
                block.append(content)
                size += len(content)
            if size >= _BLOCK:
                await incoming.write(b"".join(block))
                block, size = [], 0
        if size:
            await incoming.write(b"".join(block))

    async def _check_early(self, repository: IRepository, form: MultipartForm, ask: Ask) -> None:
        """Refuse what is known to be wrong now that the file begins: it may be large, and the fields are checked after it."""
        check_filename(form.filename or "")
        if ":action" in form.fields:
            check_action(form.fields)
        if "name" in form.fields:
            await self._permit(ask, repository, project_named(form.fields))

    async def _permit(self, ask: Ask, repository: IRepository, project: str | None) -> Principal:
        """Who sends *ask*, and may upload to *project* of the index; raises as `Door.admit`."""
        return (await self._door.admit(ask, Question(Permission.UPLOAD, repository, project))).principal
