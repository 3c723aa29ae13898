"""What to set in each tool that publishes, so that it uploads to a hosted index of this proxy.

Pure text, as :mod:`proxy.core.clients`: ``pypiproxy client-config --publish`` prints it.  No secret is in it: each tool has a
variable for that, which is named.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from msgspec import Struct

from proxy.core.clients import ENVIRONMENT, NAME, Address, Setting

#: The user name that goes with a token.
_TOKEN = "__token__"  # noqa: S105  # it is none


class _Publisher(Struct, frozen=True):
    """A tool: the variables of its URL, its user, its password and its authority, and the command that publishes."""

    url: str
    user: str
    password: str
    ca_file: str
    command: str
    check_url: str | None = None


PUBLISHERS: Mapping[str, _Publisher] = {
    "twine": _Publisher("TWINE_REPOSITORY_URL", "TWINE_USERNAME", "TWINE_PASSWORD", "TWINE_CERT", "twine upload dist/*"),
    "uv": _Publisher(
        "UV_PUBLISH_URL", "UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD", "SSL_CERT_FILE", "uv publish", "UV_PUBLISH_CHECK_URL"
    ),
    "poetry": _Publisher(
        f"POETRY_REPOSITORIES_{NAME.upper()}_URL",
        f"POETRY_HTTP_BASIC_{NAME.upper()}_USERNAME",
        f"POETRY_HTTP_BASIC_{NAME.upper()}_PASSWORD",
        f"POETRY_CERTIFICATES_{NAME.upper()}_CERT",
        f"poetry publish --repository {NAME}",
    ),
    "pdm": _Publisher(
        "PDM_PUBLISH_REPO", "PDM_PUBLISH_USERNAME", "PDM_PUBLISH_PASSWORD", "PDM_PUBLISH_CA_CERTS", "pdm publish"
    ),
    "flit": _Publisher("FLIT_INDEX_URL", "FLIT_USERNAME", "FLIT_PASSWORD", "REQUESTS_CA_BUNDLE", "flit publish"),
    "hatch": _Publisher("HATCH_INDEX_REPO", "HATCH_INDEX_USER", "HATCH_INDEX_AUTH", "HATCH_INDEX_CA_CERT", "hatch publish"),
}


def publishing(client: str, address: Address) -> tuple[Setting, ...]:
    """How *client*, one of `PUBLISHERS`, uploads to the index of *address*."""
    tool = PUBLISHERS[client]
    variables = {tool.url: f"{address.index.removesuffix('simple/')}legacy/", tool.user: _TOKEN}
    if tool.check_url is not None:
        variables[tool.check_url] = address.index
    if address.ca_file is not None:
        variables[tool.ca_file] = address.ca_file
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    return (Setting(ENVIRONMENT, f"for: {tool.command}", "".join(lines)),)


def printed_publishing(client: str, address: Address) -> str:
    """The same as text, with the variable that takes the secret."""
    (setting,) = publishing(client, address)
    return (
        f"# {setting.where}: {setting.about}\n{setting.text}\n"
        f"# note: put the token into {PUBLISHERS[client].password}; a password goes there too, with the user's name above\n"
    )
