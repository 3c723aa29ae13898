"""What keeps ready what ``[warm]`` names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.administration.operations import Administration
from proxy.errors import ConfigError
from proxy.host.following import Following
from proxy.host.listening import Listening
from proxy.settings import WarmSettings


def build_following(
    settings: WarmSettings, listenings: Iterable[Listening], administration: Administration, reactor: Any
) -> Following:
    """What asks the proxy for what *settings* name.  Raises ConfigError when none of *listenings* can be asked."""
    plain = next((each for each in listenings if each.plain), None)
    if plain is None:
        raise ConfigError("warm: the proxy asks itself over http for it; expected a tcp: endpoint in server.listen")
    return Following(settings, lambda: f"{plain.local_url()}simple/", administration.perform, reactor)
