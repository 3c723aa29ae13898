"""What keeps ready what ``[warm]`` names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from proxy.access.principals import WARM
from proxy.composition.accounts import AccessRoom
from proxy.errors import ConfigError
from proxy.host.following import Following
from proxy.host.listening import Listening
from proxy.settings import WarmSettings
from proxy.warm.looking import Perform


def build_following(
    settings: WarmSettings, listenings: Iterable[Listening], access: Callable[[], AccessRoom], perform: Perform, reactor: Any
) -> Following:
    """What asks the proxy for what *settings* name, as a principal that the present *access* knows.

    Raises ConfigError when none of *listenings* can be asked."""
    plain = next((each for each in listenings if each.plain), None)
    if plain is None:
        raise ConfigError("warm: the proxy asks itself over http for it; expected a tcp: endpoint in server.listen")
    return Following(settings, lambda: access().entrusted(plain.local_url(), WARM), perform, reactor)
