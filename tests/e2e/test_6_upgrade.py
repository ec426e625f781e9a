"""An upgrade from the previous commit keeps everything running, and what is of both serves."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from dagster_client import Dagster
from installation import Installation
from on_cluster import ROOT, Namespace, run, wait_until
from toy_location import ToyLocation, work

from forge_platform.registrar.registrar import AGAIN

NAMESPACE = "forge-e2e-upgrade"
PARTS = ("dagsterWebserver", "dagsterDaemon")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commit before, its charts beside the archives that this one has."""
    command = ("git", "archive", "HEAD~1")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        pytest.skip("There is no commit before this one in this clone.")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    for chart in ("platform", "code-location"):
        shutil.copytree(ROOT / "helm" / chart / "charts", folder / "helm" / chart / "charts")
    return folder


@pytest.fixture
def other() -> Iterator[Namespace]:
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    run("kubectl", "create", "namespace", NAMESPACE)
    yield Namespace(NAMESPACE)
    run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")


def install(charts: Path, installation: Installation, namespace: Namespace) -> None:
    image, demo = installation.platform_image, installation.demo_image
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


def test_an_upgrade_keeps_what_runs(
    installation: Installation, previous: Path, other: Namespace
) -> None:
    install(previous / "helm", installation, other)
    toy = ToyLocation("toy", other, installation.platform_image, installation.images)
    toy.build("v1")
    toy.deploy("v1", "--wait", chart=previous / "helm/code-location")
    with other.forward("service/forge-dagster-webserver", 3000) as url:
        ui = Dagster(url)
        wait_until(lambda: ui.assets("toy"), 60, "toy in the UI")
        run_id = ui.launch("toy", "work_job", work(seconds=40))
        wait_until(lambda: ui.run(run_id).status == "STARTED", 60, "the run's start")
    served = serving(other, "toy")
    install(ROOT / "helm", installation, other)
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
