"""How a service is put together: each index by the builder of its kind, and stopped as it was built."""

from __future__ import annotations

from collections.abc import Mapping

import pytest_twisted

from proxy.composition.indexes import BuiltIndex, IndexKind, build_indexes
from proxy.settings import GroupSettings, IndexSettings
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

    def kind(name: str) -> IndexKind:
        def build(index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
            said.append(f"{index.name} is built as {name} of {list(members)}")
            return BuiltIndex(
                parts, closing=(Part(f"the first of {index.name}", said), Part(f"the second of {index.name}", said))
            )

        return build

    both = GroupSettings(members=("here", "there"))
    wanted = [
        IndexSettings(name="here"),
        IndexSettings(name="both", kind="group", default=True, group=both),
        IndexSettings(name="there"),
    ]
    indexes = build_indexes(wanted, {"proxy": kind("proxy"), "group": kind("group")})
    assert indexes.default == "both"
    assert indexes.repositories == dict.fromkeys(("here", "both", "there"), parts.repository)
    indexes.stop()
    assert said == [
        "here is built as proxy of []",
        "there is built as proxy of []",
        "both is built as group of ['here', 'there']",
        "the first of here is closed",
        "the second of here is closed",
        "the first of both is closed",
        "the second of both is closed",
        "the first of there is closed",
        "the second of there is closed",
    ]
