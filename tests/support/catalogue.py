"""Large contents for a fake upstream: pages of many files, and sixty projects that require each other.

The names and requirements of these sixty follow real ones: what a web and data service installs.  Every release is
``major.minor.0``; its lower bounds grow with it, so that no two releases have quite the same METADATA, and the AWS libraries
hold each other so tightly that an installer has to try some releases before it finds those that go together.
"""

from __future__ import annotations

import random

from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import Distribution, seeded, wheel

#: Each project's latest major, the number of wheels for other platforms that a release has beside the one for all, and its
#: requirements.
_PROJECTS = """
django            5  0 asgiref sqlparse
asgiref           3  0 typing-extensions
sqlparse          1  0
djangorestframework 3 0 django
django-cors-headers 4 0 django asgiref
django-storages   1  0 django boto3
celery            5  0 billiard kombu vine click click-didyoumean click-repl python-dateutil
kombu             5  0 amqp vine tzdata packaging
amqp              5  0 vine
vine              5  0
billiard          4  0
click             8  0
click-didyoumean  1  0 click
click-repl        1  0 click prompt-toolkit
prompt-toolkit    3  0 wcwidth
wcwidth           1  0
redis             5  0 async-timeout
async-timeout     4  0
requests          2  0 charset-normalizer idna urllib3 certifi
charset-normalizer 3 18
idna              3  0
urllib3           2  0
certifi           24 0
fastapi           1  0 starlette pydantic typing-extensions
starlette         1  0 anyio typing-extensions
anyio             4  0 idna sniffio typing-extensions
sniffio           1  0
pydantic          2  0 annotated-types pydantic-core typing-extensions
pydantic-core     2  24 typing-extensions
annotated-types   1  0
typing-extensions 4  0
uvicorn           1  0 click h11 httptools
h11               1  0
httptools         1  16
httpx             1  0 anyio certifi httpcore idna
httpcore          1  0 certifi h11
sqlalchemy        2  20 greenlet typing-extensions
greenlet          3  20
alembic           1  0 sqlalchemy mako typing-extensions
mako              1  0 markupsafe
markupsafe        3  20
jinja2            3  0 markupsafe
psycopg           3  0 typing-extensions tzdata
tzdata            24 0
numpy             2  24
pandas            2  20 numpy python-dateutil pytz tzdata
python-dateutil   2  0 six
pytz              24 0
six               1  0
scipy             1  20 numpy
scikit-learn      1  18 numpy scipy joblib threadpoolctl
joblib            1  0
threadpoolctl     3  0
packaging         24 0
boto3             1  0 botocore jmespath s3transfer
botocore          1  0 jmespath python-dateutil urllib3
s3transfer        1  0 botocore
jmespath          1  0
aiobotocore       2  0 botocore wrapt jmespath python-dateutil
wrapt             1  16
"""

#: What names and descriptions are made of.
_WORDS = (
    "request",
    "async",
    "returns",
    "release",
    "support",
    "added",
    "fixed",
    "configuration",
    "data",
    "py",
    "cloud",
    "tools",
)

#: What wheels for others are tagged; none of these is the platform of whoever runs this.
_PLATFORMS = ("win32", "win_amd64", "macosx_10_9_x86_64", "macosx_11_0_arm64")

#: What a service would ask for.
REQUIREMENTS = (
    *("django>=4", "djangorestframework", "django-cors-headers", "django-storages", "celery>=5", "redis", "requests>=2.3"),
    *("fastapi", "uvicorn", "httpx", "alembic", "psycopg", "jinja2", "pandas", "scikit-learn", "boto3", "aiobotocore"),
)

#: What one data service installs, and the size of each wheel in kB: 44 MB in all, as of late 2026.
_INSTALL = """
numpy 16600  pandas 12400  lxml 5200  cryptography 4200  pydantic-core 2000  pyyaml 767  greenlet 610  pytz 508
pydantic 444  uvloop 390  tzdata 347  python-dateutil 230  certifi 163  charset-normalizer 148  urllib3 129  click 103
anyio 100  fastapi 95  httpx 74  starlette 72  idna 70  requests 65  h11 37  six 11  sniffio 10
"""

#: aiobotocore's every release fits one of botocore that is some releases back, boto3's only the one of its own number.
_BEHIND = 6
#: Bytes of description in METADATA, as long as a README.
_DESCRIPTION = 6_000

_SIZED = _INSTALL.split()
#: What is installed, under names of its own, and the bytes of each.
INSTALL = {f"installed-{name}": int(size) * 1000 for name, size in zip(_SIZED[::2], _SIZED[1::2], strict=True)}


def fill_page(upstream: FakeUpstream, project: str, files: int) -> None:
    """List *files* files that are never fetched (about 530 bytes each in JSON), as a project with many releases does."""
    rng = seeded(project)
    for number in range(files):
        _list(upstream, project, f"{project.replace('-', '_')}-1.{number}.0-py3-none-any.whl", rng, number)


def fill_install(upstream: FakeUpstream, files: int) -> None:
    """Add the projects of :data:`INSTALL`, with *files* other files on each page."""
    for project in INSTALL:
        fill_page(upstream, project, files)
        made = installed(project)
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata)


def installed(project: str) -> Distribution:
    """The release of one of :data:`INSTALL` that is installed: the newest."""
    return wheel(project, "2.0", size=INSTALL[project], seed=len(project), description="Words. " * 500)


def list_names(upstream: FakeUpstream, projects: int) -> None:
    """Have the root page list *projects* made-up names, about 50 bytes each, in JSON only; 0: what is there, again."""
    if not projects:
        upstream.content.paths.pop("/simple/", None)
        return
    rng = seeded(projects)
    names = (f"{rng.choice(_WORDS)}-{rng.choice(_WORDS)}-{number}" for number in range(projects))
    listed = ",".join(f'{{"_last-serial": {rng.randrange(30_000_000)}, "name": "{name}"}}' for name in names)
    document = f'{{"meta": {{"_last-serial": 30000000, "api-version": "1.4"}}, "projects": [{listed}]}}'
    upstream.add_path("/simple/", document.encode(), JSON_TYPE, Cache_Control="max-age=600")


def _list(upstream: FakeUpstream, project: str, filename: str, rng: random.Random, number: int = 0) -> None:
    """List a file that cannot be fetched; *number* is the microsecond of its upload."""
    sha256, metadata = rng.randbytes(32).hex(), rng.randbytes(32).hex()
    upstream.project(project).files[filename] = {
        "filename": filename,
        "url": f"{upstream.base}/packages/{sha256[:2]}/{sha256[2:4]}/{sha256[4:]}/{filename}",
        "hashes": {"sha256": sha256},
        "requires-python": ">=3.8",
        "size": rng.randrange(10_000, 20_000_000),
        "upload-time": f"2024-01-02T03:04:05.{number:06}Z",
        "yanked": False,
        "core-metadata": {"sha256": metadata} if filename.endswith(".whl") else False,
        "provenance": None,
    }


def fill_landscape(upstream: FakeUpstream, releases: int) -> None:
    """List the sixty projects with *releases* releases each.  Of these the wheel for all platforms can be fetched."""
    majors = {line.split()[0]: int(line.split()[1]) for line in _PROJECTS.strip().splitlines()}
    for line in _PROJECTS.strip().splitlines():
        project, _, platforms, *requires = line.split()
        for number in range(releases):
            version = _version(number, releases, majors[project])
            made = wheel(
                project,
                version,
                requires=[_requirement(project, each, number, releases, majors[each]) for each in requires],
                requires_python=">=3.8",
                description=_description(project, number),
            )
            upstream.add_file(project, made.filename, made.data, metadata=made.metadata, requires_python=">=3.8")
            rng = seeded(f"{project} {version}")
            module = made.filename.split("-")[0]
            _list(upstream, project, f"{module}-{version}.tar.gz", rng)
            for each in range(int(platforms)):
                python, platform = f"cp3{6 + each // len(_PLATFORMS)}", _PLATFORMS[each % len(_PLATFORMS)]
                _list(upstream, project, f"{module}-{version}-{python}-{python}-{platform}.whl", rng)


def _version(number: int, releases: int, latest: int) -> str:
    """The *number*-th of *releases* versions: the second half of them has the major *latest*, the first the one before."""
    half = releases // 2
    return f"{latest - 1}.{number}.0" if number < half else f"{latest}.{number - half}.0"


def _requirement(project: str, other: str, number: int, releases: int, latest: int) -> str:
    if other == "botocore" and project == "aiobotocore":
        return f"botocore=={_version(max(0, number - _BEHIND), releases, latest)}"
    if other == "botocore" and project == "boto3":
        return f"botocore=={_version(number, releases, latest)}"
    oldest = _version(max(0, number // 2 - 2), releases, latest)
    return f"{other}<{latest + 1},>={oldest}"


def _description(project: str, number: int) -> str:
    rng = seeded(f"{project} {number}")
    text = ""
    while len(text) < _DESCRIPTION:
        text += " ".join(rng.choices(_WORDS, k=12)) + ".\n"
    return text
