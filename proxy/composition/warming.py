"""What keeps ready what ``[warm]`` names."""

from __future__ import annotations

from typing import Any

from proxy.composition.reaching import Reaching
from proxy.host.following import Following
from proxy.settings import WarmSettings
from proxy.warm.looking import Perform


def build_following(settings: WarmSettings, reaching: Reaching, perform: Perform, reactor: Any) -> Following:
    """What asks the proxy, by *reaching* it, for what *settings* name.  Raises ConfigError when it cannot be reached."""
    reaching.require()
    return Following(settings, reaching.url, perform, reactor)
