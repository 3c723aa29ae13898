"""An upload as its form states it, and what becomes of it: values that cross the port of a hosted index."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec import Struct

from proxy.model import EMPTY

#: The name of BLAKE2b with 32 bytes, which uploads and the JSON API of the public index call ``blake2_256``.
BLAKE2B_256 = "blake2b_256"


class UploadForm(Struct, frozen=True):
    """The fields of one upload (the upload API of Warehouse), each checked for its form, not yet against the file.

    ``project`` is normalised; ``name`` and ``version`` are as sent.  ``digests`` are those that were sent
    (``sha256``, ``md5``, `BLAKE2B_256` -> hex).  ``attestations`` is the JSON text of PEP 740, ``None`` when none came.
    """

    filename: str
    project: str
    name: str
    version: str
    digests: Mapping[str, str] = EMPTY
    requires_python: str | None = None
    attestations: str | None = None


class Uploaded(enum.Enum):
    """What became of an upload."""

    #: It is there now, and seen by the next request.
    NEW = "new"
    #: The same bytes were there.
    SAME = "same"
