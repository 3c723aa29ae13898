"""What the fake upstream has for clients: an application, what it needs, and all that resolvers stumble over."""

from __future__ import annotations

from typing import Any

from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import Distribution, sdist, wheel

#: What ``shop-app`` comes to, by the names that metadata directories have.
INSTALLED = {"shop_app": "1.0", "shop_lib": "2.1", "shop_speed": "1.0+cpu.1", "dotted_name": "0.3"}
#: The same, by normalised name.
RESOLVED = {name.replace("_", "-"): version for name, version in INSTALLED.items()}
#: A project that needs the application, as pyproject.toml has it.
METADATA = """\
[project]
name = "project"
version = "1"
requires-python = ">=3.11,<4"
dependencies = ["shop-app"]
"""


def fill(upstream: FakeUpstream) -> FakeUpstream:
    """*upstream*, with the shop's projects on it."""
    put(upstream, wheel("shop-app", "1.0", requires=["shop-lib[fast]>=2", "Dotted.Name"]))
    put(upstream, wheel("shop-app", "0.9"))
    put(upstream, wheel("shop-lib", "1.0"))
    fast = {"fast": ["shop-speed"]}
    put(upstream, wheel("shop-lib", "2.1", extras=fast, requires_python=">=3.8", size=300_000), requires_python=">=3.8")
    put(upstream, sdist("shop-lib", "2.1"))
    put(upstream, wheel("shop-lib", "2.2", extras=fast), yanked="forgot the data")
    put(upstream, wheel("shop-lib", "3.0", extras=fast, requires_python=">=4"), requires_python=">=4")
    put(upstream, wheel("shop-speed", "1.0+cpu.1"))
    # an sdist alone, under a name that is not normalised
    put(upstream, sdist("Dotted.Name", "0.3"))
    return upstream


def put(upstream: FakeUpstream, made: Distribution, **keys: Any) -> None:
    """List *made*; its metadata too if it is a wheel."""
    upstream.add_file(
        made.project, made.filename, made.data, metadata=made.metadata if made.filename.endswith(".whl") else None, **keys
    )
