"""How a service is put together: each index by the builder of its kind, and stopped as it was built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_twisted
from msgspec.structs import replace

from proxy.composition.claims import neighbours_of, reserving
from proxy.composition.indexes import BuiltIndex, IndexKind, build_indexes
from proxy.config.access import wrong_grants
from proxy.config.changes import index_notes
from proxy.config.effective import effective
from proxy.host.banner import served
from proxy.settings import GrantSettings, GroupSettings, HostedSettings, IndexSettings, ServerSettings, Settings
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


@pytest.mark.parametrize("kind", ["group", "another"])
def test_an_index_that_consists_of_others_is_known_by_its_members_whatever_its_kind(kind: str) -> None:
    inner = IndexSettings(name="inner", kind=kind, group=GroupSettings(members=("own", "pypi")))
    outer = IndexSettings(name="outer", kind=kind, group=GroupSettings(members=("inner", "other")), default=True)
    leaves = (
        IndexSettings(name="own", kind="hosted", hosted=HostedSettings()),
        IndexSettings(name="pypi", offline=True),
        IndexSettings(name="other", offline=True),
    )
    settings = Settings(server=ServerSettings(data_dir=Path("/srv/data")), upstreams=(), indexes=(*leaves, inner, outer))
    assert settings.leaves("outer") == ("own", "pypi", "other")
    # Upstreams are asked for no name that belongs to a hosted index beside them.
    assert [reserving(settings, each) for each in ("pypi", "other", "outer")] == [frozenset({"own"})] * 3
    beside = neighbours_of(settings)
    assert ([each.name for each in beside.proxies["own"]], beside.hosted["own"]) == (["pypi", "other"], [])
    assert served(settings)[-1] == "/simple/ and /index/outer/simple/ from inner, other"
    assert 'members = ["inner", "other"]' in effective(settings)
    (removed,) = index_notes(settings, replace(settings, indexes=(*leaves, inner)))
    assert "its members keep their files and claims" in removed
    grant = GrantSettings(role="reader", principals=("anonymous",), indexes=("outer",))
    (mistake,) = wrong_grants("file", [grant], {}, settings.indexes, [])
    assert "the rights on its members count" in mistake
