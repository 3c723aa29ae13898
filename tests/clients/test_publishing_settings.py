"""What ``pypiproxy client-config --publish`` prints is all that each real tool needs, beside the secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import pytest_twisted

from proxy.core.clients import Address
from proxy.core.publishing import PUBLISHERS, publishing
from tests.clients.test_publishing import FLIT, PROJECT, Workshop, counter, shop_of
from tests.support.counter import Counter
from tests.support.publishers import PASSWORD

__all__ = ["counter"]  # a fixture

#: What is added where nobody is there to ask, and for tools that do not publish all that is in dist/ by themselves.
LINES: Mapping[str, Sequence[str]] = {
    "twine": ("twine", "upload", "--non-interactive"),
    "uv": ("uv", "publish", "--trusted-publishing", "never"),
    "poetry": ("poetry", "publish", "--no-interaction", "--repository", "pypiproxy"),
    "pdm": ("pdm", "publish", "--no-build"),
    "flit": ("flit", "publish"),
    "hatch": ("hatch", "--no-interactive", "publish", "--no-prompt"),
}


@pytest.mark.parametrize("name", PUBLISHERS)
@pytest_twisted.ensureDeferred
async def test_each_tool_publishes_with_what_is_printed(counter: Counter, tmp_path: Path, name: str) -> None:
    at = Workshop(tmp_path, "")
    at.put("pyproject.toml", PROJECT + (FLIT if name == "flit" else ""))
    at.put("shop_app.py", '"""made for a test"""\n')
    files = [] if name == "flit" else at.dist
    (setting,) = publishing(name, Address.of(counter.base, "internal"))
    variables = {**setting.variables, PUBLISHERS[name].password: PASSWORD, "POETRY_KEYRING_ENABLED": "false"}
    variables.pop("UV_PUBLISH_CHECK_URL", None)  # what takes uploads here has no pages
    given = files if name in ("twine", "uv", "hatch") else []
    ended = await at.run(name, *LINES[name], *given, variables=variables)
    assert ended.status == 0, ended.output
    shop = shop_of(counter)
    assert shop.files
    assert {form.project for form in shop.forms.values()} == {"shop-app"}
