"""Installers whose index URL is none of this proxy: it lacks ``simple/`` at its end, or is that of another product.

The first is the most common mistake in a client's configuration.

An installer that is given ``http://host:3143/`` asks for ``/six/``.  Nothing is there, and all that pip prints is that there is
no such project.  No other request looks like this one, so the installer is redirected to the page that it looks for, and the
operator is told once per client address, program and mistake what to set.  Other programs get a 404 that names the right URL.

An index URL of devpi, Nexus or Artifactory, where only the host was replaced, ends in ``simple/`` and has other folders before.
Such a request is answered 404, for it is unknown which index is meant; the operator is told in the same way.
"""

from __future__ import annotations

from twisted.logger import Logger

from proxy.core.bounded import Told
from proxy.errors import NotFound
from proxy.names import normalize
from proxy.web.answers import Answer, Ask
from proxy.web.origin import origin
from proxy.web.pages import redirect
from proxy.web.routes import AREAS, NoRoute
from proxy.web.visitors import installer

_LACKS, _REFUSED = "which lacks simple/ at its end", "it is answered 404"


class Astray:
    """Answers those that ask for an index where it is not."""

    log = Logger()

    def __init__(self) -> None:
        self._told = Told()

    async def page(self, root: str, project: str, ask: Ask) -> Answer:
        """Answer a request for the page of *project* right below *root*, the path of an index.  Raises NotFound."""
        client = installer(ask)
        if client is None:
            raise NotFound(f"there is nothing at {root}{project}/: {_hint(root, project)}")
        self._tell(client, ask, root, _LACKS, "it is redirected", f"{root}simple/")
        return redirect(f"../simple/{normalize(project)}/")

    def refuse(self, root: str, ask: Ask) -> None:
        """Raise NotFound if an installer asks for *root*, the path of an index.

        Of an index URL installers ask for the pages below it alone, so this one looks for a list of files (``--find-links``),
        or of all projects: it is not given tens of megabytes that it may have no use for.
        """
        client = installer(ask)
        if client is not None:
            self._tell(client, ask, root, _LACKS, _REFUSED, f"{root}simple/")
            raise NotFound(f"nothing is listed at {root}: the URL of the index is {origin(ask)}{root}simple/")

    def nowhere(self, route: NoRoute, ask: Ask) -> NotFound:
        """The error for *ask*, which leads to *route*."""
        client, elsewhere = installer(ask), route.elsewhere
        if client is None or elsewhere is None:
            return NotFound(route.why)
        self._tell(client, ask, elsewhere.asked, "which is no index of this proxy", _REFUSED, elsewhere.meant)
        here = origin(ask)
        return NotFound(f"there is no index at {here}{elsewhere.asked}: set the index URL to {here}{elsewhere.meant}")

    def _tell(self, client: str, ask: Ask, wrong: str, fault: str, consequence: str, right: str) -> None:
        address, here = ask.caller.address, origin(ask)
        # Not by *wrong*, of which a client can make up any number.
        if self._told.is_first(f"{address} {client} {fault}"):
            self.log.warn(
                "{client} at {address} uses the URL {wrong}, {fault}: {consequence}. Set its index URL to {right}",
                client=client,
                address=address,
                wrong=f"{here}{wrong}",
                fault=fault,
                consequence=consequence,
                right=f"{here}{right}",
            )


def _hint(root: str, segment: str) -> str:
    """What somebody may have looked for at *segment* right below *root*, the path of an index."""
    if segment not in AREAS:
        return f"the page of a project is at {root}simple/{normalize(segment)}/"
    if segment == "pypi":
        return f"the index is at {root}simple/, and the JSON document of a project at {root}pypi/PROJECT/json"
    return f"files are not listed here; the page of a project, at {root}simple/PROJECT/, links to its files"
