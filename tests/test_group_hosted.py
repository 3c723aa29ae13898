"""Groups with a real hosted index: names are claimed by uploads and dropped files, and stay claimed."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent

from proxy.bundle.restoring import restore_backup
from proxy.core.uploads import Uploaded
from proxy.settings import GroupSettings, HostedSettings, IndexSettings, PageLimits
from tests.hosting import drop, listed, upload
from tests.inprocess import JSON, Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.wheels import Distribution, wheel

OURS, LATER = wheel("acme-app", "1.0"), wheel("acme-app", "2.0")
THEIRS = wheel("acme-app", "99.0")
SIX, REBUILT = wheel("six", "1.16"), wheel("six", "1.16", seed=1, size=100)


def indexes(name: str = "internal", *, merge: Collection[str] = (), **hosted: Any) -> tuple[IndexSettings, ...]:
    """The hosted index *name*, the proxy index ``pypi``, and both as the group ``all``, which is the default."""
    return (
        IndexSettings(name=name, kind="hosted", hosted=HostedSettings(owns=("owned-*",), **hosted)),
        IndexSettings(name="pypi", upstreams=("up0",), limits=PageLimits(soft_deadline=0.1), prefetch=False),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=(name, "pypi"), merge=tuple(merge))),
    )


@pytest.fixture
def public(upstream: FakeUpstream) -> FakeUpstream:
    for each in (THEIRS, SIX):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    return upstream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of the hosted index."""
    return tmp_path / "data" / "hosted" / "internal"


async def uploaded(proxy: Running, each: Distribution) -> Uploaded:
    return await upload(proxy.service.receiving["internal"], each)


async def claims(proxy: Running) -> list[tuple[str, str, str]]:
    """Index, project and state of each claim, as operators are told."""
    rows = await proxy.service.administration.perform("claims")
    return [(each["index"], each["project"], each["state"]) for each in rows if each["since"] is not None]


def told(upstream: FakeUpstream) -> list[str]:
    """The requests that told upstream the private name."""
    return [each.path for each in upstream.asked if "acme" in each.path.lower()]


@pytest_twisted.ensureDeferred
async def test_an_upload_claims_its_name_for_the_next_request_to_the_group(public: FakeUpstream, serve: Start) -> None:
    proxy = await serve(public, indexes=indexes())
    assert await uploaded(proxy, OURS) is Uploaded.NEW
    assert list(await listed(proxy, "acme-app")) == [OURS.filename]
    assert [proxy.service.first_uploader(index, "acme-app") for index in ("internal", "pypi")] == ["ci", None]
    first = await proxy.get("/simple/acme-app/", Accept=JSON)
    assert first.headers["cache-control"] == "no-cache"
    for _ in range(2):  # the second time it is answered at once
        again = await proxy.get("/simple/acme-app/", **{"Accept": JSON, "If-None-Match": first.headers["etag"]})
        assert again.status == 304
    await uploaded(proxy, LATER)
    assert list(await listed(proxy, "acme-app")) == [OURS.filename, LATER.filename]
    path = await proxy.link("acme-app", LATER.filename)
    for name, data in ((path, LATER.data), (f"{path}.metadata", LATER.metadata)):
        reply = await proxy.get(name)
        assert (reply.status, reply.body) == (200, data)
    assert (await proxy.get("/pypi/acme-app/json")).json["info"]["version"] == "2.0"
    assert proxy.service.receiving["internal"].remark("acme-app") is None
    assert await claims(proxy) == [("internal", "acme-app", "claimed")]
    assert told(public) == []


@pytest_twisted.ensureDeferred
async def test_a_name_of_files_that_nobody_has_looked_at_yet_is_not_asked_of_upstream(
    public: FakeUpstream, serve: Start, folder: Path
) -> None:
    drop(folder, OURS)
    proxy = await serve(public, indexes=indexes())
    assert (await proxy.get("/pypi/acme-app/json")).json["info"]["version"] == "1.0"
    assert list(await listed(proxy, "acme-app")) == [OURS.filename]
    assert await claims(proxy) == [("internal", "acme-app", "claimed")]
    assert told(public) == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("whole", [False, True], ids=["being written", "refused"])
async def test_a_name_is_not_asked_of_upstream_while_its_first_file_is_not_served(
    public: FakeUpstream, serve: Start, folder: Path, *, whole: bool
) -> None:
    path = drop(folder, OURS, OURS.data[:100])
    with open(path, "ab") as writing:
        if whole:
            writing.close()
        proxy = await serve(public, indexes=indexes())
        for asked in ("/simple/acme-app/", "/pypi/acme-app/json", f"/files/acme-app/sha256-{THEIRS.sha256}/{THEIRS.filename}"):
            assert (await proxy.get(asked, Accept=JSON)).status == 404
        assert await claims(proxy) == [("internal", "acme-app", "claimed")]
        assert told(public) == []


@pytest_twisted.ensureDeferred
async def test_a_file_of_another_project_claims_no_name(public: FakeUpstream, serve: Start, folder: Path) -> None:
    (folder / "six").mkdir(parents=True)
    (folder / "six" / OURS.filename).write_bytes(OURS.data)
    proxy = await serve(public, indexes=indexes())
    assert list(await listed(proxy, "six")) == [SIX.filename]
    assert await claims(proxy) == []


@pytest_twisted.ensureDeferred
async def test_a_claim_survives_the_last_file_and_the_service(public: FakeUpstream, serve: Start, folder: Path) -> None:
    proxy = await serve(public, indexes=indexes())
    await uploaded(proxy, OURS)
    await proxy.stop()
    for each in (folder / "acme-app").iterdir():
        each.unlink()
    proxy = await serve(public, indexes=indexes())
    for path in ("/simple/acme-app/", "/pypi/acme-app/json", f"/files/acme-app/sha256-{THEIRS.sha256}/{THEIRS.filename}"):
        assert (await proxy.get(path, Accept=JSON)).status == 404
    assert b"acme-app" not in (await proxy.get("/simple/", Accept=JSON)).body
    assert await claims(proxy) == [("internal", "acme-app", "claimed")]
    assert told(public) == []


@pytest_twisted.ensureDeferred
async def test_a_rebuilt_public_package_hides_nothing_until_an_operator_says_so(
    public: FakeUpstream, serve: Start, logged: list[LogEvent]
) -> None:
    proxy = await serve(public, indexes=indexes())
    assert list(await listed(proxy, "six")) == [SIX.filename]
    await uploaded(proxy, REBUILT)
    asked = len(public.asked)
    said = proxy.service.receiving["internal"].remark("six") or ""
    assert said.startswith("six is held: index pypi serves a project of that name")
    assert said in [formatEvent(each) for each in logged]
    assert await claims(proxy) == [("internal", "six", "held")]
    assert (await listed(proxy, "six"))[SIX.filename]["hashes"] == {"sha256": SIX.sha256}
    assert (await listed(proxy, "six", "/index/internal"))[REBUILT.filename]["hashes"] == {"sha256": REBUILT.sha256}
    await proxy.service.administration.perform("claim_add", index="internal", projects=["six"])
    assert (await listed(proxy, "six"))[REBUILT.filename]["hashes"] == {"sha256": REBUILT.sha256}
    (released,) = await proxy.service.administration.perform("claim_release", index="internal", projects=["six"])
    assert released["state"] == "held"
    assert (await listed(proxy, "six"))[SIX.filename]["hashes"] == {"sha256": SIX.sha256}
    assert len(public.asked) == asked


@pytest_twisted.ensureDeferred
async def test_no_member_takes_a_project_over_that_another_hosted_member_has_claimed(
    public: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    names = ("team", "corp", "late", "pypi")
    made = (
        *(IndexSettings(name=name, kind="hosted", hosted=HostedSettings()) for name in names[:3]),
        IndexSettings(name="pypi", upstreams=("up0",), limits=PageLimits(soft_deadline=0.1), prefetch=False),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=names)),
        IndexSettings(name="without", kind="group", group=GroupSettings(members=("team", "pypi"))),
    )
    proxy = await serve(public, indexes=made)
    receiving = proxy.service.receiving
    assert await upload(receiving["corp"], OURS) is Uploaded.NEW
    for index in ("team", "late"):
        assert await upload(receiving[index], THEIRS) is Uploaded.NEW
        said = receiving[index].remark("acme-app") or ""
        assert said.startswith("acme-app is held: it belongs to another hosted index")
        assert "corp" not in said  # who uploads need not be one who may know what corp has
    assert await claims(proxy) == [
        ("corp", "acme-app", "claimed"),
        ("late", "acme-app", "held"),
        ("team", "acme-app", "held"),
    ]
    assert list(await listed(proxy, "acme-app")) == [OURS.filename]
    # It is private all the same: a group without corp has it from its own member, and asks nobody.
    assert (await listed(proxy, "acme-app", "/index/without"))[THEIRS.filename]["hashes"] == {"sha256": THEIRS.sha256}
    assert list(await listed(proxy, "acme-app", "/index/team")) == [THEIRS.filename]
    assert told(public) == []
    # A release that is promoted is given away by the index that has the name.
    await proxy.service.administration.perform("claim_release", index="team", projects=["acme-app"])
    await proxy.service.administration.perform("delete", index="team", project="acme-app")
    await proxy.service.administration.perform("claim_release", index="team", projects=["acme-app"])
    promoted = await proxy.service.administration.perform(
        "promote", source="corp", target="team", project="acme-app", version="1.0"
    )
    assert (len(promoted["new"]), promoted["held"]) == (1, None)
    assert ("team", "acme-app", "claimed") in await claims(proxy)
    # An operator decides, as always.
    await proxy.service.administration.perform("claim_add", index="late", projects=["acme-app"])
    assert ("late", "acme-app", "claimed") in await claims(proxy)
    assert list(await listed(proxy, "acme-app")) == [OURS.filename]
    assert told(public) == []


@pytest_twisted.ensureDeferred
async def test_of_two_members_that_a_new_name_is_uploaded_to_at_once_one_claims_it(serve: Start) -> None:
    members = ("team", "corp")
    made = (
        *(IndexSettings(name=name, kind="hosted", hosted=HostedSettings()) for name in members),
        IndexSettings(name="gap", offline=True),  # what it has cached is looked up before a name is claimed
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=(*members, "gap"))),
    )
    proxy = await serve(indexes=made)
    receiving = proxy.service.receiving
    names = [f"acme-{number}" for number in range(8)]
    uploads = [(index, wheel(name, "1.0", seed=seed)) for name in names for seed, index in enumerate(members)]
    ended = await gatherResults([Deferred.fromCoroutine(upload(receiving[index], each)) for index, each in uploads])
    assert set(ended) == {Uploaded.NEW}
    found = await claims(proxy)
    for name in names:
        states = {index: state for index, project, state in found if project == name}
        assert sorted(states.values()) == ["claimed", "held"]
        (owner,) = (index for index in members if states[index] == "claimed")
        assert [index for index in members if receiving[index].remark(name) is None] == [owner]
        served, owned = [await listed(proxy, name, where) for where in ("", f"/index/{owner}")]
        assert [each["hashes"] for each in served.values()] == [each["hashes"] for each in owned.values()]


@pytest_twisted.ensureDeferred
async def test_a_public_project_is_not_taken_over_because_another_hosted_member_owns_its_name(
    public: FakeUpstream, serve: Start
) -> None:
    made = (
        IndexSettings(name="team", kind="hosted", hosted=HostedSettings()),
        IndexSettings(name="corp", kind="hosted", hosted=HostedSettings(owns=("acme-*",))),
        IndexSettings(name="pypi", upstreams=("up0",), limits=PageLimits(soft_deadline=0.1), prefetch=False),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=("team", "corp", "pypi"))),
        IndexSettings(name="without", kind="group", group=GroupSettings(members=("team", "pypi"))),
    )
    proxy = await serve(public, indexes=made)
    assert list(await listed(proxy, "acme-app", "/index/without")) == [THEIRS.filename]
    assert await upload(proxy.service.receiving["team"], OURS) is Uploaded.NEW
    assert "index pypi serves a project of that name" in (proxy.service.receiving["team"].remark("acme-app") or "")
    assert list(await listed(proxy, "acme-app", "/index/without")) == [THEIRS.filename]
    assert list(await listed(proxy, "acme-app")) == []  # it is corp's there


@pytest_twisted.ensureDeferred
async def test_the_flat_page_of_a_group_has_what_belongs_to_its_hosted_members(public: FakeUpstream, serve: Start) -> None:
    proxy = await serve(public, indexes=indexes())
    await listed(proxy, "six")
    for each in (OURS, REBUILT):
        await uploaded(proxy, each)
    asked = len(public.asked)
    flat, own = [(await proxy.get(f"{index}/links/")).body for index in ("", "/index/internal")]
    assert (OURS.filename.encode() in flat, REBUILT.filename.encode() in flat) == (True, False)
    assert (OURS.filename.encode() in own, REBUILT.filename.encode() in own) == (True, True)
    assert len(public.asked) == asked


@pytest_twisted.ensureDeferred
async def test_merging_decides_about_a_name_that_is_held(public: FakeUpstream, serve: Start) -> None:
    proxy = await serve(public, indexes=indexes())
    await listed(proxy, "acme-app")
    await uploaded(proxy, OURS)
    assert await claims(proxy) == [("internal", "acme-app", "held")]
    await proxy.stop()
    proxy = await serve(public, indexes=indexes(merge=("acme-app",)))
    page = await proxy.page("acme-app")
    assert [each["filename"] for each in page["files"]] == [OURS.filename, THEIRS.filename]
    assert page["versions"] == ["1.0", "99.0"]
    for each in (OURS, THEIRS):
        assert (await proxy.get(await proxy.link("acme-app", each.filename))).body == each.data
    assert sorted((await proxy.get("/pypi/acme-app/json")).json["releases"]) == ["1.0", "99.0"]


@pytest_twisted.ensureDeferred
async def test_a_renamed_index_has_to_be_given_its_names(
    public: FakeUpstream, serve: Start, tmp_path: Path, logged: list[LogEvent]
) -> None:
    proxy = await serve(public, indexes=indexes())
    await uploaded(proxy, OURS)
    await proxy.stop()
    (tmp_path / "data" / "hosted" / "internal").rename(tmp_path / "data" / "hosted" / "renamed")
    proxy = await serve(public, indexes=indexes("renamed"))
    for path in ("/simple/acme-app/", "/pypi/acme-app/json", f"/files/acme-app/sha256-{OURS.sha256}/{OURS.filename}"):
        reply = await proxy.get(path, Accept=JSON)
        assert reply.status == 409
        assert "acme-app is claimed by internal, which is not configured any more" in reply.json["detail"]
        assert "pypiproxy claims add renamed acme-app" in reply.json["detail"]
    assert b"acme-app" not in (await proxy.get("/simple/", Accept=JSON)).body
    assert any("pypiproxy claims add INDEX --from internal" in formatEvent(each) for each in logged)
    await proxy.service.administration.perform("claim_add", index="renamed", source="internal")
    assert list(await listed(proxy, "acme-app")) == [OURS.filename]
    assert told(public) == []


@pytest_twisted.ensureDeferred
async def test_a_restored_directory_knows_whose_names_are(public: FakeUpstream, serve: Start, tmp_path: Path) -> None:
    proxy = await serve(public, indexes=indexes())
    await uploaded(proxy, OURS)
    backup = tmp_path / "backup"
    await proxy.service.administration.perform("backup", descriptor=os.open(backup, os.O_WRONLY | os.O_CREAT))
    with backup.open("rb") as source:
        await deferToThread(restore_backup, source, tmp_path / "restored", lambda restored: None)
    again = await serve(public, data="restored", indexes=indexes())
    assert await claims(again) == [("internal", "acme-app", "claimed")]
    assert (await again.get("/simple/acme-app/", Accept=JSON)).status == 404
    assert told(public) == []


@pytest_twisted.ensureDeferred
async def test_while_the_directory_cannot_be_read_known_public_projects_are_served_and_no_other_is_looked_for(
    public: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    there = indexes(path=tmp_path / "volume")
    (tmp_path / "volume").mkdir()
    proxy = await serve(public, indexes=there)
    await listed(proxy, "six")
    await proxy.stop()
    (tmp_path / "volume").rmdir()
    proxy = await serve(public, indexes=there)
    assert list(await listed(proxy, "six")) == [SIX.filename]
    for project in ("acme-app", "owned-x"):
        assert (await proxy.get(f"/simple/{project}/", Accept=JSON)).status == 503
    assert told(public) == []


# -- the command --------------------------------------------------------------------------------------------------------------


class Command:
    """``pypiproxy claims`` on the data directory in *place*, with the indexes of these tests."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._file = place / "pypiproxy.toml"
        self._file.write_text(
            f'[server]\ndata_dir = "{place / "data"}"\n'
            '[[index]]\nname = "internal"\nkind = "hosted"\nowns = ["owned-*"]\n'
            '[[index]]\nname = "pypi"\nupstreams = ["pypi"]\n'
            '[[index]]\nname = "all"\nkind = "group"\nmembers = ["internal", "pypi"]\ndefault = true\n'
        )

    async def __call__(self, *arguments: str) -> tuple[int | None, str]:
        """Its exit status and what it prints."""
        ended = await Operator(self._place, self._place).without_directory("claims", *arguments, "--config", str(self._file))
        return ended.status, ended.output


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("running", [True, False], ids=["running", "not running"])
async def test_operators_list_and_decide_by_command(public: FakeUpstream, serve: Start, tmp_path: Path, running: bool) -> None:
    proxy = await serve(public, indexes=indexes())
    await listed(proxy, "six")
    for each in (OURS, REBUILT):
        await uploaded(proxy, each)
    if not running:
        await proxy.stop()
    command = Command(tmp_path)
    status, output = await command("list")
    assert status == 0, output
    heading, *rows = output.splitlines()
    assert heading.split()[:4] == ["index", "project", "state", "since"]
    assert [row.split()[:3] for row in rows] == [
        ["internal", "owned-*", "owned"],
        ["internal", "acme-app", "claimed"],
        ["internal", "six", "held"],
    ]
    assert "index pypi serves a project of that name" in rows[-1]
    assert await command("add", "internal", "six", "new") == (
        0,
        "new (internal): claimed\nsix (internal): claimed, before: held\n2 names claimed\n",
    )
    assert await command("release", "internal", "new", "acme-app") == (
        0,
        "acme-app (internal): held\nnew (internal): released\n2 names released\n",
    )
    assert (await command("release", "internal", "nothing"))[0] == 1
    assert (await command("add", "internal"))[0] == 2
    if running:
        assert (await listed(proxy, "six"))[REBUILT.filename]["hashes"] == {"sha256": REBUILT.sha256}
