"""How a service is put together: each index by the builder of its kind, and stopped as it was built."""

from __future__ import annotations

from collections.abc import Callable

import pytest_twisted

from proxy.composition.indexes import BuiltIndex, build_indexes
from proxy.settings import IndexSettings
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream


class Part:
    """A part of an index that notes in *said* when it is closed."""

    def __init__(self, name: str, said: list[str]) -> None:
        self._name = name
        self._said = said

    def close(self) -> None:
        self._said.append(f"{self._name} is closed")


@pytest_twisted.ensureDeferred
async def test_an_index_is_built_by_its_kind_and_stopped_part_by_part(upstream: FakeUpstream, run: Start) -> None:
    parts = (await run(upstream)).service.indexes["pypi"]
    said: list[str] = []

    def kind(name: str) -> Callable[[IndexSettings], BuiltIndex]:
        def build(index: IndexSettings) -> BuiltIndex:
            said.append(f"{index.name} is built as {name}")
            return BuiltIndex(
                parts, closing=(Part(f"the first of {index.name}", said), Part(f"the second of {index.name}", said))
            )

        return build

    wanted = [IndexSettings(name="here"), IndexSettings(name="both", kind="group", default=True)]
    indexes = build_indexes(wanted, {"proxy": kind("proxy"), "group": kind("group")})
    assert indexes.default == "both"
    assert indexes.repositories == {"here": parts.repository, "both": parts.repository}
    indexes.stop()
    assert said == [
        "here is built as proxy",
        "both is built as group",
        "the first of here is closed",
        "the second of here is closed",
        "the first of both is closed",
        "the second of both is closed",
    ]
