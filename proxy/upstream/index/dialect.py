"""How one upstream is to be asked for pages: what it has shown to understand, and whether its URL is that of an index.

Some gateways answer a request for JSON with an error where they would answer one for HTML with a page; some configured URLs
lack the ``simple/`` at their end.  Both look like an upstream that has nothing, so each is looked into before that is believed.
"""

from __future__ import annotations

#: Seconds for which an upstream that answers HTML alone is asked for nothing else.
REMEMBERED_FOR = 24 * 3600.0
#: 404s for which it is looked whether the index is elsewhere.
MOST_LOOKS = 20
#: What a server answers that does not know the media types that it is asked for.
NOT_UNDERSTOOD = (406, 415, 500)


class Dialect:
    """What one upstream has shown."""

    def __init__(self) -> None:
        self._html_until = 0.0
        self._worked = False
        self._looks = 0
        #: The URL that its index really has; ``None`` as far as is known: the configured one.
        self.better_url: str | None = None

    def html_alone(self, now: float) -> bool:
        """Whether it is to be asked for HTML and nothing else."""
        return self._html_until > now

    def may_want_html(self, now: float) -> bool:
        """Whether an error may be about the media types: no page ever came in answer to a request for JSON."""
        return not self._worked and not self.html_alone(now)

    def may_be_elsewhere(self) -> bool:
        """Whether a 404 may be about the URL: no page ever came.  Answers yes to the first :data:`MOST_LOOKS` who ask."""
        self._looks += 1
        return self._looks <= MOST_LOOKS and not self._worked and self.better_url is None

    def worked(self, now: float, *, html: bool) -> None:
        """A page came, in answer to a request for JSON or, *html*, to one for HTML after one for JSON had failed."""
        if html:
            self._html_until = now + REMEMBERED_FOR
        else:
            self._worked = True
