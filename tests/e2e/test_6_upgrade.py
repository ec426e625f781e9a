"""An upgrade from the previous commit keeps everything running, and what is of both serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from dagster_client import Dagster
from installation import Installation
from on_cluster import CONTROL_PLANE, ROOT, Namespace, run, start_times, wait_until
from toy_location import ToyLocation, work

from forge_platform.registrar.registrar import AGAIN

NAMESPACE = "forge-e2e-upgrade"
PARTS = ("dagsterWebserver", "dagsterDaemon")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commit before, its charts beside the archives that this one has."""
    command = ("git", "archive", "HEAD~1")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode and "CI" not in os.environ:
        pytest.skip("There is no commit before this one in this clone.")
    assert found.returncode == 0, found.stderr.decode()
    folder = tmp_path_factory.mktemp("previous")
    unpack = ("tar", "-x", "-C", str(folder))
    subprocess.run(unpack, input=found.stdout, check=True)
    for chart in ("platform", "code-location"):
        shutil.copytree(ROOT / "helm" / chart / "charts", folder / "helm" / chart / "charts")
    return folder


@pytest.fixture(scope="module")
def previous_image(installation: Installation, previous: Path) -> str:
    """The control plane's image of the commit before."""
    tag = f"previous-{time.time_ns()}"
    run("make", "image-platform", f"TAG={tag}", cwd=previous)
    return f"{installation.images}/platform:{tag}"


@pytest.fixture
def other() -> Iterator[Namespace]:
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    run("kubectl", "create", "namespace", NAMESPACE)
    yield Namespace(NAMESPACE)
    run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")


def install(charts: Path, image: str, demo: str, namespace: Namespace) -> None:
    given = {**{f"dagster.{part}.image": image for part in PARTS}, "dev.image": demo}
    options = [
        f"{key}.repository={value.rpartition(':')[0]},{key}.tag={value.rpartition(':')[2]}"
        for key, value in given.items()
    ]
    run(
        *("helm", "upgrade", "--install", "forge", str(charts / "platform")),
        *("--namespace", namespace.name, "--wait", "--timeout", "4m"),
        *("--values", str(charts / "platform/values-dev.yaml")),
        *("--set", ",".join(options)),
    )


def serving(namespace: Namespace, location: str) -> Sequence[object]:
    """The code server's processes: which, and since when."""
    pods = namespace.get("pod", f"component=user-deployments,deployment={location}")
    return [pod["status"]["containerStatuses"][0]["state"] for pod in pods]


def control_plane(namespace: Namespace) -> Mapping[str, str]:
    """The image of each Deployment of the control plane, that of its pods when they are ready."""
    return {
        found["metadata"]["name"]: found["spec"]["template"]["spec"]["containers"][0]["image"]
        for selector in CONTROL_PLANE
        for found in namespace.get("deployment", selector)
    }


def test_an_upgrade_of_charts_and_image_keeps_what_runs(
    installation: Installation, previous: Path, previous_image: str, other: Namespace
) -> None:
    demo = installation.demo_image
    install(previous / "helm", previous_image, demo, other)
    assert set(control_plane(other).values()) == {previous_image}
    toy = ToyLocation("toy", other, installation.platform_image, installation.images)
    toy.build("v1")
    toy.deploy("v1", "--wait", chart=previous / "helm/code-location")
    with other.forward("service/forge-dagster-webserver", 3000) as url:
        ui = Dagster(url)
        wait_until(lambda: ui.assets("toy"), 60, "toy in the UI")
        run_id = ui.launch("toy", "work_job", work(seconds=40))
        wait_until(lambda: ui.run(run_id).status == "STARTED", 60, "the run's start")
    served, before = serving(other, "toy"), start_times(other)
    install(ROOT / "helm", installation.platform_image, demo, other)
    assert set(control_plane(other).values()) == {installation.platform_image}
    assert not start_times(other).keys() & before.keys()
    assert serving(other, "toy") == served
    toy.deploy("v1", "--wait", validation={"enabled": True})
    with other.forward("service/forge-dagster-webserver", 3000) as url:
        ui = Dagster(url)
        wait_until(lambda: ui.assets("toy") == {"toy_v1"}, 60, "toy in the UI")
        ended = ui.wait_for_end(run_id, 90)
        assert ended.status == "SUCCESS", ended.text
        assert list(ended.group) in ([], [run_id])
        assert ui.wait_for_end(ui.launch("toy", "work_job"), 90).status == "SUCCESS"


def test_a_location_with_the_library_of_the_previous_commit_serves_beside_the_others(
    installation: Installation, previous: Path, ui: Dagster, namespace: Namespace, tmp_path: Path
) -> None:
    revision, tag = installation.deployed_revision("ingestion"), f"previous-{time.time_ns()}"
    run("make", "image", "LOCATION=ingestion", f"TAG={tag}", cwd=previous)
    image = f"{installation.images}/ingestion:{tag}"
    installation.release("ingestion", tag, tmp_path)
    try:
        wait_until(lambda: ui.image("ingestion") == image, 30, "its image in the UI")
        # Until the registrar's second look, a part of what is loaded may be of the old image.
        time.sleep(AGAIN[1] + 1)
        assert "raw_orders" in ui.assets("ingestion")
        done = ui.wait_for_end(ui.launch("ingestion", "ingestion_job"), 180)
        assert done.status == "SUCCESS", done.text
        assert done.tags["dagster/image"] == image
    finally:
        run("helm", "rollback", "ingestion", revision, "--wait", "--namespace", namespace.name)
