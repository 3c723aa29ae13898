"""Real twine and real uv, uploading from a folder in which nothing is configured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import uv

from tests.support.process import Ended, environment, run
from tests.support.wheels import Distribution

#: The user and the password that they send.
USER, PASSWORD = "alice", "correct horse battery staple"


def write(folder: Path, *made: Distribution) -> list[str]:
    """The paths of *made*, which are written into *folder*."""
    folder.mkdir(exist_ok=True)
    for each in made:
        (folder / each.filename).write_bytes(each.data)
    return [str(folder / each.filename) for each in made]


class Publisher:
    """Uploads from *place*, which is the home of the tools too."""

    def __init__(self, place: Path, user: str = USER, password: str = PASSWORD) -> None:
        self._place = place
        self._user = user
        self._password = password

    async def twine(self, url: str, *made: Distribution, options: Sequence[str] = ()) -> Ended:
        """How ``twine upload`` of *made* to *url* ends."""
        command = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar", "--verbose"]
        files = write(self._place / "dist", *made)
        settings = {"TWINE_USERNAME": self._user, "TWINE_PASSWORD": self._password, "NO_COLOR": "1", "COLUMNS": "400"}
        return await self._run([*command, *options, "--repository-url", url, *files], settings)

    async def uv(self, url: str, *made: Distribution, check_url: str | None = None) -> Ended:
        """How ``uv publish`` of *made* to *url* ends."""
        command = [uv.find_uv_bin(), "publish", "--no-config", "--no-progress", "--trusted-publishing", "never"]
        checked = [] if check_url is None else ["--check-url", check_url]
        files = write(self._place / "dist", *made)
        settings = {"UV_PUBLISH_USERNAME": self._user, "UV_PUBLISH_PASSWORD": self._password, "UV_HTTP_RETRIES": "0"}
        return await self._run([*command, *checked, "--publish-url", url, *files], settings)

    async def uv_by_name(self, index: str, url: str, *made: Distribution) -> Ended:
        """How ``uv publish --index`` of *made* ends: *index* is at *url* by uv's configuration, and has the only credential."""
        table = f'[[index]]\nname = "{index}"\nurl = "{url}simple/"\npublish-url = "{url}legacy/"\n'
        (self._place / "uv.toml").write_text(table)
        command = [uv.find_uv_bin(), "publish", "--no-progress", "--trusted-publishing", "never", "--index", index]
        login = {
            f"UV_INDEX_{index.upper()}_{key}": said for key, said in (("USERNAME", self._user), ("PASSWORD", self._password))
        }
        return await self._run([*command, *write(self._place / "dist", *made)], {**login, "UV_HTTP_RETRIES": "0"})

    async def _run(self, command: Sequence[str], settings: dict[str, str]) -> Ended:
        return await run(command, environment(self._place, **settings), self._place, 120.0)
