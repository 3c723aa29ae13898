"""Forms that change something: their fields, and that no page of another site has sent them.

Three things have to be right: the cookie of a session is sent to nobody else's pages (``SameSite=Strict``), the browser names
this host as the origin of the form, and the form has a token in it that only pages for this very viewer have.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from proxy.errors import BadRequest
from proxy.web.answers import Ask
from proxy.web.changing import refuse_foreign
from proxy.web.origin import origin
from proxy.web.routes import SHOWN

#: The longest form (bytes), and its fields.
_LONGEST, _MOST = 8192, 20
_TYPE = "application/x-www-form-urlencoded"


async def fields_of(ask: Ask) -> Mapping[str, str]:
    """The fields of the form that *ask* sends, the last of each name.  Raises BadRequest, ContentTooLarge."""
    refuse_foreign(ask)
    _refuse_other_origin(ask)
    sent = (ask.header("content-type") or "").partition(";")[0].strip().lower()
    if sent != _TYPE:
        raise BadRequest(f"expected a form with Content-Type: {_TYPE}, not {sent[:SHOWN] or 'a request without one'}")
    received = b"" if ask.body is None else await ask.body.whole(_LONGEST, ask.deadline)
    try:
        pairs = parse_qsl(received.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError as error:
        raise BadRequest("the form cannot be read: its fields are not percent-encoded UTF-8") from error
    return dict(pairs)


def _refuse_other_origin(ask: Ask) -> None:
    """Raise BadRequest unless the browser says that a page of this host has sent *ask*."""
    stated = ask.header("origin")
    if stated is None:
        if ask.header("sec-fetch-site") == "same-origin":
            return
    elif _host(stated) == _host(origin(ask)):
        return  # behind a proxy that is not trusted to say so, the scheme may be another
    raise BadRequest(f"{ask.path[:SHOWN]}: this was not sent by a page of this host, and nothing was changed")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower() or None
    except ValueError:
        return None
