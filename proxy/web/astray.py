"""Installers whose index URL lacks ``simple/`` at its end, the most common mistake in a client's configuration.

An installer that is given ``http://host:3143/`` asks for ``/six/``.  Nothing is there, and all that pip prints is that there is
no such project.  No other request looks like this one, so the installer is redirected to the page that it looks for, and the
operator is told once per client what to set.  Other programs get a 404 that names the right URL.
"""

from __future__ import annotations

from twisted.logger import Logger

from proxy.core.bounded import Told
from proxy.errors import NotFound
from proxy.names import normalize
from proxy.web.answers import Answer, Ask
from proxy.web.origin import origin
from proxy.web.pages import redirect
from proxy.web.visitors import installer


class Astray:
    """Answers those that ask for an index where it is not."""

    log = Logger()

    def __init__(self) -> None:
        self._told = Told()

    async def page(self, root: str, project: str, ask: Ask) -> Answer:
        """Answer a request for the page of *project* right below *root*, the path of an index.  Raises NotFound."""
        client = installer(ask)
        if client is None:
            raise NotFound(
                f"there is nothing at {root}{project}/: the page of a project is at {root}simple/{normalize(project)}/"
            )
        self._tell(client, root, ask, "it is redirected")
        return redirect(f"../simple/{normalize(project)}/")

    def refuse(self, root: str, ask: Ask) -> None:
        """Raise NotFound if an installer asks for *root*, the path of an index.

        Of an index URL installers ask for the pages below it alone, so this one looks for a list of files (``--find-links``),
        or of all projects: it is not given tens of megabytes that it may have no use for.
        """
        client = installer(ask)
        if client is not None:
            self._tell(client, root, ask, "it is answered 404")
            raise NotFound(f"nothing is listed at {root}: the URL of the index is {origin(ask)}{root}simple/")

    def _tell(self, client: str, root: str, ask: Ask, consequence: str) -> None:
        address, wrong = ask.caller.address, origin(ask) + root
        if self._told.is_first(address):
            self.log.warn(
                "{client} at {address} uses the URL {wrong}, which lacks simple/ at its end: {consequence}. "
                "Set its index URL to {right}",
                client=client,
                address=address,
                wrong=wrong,
                consequence=consequence,
                right=f"{wrong}simple/",
            )
