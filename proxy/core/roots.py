"""The paths of indexes."""

from __future__ import annotations

from urllib.parse import quote

#: The path below which every index is found by its name.
INDEXES = "/index/"
#: The path of the pages of any of them, in a message.
ANY_SIMPLE = f"{INDEXES}NAME/simple/"


def index_root(index: str) -> str:
    """The path of the index called *index*, with a slash at both ends; its pages are in ``simple/`` below.

    The default index has the path ``/`` as well.
    """
    return f"{INDEXES}{quote(index)}/"
