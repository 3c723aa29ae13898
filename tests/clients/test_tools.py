"""The clients' environments: what cannot be installed is skipped, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import tools


def test_a_client_that_cannot_be_installed_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "PLACE", tmp_path)
    monkeypatch.setitem(tools.REQUIREMENTS, "nowhere", (str(tmp_path / "nowhere.whl"),))
    for _ in range(2):
        with pytest.raises(pytest.skip.Exception, match=r"nowhere cannot be installed here: .*nowhere\.whl"):
            tools.tool("nowhere")
