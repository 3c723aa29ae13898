"""The port that uploads go through: what each implementation keeps, the hosted index and the one in memory that tests use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from zope.interface.verify import verifyObject

from proxy.core.uploads import Uploaded
from proxy.errors import BadUpload, FileExists, TooMuch
from proxy.interfaces import IIncoming, IReceiving
from tests.hosting import form_of, hosted, upload
from tests.inprocess import Start
from tests.support.receiving import Shop
from tests.support.wheels import wheel

APP, OTHER = wheel("app", size=5000), wheel("app", size=6000)
#: Makes an index that takes uploads, of at most so many bytes.
Make = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["in memory", "hosted"])
def make(request: pytest.FixtureRequest, serve: Start) -> Make:
    async def make(largest: int | None = None) -> Any:
        if request.param == "in memory":
            return Shop(largest=largest)
        return (await serve(indexes=(hosted(max_size=largest),))).service.receiving["internal"]

    return make


@pytest_twisted.ensureDeferred
async def test_it_keeps_the_port(make: Make) -> None:
    receiving = await make()
    assert verifyObject(IReceiving, receiving)
    assert (receiving.name, receiving.takes_uploads) == ("internal", True)
    incoming = await receiving.begin(None, None)
    assert verifyObject(IIncoming, incoming)
    await incoming.discard()
    await incoming.discard()


@pytest_twisted.ensureDeferred
async def test_a_file_is_new_then_the_same_and_never_another(make: Make) -> None:
    receiving = await make()
    assert await upload(receiving, APP) is Uploaded.NEW
    assert await upload(receiving, APP, by="another") is Uploaded.SAME
    with pytest.raises(FileExists):
        await upload(receiving, OTHER)
    assert await upload(receiving, APP) is Uploaded.SAME


@pytest_twisted.ensureDeferred
async def test_the_file_may_come_before_anything_is_known_of_it(make: Make) -> None:
    receiving = await make()
    incoming = await receiving.begin(None, None)
    for start in range(0, len(APP.data), 1000):
        await incoming.write(APP.data[start : start + 1000])
        assert incoming.size == min(start + 1000, len(APP.data))
    assert await incoming.accept(form_of(APP), "ci") is Uploaded.NEW
    await incoming.discard()
    assert await upload(receiving, APP) is Uploaded.SAME


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "blake2b_256"])
@pytest_twisted.ensureDeferred
async def test_a_wrong_digest_leaves_the_name_free(make: Make, algorithm: str) -> None:
    receiving = await make()
    wrong = {"sha256": "0" * 64, "md5": "0" * 32, "blake2b_256": "0" * 64}[algorithm]
    with pytest.raises(BadUpload):
        await upload(receiving, APP, digests={algorithm: wrong})
    assert await upload(receiving, OTHER) is Uploaded.NEW


@pytest_twisted.ensureDeferred
async def test_what_is_discarded_leaves_the_name_free(make: Make) -> None:
    receiving = await make()
    incoming = await receiving.begin(APP.filename, len(APP.data))
    await incoming.write(APP.data)
    await incoming.discard()
    assert await upload(receiving, OTHER) is Uploaded.NEW


@pytest_twisted.ensureDeferred
async def test_too_much_is_said_before_it_comes_and_while_it_does(make: Make) -> None:
    receiving = await make(largest=1000)
    with pytest.raises(TooMuch):
        await receiving.begin(None, len(APP.data))
    incoming = await receiving.begin(None, None)
    with pytest.raises(TooMuch):
        await incoming.write(APP.data)
    await incoming.discard()


@pytest_twisted.ensureDeferred
async def test_a_file_may_be_as_large_as_the_index(make: Make) -> None:
    assert await upload(await make(largest=len(APP.data)), APP) is Uploaded.NEW


@pytest_twisted.ensureDeferred
async def test_of_two_of_one_name_one_wins(make: Make) -> None:
    receiving = await make()
    rivals = [Deferred.fromCoroutine(upload(receiving, each)) for each in (APP, OTHER, APP, OTHER)]
    outcomes = await DeferredList(rivals, consumeErrors=True)
    assert sorted(success for success, _ in outcomes) == [False, False, True, True]
    assert {outcome for success, outcome in outcomes if success} == {Uploaded.NEW, Uploaded.SAME}
