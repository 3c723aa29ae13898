"""What is true: projects and files, every version of them that upstream ever served, and what their pages state.

Upstream is the authority: of a file without a digest each version that it served is right, of a file with one only those bytes.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field

from tests.support.content import Content, normalize
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import Distribution, sdist, seeded, wheel

#: Sizes of the ballast in files: from nothing to what takes many reads.
_SIZES = (0, 0, 300, 3_000, 20_000, 60_000, 70_000, 200_000, 1_000_000, 3_000_000)


class Version:
    """The bytes of a file at one time, and of a wheel its METADATA."""

    def __init__(self, data: bytes, metadata: bytes | None) -> None:
        self.data = data
        self.metadata = metadata
        self.sha256 = hashlib.sha256(data).hexdigest()

    def stated(self, algorithm: str) -> str:
        """Its digest in hex."""
        return hashlib.new(algorithm, self.data, usedforsecurity=False).hexdigest()


class TrueFile(Struct):
    """One file: its versions, the latest last, and what the page says of it.

    *algorithm* is that of the digest on the page, ``None`` when there is none.  *sidecar*: its METADATA is advertised with its
    ``digest``, without it (``bare``), is advertised and not there (``absent``), or is not advertised (``None``).
    """

    project: str
    filename: str
    algorithm: str | None
    sized: bool
    sidecar: str | None
    versions: list[Version]
    yanked: bool | str = False
    requires_python: str | None = None
    #: ``False``: what the page states is no digest, so it must not be offered.
    offered: bool = True
    #: The round in which it came onto the page.
    since: int = -9
    #: Where upstream has it, by the version's sha256.
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")

    @property
    def subject(self) -> str:
        """What it is called in the journal."""
        return f"{self.project}/{self.filename[:60]}"

    @property
    def latest(self) -> Version:
        return self.versions[-1]

    def segment(self, version: Version) -> str:
        """The digest segment of the URL that the proxy gives *version*."""
        return "none" if self.algorithm is None else f"{self.algorithm}-{version.stated(self.algorithm)}"

    def url(self, version: Version, *, root: str = "/files/", companion: str = "") -> str:
        """The path at the proxy."""
        return f"{root}{self.project}/{self.segment(version)}/{quote(self.filename)}{companion}"

    def those(self, segment: str) -> list[Version]:
        """The versions that a URL with the digest *segment* may stand for."""
        return [each for each in self.versions if self.segment(each) == segment]


class TrueProject(Struct):
    """One project, and how its page is."""

    name: str
    kind: str
    html: bool
    files: dict[str, TrueFile] = field(default_factory=dict)
    #: Every set of file names that its page ever offered.
    listings: list[frozenset[str]] = field(default_factory=list)
    #: Files that the page does not list yet.
    coming: list[TrueFile] = field(default_factory=list)

    def list_now(self) -> None:
        """Remember what its page offers from now on."""
        self.listings.append(frozenset(name for name, file in self.files.items() if file.offered))


_YANKED: tuple[bool | str, ...] = (False, False, True, "broken")
#: What pages state of files; each project takes the next ones.
_TRAITS: tuple[tuple[str | None, bool, str | None], ...] = (
    ("sha256", True, "digest"),
    ("sha256", False, None),
    (None, False, None),
    ("sha256", True, "absent"),
    ("md5", True, "bare"),
    (None, True, "bare"),
    ("sha512", False, "bare"),
    ("sha256", False, "digest"),
)
#: Kinds of projects: files stay, get new bytes under the same URL, get other digests, become more; a page is away at times.
_KINDS = ("plain", "replaced", "plain", "swapped", "growing", "plain", "vanishing", "replaced")


class World:
    """All projects, made from *seed*, and served by *upstreams*, whose ``content`` becomes one and the same."""

    def __init__(self, seed: int, projects: int, upstreams: list[FakeUpstream], largest: int, wide: int) -> None:
        self._rng = seeded(f"world {seed}")
        self._upstream = upstreams[0]
        self.content: Content = upstreams[0].content
        self.content.relative = True
        self.content.max_age = 1
        for each in upstreams:
            each.content = self.content
        self.projects: dict[str, TrueProject] = {}
        self.by_path: dict[str, TrueFile] = {}
        #: sha256 under which a file was seen to be in the store, by project and file name: nothing else may be served again.
        self.settled: dict[tuple[str, str], str] = {}
        #: Whether what the proxy commits now can be expected to be remembered.
        self.sound = True
        #: How often each project was purged: what was under way meanwhile settles nothing.
        self.purges: dict[str, int] = {}
        #: What upstream has said that it does not have, by subject.
        self.denied: set[str] = set()
        #: The round in which upstream last answered 403 for a file or a page: that is passed on.
        self.forbidden: dict[str, int] = {}
        self._made = 0
        self._wide = wide
        for number in range(projects):
            self._make(number, largest)

    @property
    def files(self) -> list[TrueFile]:
        return [file for project in self.projects.values() for file in project.files.values()]

    # -- making ---------------------------------------------------------------------------------------------------------------

    def _make(self, number: int, largest: int) -> None:
        kind = _KINDS[number % len(_KINDS)]
        project = TrueProject(f"p{number}", kind, html=number % 3 == 1)
        self.projects[project.name] = project
        count = self._wide if number == 2 else self._rng.randrange(2, 5)
        for each in range(count):
            file = self._file(project, each, 0 if number == 2 else largest)
            if kind == "growing" and each:
                project.coming.append(file)
            else:
                self._list(project, file)
        if number == 0:
            bogus = self._file(project, 90, 0, trait=("sha256", False, None))
            bogus.offered = False
            self._list(project, bogus)
        if number == 5:
            self._list(project, self._file(project, 91, 3_000, local="+" + "a" * 180))
        project.list_now()

    def _file(
        self,
        project: TrueProject,
        number: int,
        largest: int,
        trait: tuple[str | None, bool, str | None] | None = None,
        local: str = "",
    ) -> TrueFile:
        if trait is None:
            trait = _TRAITS[(len(self.by_path) + number) % len(_TRAITS)]
        if project.kind == "replaced":
            trait = (None, *trait[1:])
        elif project.kind == "swapped":
            trait = ("sha256", *trait[1:])
        size = self._rng.choice([each for each in _SIZES if each <= largest])
        made = self._distribution(project.name, f"{number}.0{local}", size, sort=number % 4)
        algorithm, sized, sidecar = trait
        is_wheel = made.filename.endswith(".whl")
        if sidecar == "digest" and algorithm is None:
            sidecar = "bare"
        return TrueFile(
            project.name,
            made.filename,
            algorithm,
            sized and not project.html,
            sidecar if is_wheel else None,
            [Version(made.data, made.metadata if is_wheel else None)],
            yanked=self._rng.choice(_YANKED),
            requires_python=self._rng.choice([None, ">=3.8"]),
        )

    def _distribution(self, name: str, version: str, size: int, sort: int) -> Distribution:
        """Bytes that were never made before."""
        self._made += 1
        if sort == 1:
            return sdist(name, version, size=size, seed=self._made)
        made = wheel(name, version, size=size, seed=self._made, description=f"Number {self._made}.")
        if sort == 2 and "+" not in version:
            return Distribution(name, f"{name}-{version}.zip", made.data, made.metadata)
        return made

    def _list(self, project: TrueProject, file: TrueFile) -> None:
        """Put the latest version of *file* on its page."""
        project.files[file.filename] = file
        version = file.latest
        entry: dict[str, Any] = {
            "hashes": {file.algorithm: version.stated(file.algorithm)} if file.algorithm else {},
            "size": len(version.data) if file.sized else None,
            "yanked": file.yanked,
            "requires-python": file.requires_python,
        }
        if not file.offered:
            entry["hashes"] = {"sha256": version.sha256[:40]}
        if version.metadata is not None and file.sidecar is not None:
            stated = {"sha256": hashlib.sha256(version.metadata).hexdigest()}
            entry["core-metadata"] = stated if file.sidecar == "digest" else True
        there = version.metadata if file.sidecar in ("digest", "bare") else None
        self._upstream.add_file(project.name, file.filename, version.data, metadata=there, entry=entry)
        listed = self.content.project(project.name).files[file.filename]["url"]
        self._keep(file, version, listed.removeprefix("../.."))

    def _keep(self, file: TrueFile, version: Version, quoted: str) -> None:
        path = next(each for each in self.content.paths if quote(each) == quoted)
        file.paths[version.sha256] = path
        self.by_path[path] = self.by_path[f"{path}.metadata"] = file

    # -- changing, as an index does -------------------------------------------------------------------------------------------

    def change(self, rng: random.Random, now: int) -> str | None:
        """Change one thing in the round *now*; what was changed."""
        project = rng.choice([each for each in self.projects.values() if each.kind in ("replaced", "swapped", "growing")])
        if project.kind == "growing":
            if not project.coming:
                return None
            file = project.coming.pop(0)
            file.since = now
            self._list(project, file)
            project.list_now()
            return f"{file.subject} is new"
        file = rng.choice(list(project.files.values()))
        sort = 1 if file.filename.endswith(".tar.gz") else 2 if file.filename.endswith(".zip") else 0
        made = self._distribution(
            project.name,
            file.filename.split("-")[1].removesuffix(".tar.gz").removesuffix(".zip"),
            rng.choice([each for each in _SIZES if each <= 200_000]),
            sort,
        )
        version = Version(made.data, made.metadata if file.is_wheel else None)
        file.versions.append(version)
        if project.kind == "swapped":
            self._list(project, file)
            return f"{file.subject} is now {version.sha256[:8]} under another digest"
        path = next(iter(file.paths.values()))
        self.content.keep(path, version.data, version.metadata if file.sidecar == "bare" else None)
        file.paths[version.sha256] = path
        entry = self.content.project(project.name).files[file.filename]
        if "size" in entry:
            entry["size"] = len(version.data)
        self.content.project(project.name).serial += 1
        return f"{file.subject} is now {version.sha256[:8]} under the same URL"

    # -- what was seen --------------------------------------------------------------------------------------------------------

    def settle(self, file: TrueFile, version: Version, purges: int) -> None:
        """*version* was served out of the store, to a request that began when its project had been purged so often."""
        if self.sound and self.purges.get(file.project, 0) == purges:
            self.settled.setdefault((file.project, file.filename), version.sha256)

    def unsettle(self, project: str) -> None:
        """A purge of *project* has begun, or has ended."""
        self.purges[project] = self.purges.get(project, 0) + 1
        for key in [each for each in self.settled if each[0] == project]:
            del self.settled[key]

    def forget_all(self) -> None:
        """The data directory is another one."""
        for project in self.projects:
            self.unsettle(project)

    def project_of(self, name: str) -> TrueProject | None:
        return self.projects.get(normalize(name))
