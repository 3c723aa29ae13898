"""The form of an upload (RFC 7578), read as it comes in: few fields are kept, the file is passed on, the rest is read over.

The parser is the push parser of the package ``multipart``: it is given bytes and never waits.  What a form holds in memory is
bounded by what is kept of it, whatever its fields are, and in which order they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from proxy.errors import BadUpload, ContentTooLarge
from proxy.settings import KIB, MIB

#: The fields of one form, the longest header line of one, and the bytes of all that is not the file.
MOST_FIELDS, _LONGEST_HEADER, MOST_BESIDE = 5000, 2 * KIB, 16 * MIB
#: RFC 2046 section 5.1.1, and somewhat longer ones.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")
#: What is in no line of a header, and what the parser finds or overlooks depending on how a body is cut up.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class MultipartForm:
    """A form of the type *content_type* (a header's value), whose file is in the field *file*.

    *kept* are the names of the fields that count, and how long each may be (bytes).  Raises BadUpload.
    """

    def __init__(self, content_type: str, kept: Mapping[str, int], file: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get("boundary", "")
        if kind != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
            raise BadUpload("the request is no form of the type multipart/form-data, as uploads are")
        self._delimiter = f"--{boundary}".encode()
        #: The beginning of the body, until there is enough to tell whether it is that of a form.
        self._beginning: bytes | None = b""
        self._parser = PushMultipartParser(boundary, max_header_size=_LONGEST_HEADER, max_segment_count=MOST_FIELDS)
        self._kept = kept
        self._file = file
        #: What has come whole of the fields that count.
        self.fields: dict[str, str] = {}
        #: The name of the file, once its field has begun.
        self.filename: str | None = None
        #: The field that comes now, and what is kept of it; ``None``: nothing is.
        self._name = ""
        self._value: bytearray | None = None
        self._beside = 0

    def take(self, piece: bytes) -> bytes:
        """The bytes of the file in *piece*, the next part of the body.  Raises BadUpload, ContentTooLarge."""
        if self._beginning is not None:
            piece = self._beginning + piece
            if len(piece) < len(self._delimiter) + 2:
                self._beginning = piece
                return b""
            if not piece.startswith((self._delimiter, b"\r\n" + self._delimiter)):  # setuptools begins with an empty line
                raise BadUpload("the form of the upload does not begin with its boundary")
            self._beginning = None
        found = []
        try:
            for event in self._parser.parse(piece):
                if event is None:
                    self._ended()
                elif isinstance(event, MultipartSegment):
                    if any(_CONTROLS.search(value) for _, value in event.headerlist):
                        raise BadUpload("the form of the upload has control characters in the header of a field")
                    self._begun(event.name, event.filename)
                elif self._name == self._file:
                    found.append(bytes(event))
                else:
                    self._more(event)
        except ParserLimitReached as error:
            raise ContentTooLarge(f"the form of the upload is too large: {error}") from error
        except MultipartError as error:
            raise BadUpload(f"the form of the upload is malformed: {error}") from error
        content = b"".join(found)
        self._beside += len(piece) - len(content)
        if self._beside > MOST_BESIDE:
            raise ContentTooLarge(f"the form of the upload has more than {MOST_BESIDE:,} bytes beside the file")
        return content

    def end(self) -> None:
        """Told when the body has ended.  Raises BadUpload when a part of the form is missing."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise BadUpload("the form of the upload ends early: it has no last boundary") from error

    def _begun(self, name: str, filename: str | None) -> None:
        self._name, self._value = name, None
        if name == self._file:
            if self.filename is not None:
                raise BadUpload(f"the form has more than one field {name}")
            if not filename:
                raise BadUpload(f"the form's field {name} has no file name")
            self.filename = filename
        elif name in self._kept:
            if name in self.fields:
                raise BadUpload(f"the form has more than one field {name}")
            self._value = bytearray()

    def _more(self, data: bytes) -> None:
        if self._value is None:
            return
        self._value += data
        if len(self._value) > self._kept[self._name]:
            raise ContentTooLarge(f"the form's field {self._name} has more than {self._kept[self._name]:,} bytes")

    def _ended(self) -> None:
        if self._value is None:
            return
        try:
            self.fields[self._name] = self._value.decode()
        except UnicodeDecodeError as error:
            raise BadUpload(f"the form's field {self._name} is not in UTF-8") from error
        self._value = None
