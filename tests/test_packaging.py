"""The project as others get it: every way of installing it gives ``twistd pypiproxy`` and ``pypiproxy`` in any directory.

Nothing here asks a package index: builds run without isolation, and the scratch environments see the dependencies of the one
that the tests run in.
"""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

import proxy

ROOT = Path(__file__).parent.parent
SITE = sysconfig.get_path("purelib")
OFFLINE = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")


def packages() -> set[str]:
    """The packages setup.cfg lists."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return set(parser["options"]["packages"].split())


def execute(*command: str | Path, cwd: Path) -> str:
    """What *command* prints, run without anything of this process's Python environment."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    ended = subprocess.run([*map(str, command)], cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is in the repository, so that building leaves nothing behind there."""
    copy = tmp_path_factory.mktemp("source") / "pypiproxy"
    for name in ("proxy", "twisted", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def dist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    offline = ("--quiet", "--offline", "--no-config", "--no-cache", "--no-build-isolation", "--python", sys.executable)
    execute(uv.find_uv_bin(), "build", *offline, "--out-dir", out, source, cwd=out)
    return out


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment that has the dependencies, and not yet the project."""
    place = tmp_path / "env"
    # Links, for a copied interpreter does not find its shared library; pip comes with the dependencies.
    venv.create(place, symlinks=True, with_pip=False)
    inner = place / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # site.addsitedir would read the .pth files there too, this project's own editable install among them.
    (inner / "dependencies.pth").write_text(SITE + "\n")
    return place


#: Prints where the package is, and what ``twistd`` prints twice.
HELP = """
import sys
from twisted.scripts.twistd import run
import proxy
print(proxy.__file__)
for arguments in (["--help"], ["-n", "pypiproxy", "--help"]):
    print("-- twistd", *arguments)
    sys.argv = ["twistd", *arguments]
    try:
        run()
    except SystemExit as ended:
        assert not ended.code, ended
"""


def check(environment: Path, elsewhere: Path) -> None:
    """The commands of *environment* work in a directory that has nothing to do with the project."""
    where, of_twistd, of_plugin = execute(environment / "bin" / "python", "-c", HELP, cwd=elsewhere).split("-- twistd ")
    assert Path(where.strip()).parent.parent != ROOT
    assert "A caching pull-through proxy" in of_twistd
    assert "--data-dir" in of_plugin
    assert execute(environment / "bin" / "pypiproxy", "--version", cwd=elsewhere) == f"pypiproxy {proxy.__version__}\n"


def with_pip(python: Path) -> list[str | Path]:
    # Where the tests run from an editable install, pip sees that one among the dependencies.
    return [python, "-m", "pip", "install", *OFFLINE, "--ignore-installed", "--disable-pip-version-check"]


def with_uv(python: Path) -> list[str | Path]:
    return [uv.find_uv_bin(), "pip", "install", "--python", python, *OFFLINE, "--no-config", "--no-cache"]


@pytest.mark.parametrize(
    ("tool", "what"),
    [
        pytest.param(with_uv, lambda source, dist: [source], id="uv-a directory"),
        pytest.param(with_pip, lambda source, dist: ["--editable", source], id="pip-an editable directory"),
        pytest.param(with_pip, lambda source, dist: list(dist.glob("*.whl")), id="pip-a wheel"),
        pytest.param(with_uv, lambda source, dist: list(dist.glob("*.tar.gz")), id="uv-an sdist"),
    ],
)
def test_it_works_installed_from(
    tool: Callable[[Path], list[str | Path]],
    what: Callable[[Path, Path], list[str | Path]],
    source: Path,
    dist: Path,
    environment: Path,
    tmp_path: Path,
) -> None:
    execute(*tool(environment / "bin" / "python"), *what(source, dist), cwd=tmp_path)
    check(environment, tmp_path)


def test_every_package_is_listed() -> None:
    found = {str(each.parent.relative_to(ROOT)).replace("/", ".") for each in (ROOT / "proxy").rglob("__init__.py")}
    assert packages() == found | {"twisted.plugins"}


def test_twisted_is_never_a_package_of_ours() -> None:
    """An ``__init__.py`` there would hide Twisted itself."""
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_pyproject_holds_the_build_system_alone() -> None:
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"build-system"}


def test_the_wheel_holds_the_code_and_the_plugin_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(f"pypiproxy-{proxy.__version__}.dist-info/METADATA"))
    assert {name.split("/")[0] for name in names} == {"proxy", "twisted", f"pypiproxy-{proxy.__version__}.dist-info"}
    assert [name for name in names if name.startswith("twisted/")] == ["twisted/plugins/pypiproxy_plugin.py"]
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Python"]) == ("pypiproxy", proxy.__version__, ">=3.11")
    assert "proxy/py.typed" in names  # PEP 561


def test_the_wheel_states_its_licence_and_where_to_report(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    folder = f"pypiproxy-{proxy.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        licence = archive.read(f"{folder}/licenses/LICENSE").decode()
    assert licence == (ROOT / "LICENSE").read_text("utf-8")
    assert "MIT" in (metadata["License-Expression"], metadata["License"])  # setuptools names the field one way or the other
    assert metadata["Author-email"]
    assert {each.partition(",")[0] for each in metadata.get_all("Project-URL", [])} >= {"Source", "Changelog", "Issues"}


def test_the_sdist_holds_the_files_for_a_build_host(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {Path(name).relative_to(f"pypiproxy-{proxy.__version__}") for name in archive.getnames()}
    shipped = {path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert {Path("conf/pypiproxy.toml"), Path("conf/nginx/pypiproxy.conf")} < shipped
    assert shipped <= held
