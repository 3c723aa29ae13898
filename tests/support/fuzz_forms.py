"""Run as a module, with libFuzzer's options: atheris looks for a form of which `check` does not hold.

A form that takes memory without end is found too.  libFuzzer's own limit, which is switched off, is no use for that: what it
compares is the most memory that this process ever had, and a process that is started begins with that of the one which
started it (``getrusage(2)``).
"""

from __future__ import annotations

import resource
import sys

import atheris

with atheris.instrument_imports(include=["multipart", "proxy.core.upload_forms", "proxy.web.multipart_form"]):
    from tests.support.any_form import check

#: Bytes of memory that the process may have.
_MEMORY = 2 << 30

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    atheris.Setup([sys.argv[0], "-rss_limit_mb=0", *sys.argv[1:]], check)
    atheris.Fuzz()
