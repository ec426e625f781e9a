"""What is there after ``make up``, and that it is as safe as Kubernetes can check."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from changed_image import layers
from dagster_client import Dagster
from installation import Installation
from on_cluster import ROOT, Namespace, run, wait_until

from forge_platform.helm_values import main as forge_values

FOREIGN = ("ingestion", "customers", "orders")
FAR_FROM_IT = "platform/src/forge_platform/extraction.py"
IMAGE_PATH = "{.spec.template.spec.containers[0].image}"
CONTROL_PLANE = ("component=dagster-webserver", "component=dagster-daemon")
TAGS = "dagster.dagsterWebserver.image.tag=v1,dagster.dagsterDaemon.image.tag=v1"


def deployment_of(name: str) -> str:
    return f"{name}-{name}" if name in FOREIGN else f"forge-{name}"


def containers(namespace: Namespace) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    for pod in namespace.get("pod"):
        for container in pod["spec"]["containers"]:
            yield pod["metadata"]["name"], pod["spec"], container


def test_every_location_is_loaded(ui: Dagster, locations: Sequence[str]) -> None:
    wait_until(lambda: set(ui.locations()) >= set(locations), 30, "the locations in the UI")
    for location in locations:
        assert ui.assets(location), location


def test_the_namespace_enforces_the_restricted_standard(namespace: Namespace) -> None:
    found = json.loads(run("kubectl", "get", "namespace", namespace.name, "-o", "json"))
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_container_is_locked_down_and_limited(namespace: Namespace) -> None:
    for pod, spec, container in containers(namespace):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"], pod
        assert not security["allowPrivilegeEscalation"], pod
        assert security["capabilities"] == {"drop": ["ALL"]}, pod
        assert {**spec["securityContext"], **security}["runAsUser"] == 10_001, pod
        assert container["resources"]["requests"]["cpu"], pod
        assert container["resources"]["limits"]["memory"], pod


@pytest.mark.parametrize("location", FOREIGN)
def test_an_image_holds_one_location_and_no_other(namespace: Namespace, location: str) -> None:
    others = [name for name in FOREIGN if name != location]
    code = (
        "from importlib.util import find_spec\n"
        f"assert find_spec({location!r})\n"
        f"print([name for name in {others} if find_spec(name)])"
    )
    selected = f"deployment/{location}-{location}"
    assert namespace.kubectl("exec", selected, "--", "python", "-c", code).strip() == "[]"


FIND_LEFTOVERS = """
for found in gcc cc g++ clang uv; do command -v $found; done
find / -xdev -path '*/.cache/*' -type f 2>/dev/null
true
"""


@pytest.mark.parametrize("name", [*FOREIGN, "registrar"])
def test_an_image_holds_what_it_runs_and_says_what_it_is(namespace: Namespace, name: str) -> None:
    selected = f"deployment/{deployment_of(name)}"
    image = namespace.kubectl("get", selected, "--output", f"jsonpath={IMAGE_PATH}")
    config = json.loads(run("docker", "image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    labels = config["Labels"]
    assert labels.get("open-forge.location") == (name if name in FOREIGN else None)
    assert labels["org.opencontainers.image.version"] == image.rpartition(":")[2]
    assert labels["org.opencontainers.image.revision"]
    assert namespace.kubectl("exec", selected, "--", "sh", "-c", FIND_LEFTOVERS) == ""


UNCOMPILED = """
from importlib.util import cache_from_source
from pathlib import Path

folders = [Path("/app/code"), *Path("/app/venv/lib/python3.11/site-packages").glob("dagster*")]
found = [file for folder in folders for file in folder.rglob("*.py")]
print(len(found), [str(file) for file in found if not Path(cache_from_source(file)).exists()])
"""


@pytest.mark.parametrize("name", [*FOREIGN, "registrar"])
def test_an_image_comes_with_its_byte_code(namespace: Namespace, name: str) -> None:
    selected = f"deployment/{deployment_of(name)}"
    count, _, without = namespace.kubectl(
        "exec", selected, "--", "python", "-c", UNCOMPILED
    ).partition(" ")
    assert int(count) > 1_000
    assert without.strip() == "[]"


MEMORY = "cat /sys/fs/cgroup/memory.stat /sys/fs/cgroup/memory/memory.stat 2>/dev/null; true"


@pytest.mark.parametrize("location", FOREIGN)
def test_what_a_code_server_costs(
    namespace: Namespace, location: str, figure: Callable[[str], None]
) -> None:
    (pod,) = namespace.get("pod", f"component=user-deployments,deployment={location}")
    (container,), (status,) = pod["spec"]["containers"], pod["status"]["containerStatuses"]
    bytes_ = int(run("docker", "image", "inspect", "--format", "{{.Size}}", container["image"]))
    started = datetime.fromisoformat(status["state"]["running"]["startedAt"])
    (ready,) = [found for found in pod["status"]["conditions"] if found["type"] == "Ready"]
    seconds = (datetime.fromisoformat(ready["lastTransitionTime"]) - started).total_seconds()
    lines = namespace.kubectl("exec", f"deployment/{location}-{location}", "--", "sh", "-c", MEMORY)
    memory = dict(line.split() for line in lines.splitlines())
    held = int(memory.get("anon") or memory["total_rss"])
    figure(
        f"{location}: image {bytes_ / 1e6:,.0f} MB, ready {seconds:.0f} s after its process began, "
        f"{held / 1e6:.0f} MB held when idle"
    )
    limit = container["resources"]["limits"]["memory"]
    assert limit == "768Mi"
    assert held < 768 * 2**20 / 2


def test_a_change_of_code_pushes_little(
    installation: Installation, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Once with a line more in the location, once with one more in the library."""
    run("sh", "-c", f"git ls-files -z | xargs -0 cp --parents --target-directory {tmp_path}")
    known = layers(installation.image("orders"))
    for file in ("code_locations/orders/src/orders/definitions.py", FAR_FROM_IT):
        with (tmp_path / file).open("a") as code:
            code.write("\n# one line more\n")
        tag = f"little-{time.time_ns()}"
        run("make", "image", "LOCATION=orders", f"TAG={tag}", cwd=tmp_path)
        image = f"{installation.image('orders').rpartition(':')[0]}:{tag}"
        new = {digest: size for digest, size in layers(image).items() if digest not in known}
        figure(f"one line more in {file} pushes {sum(new.values()) / 1e6:.2f} MB")
        assert 0 < sum(new.values()) < 5_000_000


def test_run_pods_come_below_the_control_plane(namespace: Namespace) -> None:
    for selector in CONTROL_PLANE:
        for pod in namespace.get("pod", selector):
            assert pod["spec"].get("priority", 0) == 0
    found = json.loads(run("kubectl", "get", "priorityclass", "open-forge-runs", "-o", "json"))
    assert found["value"] < 0


@pytest.fixture
def empty() -> Iterator[Namespace]:
    """A namespace with nothing in it."""
    name = "forge-e2e-empty"
    run("kubectl", "delete", "namespace", name, "--ignore-not-found")
    run("kubectl", "create", "namespace", name)
    yield Namespace(name)
    run("kubectl", "delete", "namespace", name, "--wait=false")


def test_the_api_server_accepts_every_object_strictly(
    empty: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    every = "dagster.dagsterWebserver.enableReadOnly=true,dagster.ingress.enabled=true"
    values = ("--values", "helm/platform/values-dev.yaml", "--set", f"{TAGS},{every}")
    platform = template("helm/platform", *values)
    deploy = ROOT / "code_locations/orders/deploy"
    files = ["helm/code-location/values.yaml", f"{deploy}/values.yaml", f"{deploy}/demo.yaml"]
    forge_values([*files, "--repository", "orders", "--tag", "1"])
    location = template("helm/code-location", "--values", "-", text=capsys.readouterr().out)
    options = ("--dry-run=server", "--validate=strict", "--filename", "-")
    accepted = empty.kubectl("apply", *options, text=f"{platform}\n---\n{location}")
    assert len(accepted.splitlines()) > 40


def test_the_priority_class_of_a_release_that_is_gone_is_shared(
    empty: Namespace, request: pytest.FixtureRequest
) -> None:
    """It outlives its release, and Helm gives it to no other."""
    name, where = f"{empty.name}-runs", ("--namespace", empty.name)
    owner = {"meta.helm.sh/release-name": "gone", "meta.helm.sh/release-namespace": empty.name}
    helms = {"app.kubernetes.io/managed-by": "Helm"}
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": -10}
    request.addfinalizer(lambda: run("kubectl", "delete", "priorityclass", name))
    empty.apply({**kind, "metadata": {"name": name, "annotations": owner, "labels": helms}})
    launcher = "dagster.runLauncher.config.k8sRunLauncher.runK8sConfig.podSpecConfig"
    names = f"priorityClass.name={name},{launcher}.priorityClassName={name}"
    values = ("--values", "helm/platform/values-dev.yaml", "--set", f"{TAGS},{names}")
    for release, made in (("gone", True), ("another", False)):
        options = (*where, "--dry-run=server", *values)
        rendered = template("helm/platform", *options, release=release)
        assert ("kind: PriorityClass" in rendered) is made


def test_a_location_is_not_released_over_the_platform(
    namespace: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["helm/code-location/values.yaml", "code_locations/orders/deploy/values.yaml"]
    forge_values([*files, "--repository", "orders", "--tag", "1"])
    where = ("--namespace", namespace.name, "--dry-run=server", "--values", "-")
    refused = subprocess.run(
        ["helm", "template", "forge", "helm/code-location", *where],  # noqa: S607
        input=capsys.readouterr().out,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "The release forge is the platform" in refused.stderr


def template(*arguments: str, text: str | None = None, release: str = "strict") -> str:
    ingress = ("--api-versions", "networking.k8s.io/v1/Ingress")
    return run("helm", "template", release, *arguments, *ingress, text=text)
