"""Run as a module, with libFuzzer's options: atheris looks for a form of which `check` does not hold."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["multipart", "proxy.core.upload_forms", "proxy.web.multipart_form"]):
    from tests.support.any_form import check

if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
