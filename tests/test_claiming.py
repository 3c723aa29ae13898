"""What operators ask of claims: to list them, to decide whose a name is, and to release it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace

from proxy.administration.claiming import Claiming
from proxy.administration.parts import IndexParts
from proxy.cache.claims import ClaimBook
from proxy.core.claims import ClaimState, NameClaim
from proxy.errors import BadRequest, NotFound, ProxyError
from proxy.storage.memory import MemoryVersioned
from tests.shelf import Shelf
from tests.support.wheels import wheel
from tests.test_stores import now

CLAIMED = NameClaim("internal", "acme-app", ClaimState.CLAIMED, 1000.0, "ann")
HELD = NameClaim("internal", "numpy", ClaimState.HELD, 1001.0, "bob", "index pypi serves it too")
EARLIER = NameClaim("earlier", "acme-old", ClaimState.CLAIMED, 900.0, "carl")


class Asked:
    """The operations on the hosted index ``internal``, which owns ``tool-*``, beside ``pypi``."""

    def __init__(self) -> None:
        self.internal = Shelf("internal", wheel("acme-app"))
        self.book = ClaimBook(MemoryVersioned(), {"internal": ("tool-*",)})
        pypi = Shelf("pypi")
        indexes = {"internal": IndexParts(self.internal, self.internal), "pypi": IndexParts(pypi, pypi)}
        self._operations = Claiming(indexes, self.book, lambda: 5000.0).operations

    async def __call__(self, operation: str, **arguments: Any) -> Any:
        return await self._operations[operation](lambda said: None, **arguments)


@pytest.fixture
def asked() -> Asked:
    made = Asked()
    now(made.book.enter([CLAIMED, HELD, EARLIER]))
    return made


@pytest_twisted.ensureDeferred
async def test_the_list_has_patterns_and_claims_with_their_states(asked: Asked) -> None:
    listed = await asked("claims")
    assert [(each["index"], each["project"], each["state"], each["by"]) for each in listed] == [
        ("internal", "tool-*", "owned", "configuration"),
        ("earlier", "acme-old", "abandoned", "carl"),
        ("internal", "acme-app", "claimed", "ann"),
        ("internal", "numpy", "held", "bob"),
    ]
    assert [each["why"] for each in listed][-1] == HELD.why
    assert [each["project"] for each in await asked("claims", index="earlier")] == ["acme-old"]
    assert await asked("claims", index="pypi") == []
    with pytest.raises(NotFound):
        await asked("claims", index="nowhere")


@pytest_twisted.ensureDeferred
async def test_adding_a_name_gives_it_to_the_index_whatever_it_was(asked: Asked) -> None:
    added = await asked("claim_add", index="internal", projects=["NumPy", "acme.old", "new"])
    assert [(each["project"], each["state"], each["before"]) for each in added] == [
        ("acme-old", "claimed", "claimed by earlier"),
        ("new", "claimed", None),
        ("numpy", "claimed", "held"),
    ]
    assert all(asked.book.claimed("internal", each) for each in ("numpy", "acme-old", "new"))
    assert {(each.index, each.project, each.since) for each in asked.book.all()} == {
        ("internal", "acme-app", 1000.0),
        ("internal", "acme-old", 900.0),
        ("internal", "new", 5000.0),
        ("internal", "numpy", 1001.0),
    }


@pytest_twisted.ensureDeferred
async def test_all_names_of_an_index_that_is_not_configured_any_more_can_be_taken_over(asked: Asked) -> None:
    assert [each["project"] for each in await asked("claim_add", index="internal", source="earlier")] == ["acme-old"]
    assert list(asked.book.abandoned("acme-old")) == []


@pytest_twisted.ensureDeferred
async def test_a_name_that_an_earlier_index_held_is_held_for_the_one_that_takes_over_and_claimed_if_it_is_named(
    asked: Asked,
) -> None:
    await asked.book.enter([replace(HELD, index="earlier", project=each) for each in ("scipy", "six")])
    added = await asked("claim_add", index="internal", source="earlier", projects=["six"])
    assert [(each["project"], each["state"], each["before"]) for each in added] == [
        ("acme-old", "claimed", "claimed by earlier"),
        ("scipy", "held", "held by earlier"),
        ("six", "claimed", "held by earlier"),
    ]
    assert not asked.book.claimed("internal", "scipy")
    listed = {each["project"]: (each["index"], each["state"]) for each in await asked("claims", index="internal")}
    assert (listed["scipy"], listed["six"]) == (("internal", "held"), ("internal", "claimed"))


@pytest_twisted.ensureDeferred
async def test_a_released_name_belongs_to_nobody_and_is_held_where_there_are_files(asked: Asked) -> None:
    released = await asked("claim_release", index="internal", everything=True)
    assert [(each["project"], each["state"]) for each in released] == [("acme-app", "held"), ("numpy", "released")]
    assert not asked.book.claimed("internal", "acme-app")
    assert [each.project for each in asked.book.all()] == ["acme-old", "acme-app"]
    asked.internal.empty("acme-app")
    (released,) = await asked("claim_release", index="internal", projects=["acme_app"])
    assert released["state"] == "released"
    (released,) = await asked("claim_release", index="earlier", projects=["acme-old"])
    assert (released["state"], asked.book.all()) == ("released", [])


@pytest_twisted.ensureDeferred
async def test_a_name_that_matches_a_pattern_stays_owned_when_its_claim_is_released(asked: Asked) -> None:
    await asked.book.enter([NameClaim("internal", "tool-x", ClaimState.CLAIMED, 1000.0, "ann")])
    (released,) = await asked("claim_release", index="internal", projects=["tool-x"])
    assert released["state"] == "owned"
    assert asked.book.claimed("internal", "tool-x")
    await asked.book.enter([replace(HELD, project="tool-y")])
    listed = {each["project"]: (each["state"], each["why"]) for each in await asked("claims", index="internal")}
    assert (listed["tool-y"], listed["numpy"]) == (("owned", None), ("held", HELD.why))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("operation", "arguments", "error", "said"),
    [
        ("claim_add", {"index": "nowhere", "projects": ["x"]}, NotFound, "there is no index named 'nowhere'"),
        ("claim_add", {"index": "pypi", "projects": ["x"]}, BadRequest, "the index pypi is not hosted"),
        ("claim_add", {"index": "internal"}, BadRequest, "nothing to add"),
        ("claim_add", {"index": "internal", "projects": ["../x"]}, BadRequest, "is no name of a project"),
        ("claim_add", {"index": "internal", "source": "internal"}, BadRequest, "is configured and keeps its claims"),
        ("claim_add", {"index": "internal", "source": "nobody"}, NotFound, "has claimed nothing"),
        ("claim_release", {"index": "internal", "projects": ["x"]}, NotFound, "internal has not claimed x"),
        ("claim_release", {"index": "pypi", "everything": True}, NotFound, "pypi has not claimed anything"),
        ("claim_release", {"index": "internal"}, BadRequest, "name the projects to release"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    asked: Asked, operation: str, arguments: dict[str, Any], error: type[ProxyError], said: str
) -> None:
    before = asked.book.all()
    with pytest.raises(error, match=said):
        await asked(operation, **arguments)
    assert asked.book.all() == before
