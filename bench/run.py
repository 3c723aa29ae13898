"""Runs the bench from wherever it is called: ``python bench/run.py --help``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder, whose modules are not top-level ones.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("bench", run_name="__main__", alter_sys=True)
