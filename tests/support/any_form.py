"""What the reading of a form comes to, however it is cut up; and what has to hold of that, whatever the form is."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.core.upload_forms import CONTENT, KEPT, upload_form
from proxy.core.uploads import UploadForm
from proxy.errors import BadRequest, ContentTooLarge
from proxy.names import is_plain, normalize
from proxy.web.multipart_form import MultipartForm
from tests.support.forms import BOUNDARY

CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
#: The bytes of each digest.
SIZES = {"sha256": 32, "md5": 16, "blake2b_256": 32}


def pieces(body: bytes, step: int) -> Iterable[bytes]:
    return (body[start : start + step] for start in range(0, len(body), step))


def read(parts: Iterable[bytes], content_type: str = CONTENT_TYPE) -> tuple[MultipartForm, bytes]:
    """The form in *parts*, and its file.  Raises BadRequest, ContentTooLarge."""
    form = MultipartForm(content_type, KEPT, CONTENT)
    content = b"".join(map(form.take, parts))
    form.end()
    return form, content


def outcome(parts: Iterable[bytes]) -> tuple[UploadForm, bytes] | None:
    """What the form in *parts* states, and its file; ``None`` when it is refused."""
    try:
        form, content = read(parts)
        return upload_form(form.fields, form.filename), content
    except (BadRequest, ContentTooLarge):  # anything else would be a 500
        return None


def check(data: bytes) -> None:
    """Read *data*, whose first byte says how it is cut up, and check that all that comes of it is in order."""
    step, body = 1 + data[0] if data else 1, data[1:]
    found = outcome(pieces(body, step))
    assert found == outcome([body] if body else [])
    if found is None:
        return
    form, _ = found
    assert is_plain(form.filename)
    assert form.project == normalize(form.project) == normalize(form.name)
    assert normalize(form.filename).startswith(f"{form.project}-")
    assert all(bytes.fromhex(value) and len(value) == 2 * SIZES[algorithm] for algorithm, value in form.digests.items())
