"""One upload: a form with a file, read a block at a time into the port of the index that takes it.

What the disk does not take is not read from the client.  The fields are in any order, so the form is complete when its last
byte has come; what is known to be wrong when the file begins ends it there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from proxy.access.principals import Principal
from proxy.core.audited import AuditOutcome
from proxy.core.upload_forms import CONTENT, KEPT, check_action, check_filename, project_named, upload_form
from proxy.errors import ProxyError
from proxy.interfaces import IIncoming, IReceiving
from proxy.settings import KIB
from proxy.web.answers import Answer, Ask
from proxy.web.bodies import RequestBody
from proxy.web.door import Door
from proxy.web.multipart_form import MultipartForm
from proxy.web.problems import reason_phrase

#: Bytes that are written at once, unless fewer have come.
_BLOCK = 64 * KIB


class FormUpload:
    """The upload *ask* to *receiving*, with its *body*; *permitted* asks who may upload to a project, and *door* notes it.

    Raises BadUpload when the request has no such form.
    """

    def __init__(
        self,
        receiving: IReceiving,
        permitted: Callable[[str | None], Awaitable[Principal]],
        door: Door,
        ask: Ask,
        body: RequestBody,
    ) -> None:
        self._receiving = receiving
        self._permitted = permitted
        self._door = door
        self._ask = ask
        self._body = body
        self._form = MultipartForm(ask.header("content-type") or "", KEPT, CONTENT)

    async def received(self) -> Answer:
        """Read it all, and add the file.  Raises ProxyError."""
        receiving = self._receiving
        incoming = await receiving.begin(None, self._body.length)
        try:
            await self._read(incoming)
            self._form.end()
            upload = upload_form(self._form.fields, self._form.filename)
            principal = await self._permitted(upload.project)
            told = partial(
                self._door.note,
                self._ask.by(principal),
                "upload",
                index=receiving.name,
                project=upload.project,
                what=upload.filename,
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

    async def _read(self, incoming: IIncoming) -> None:
        """Read the body to its end, and write the file in it."""
        block: list[bytes] = []
        size, begun = 0, False
        while piece := await self._body.read():
            content = self._form.take(piece)
            if self._form.filename is not None and not begun:
                begun = True
                await self._check_early()
            if content:
                block.append(content)
                size += len(content)
            if size >= _BLOCK:
                await incoming.write(b"".join(block))
                block, size = [], 0
        if size:
            await incoming.write(b"".join(block))

    async def _check_early(self) -> None:
        """Refuse what is known to be wrong now that the file begins: it may be large, and the fields are checked after it."""
        form = self._form
        check_filename(form.filename or "")
        if ":action" in form.fields:
            check_action(form.fields)
        if "name" in form.fields:
            await self._permitted(project_named(form.fields))
