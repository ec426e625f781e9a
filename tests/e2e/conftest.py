"""A platform on a real cluster, installed from nothing as its users do it.

``FORGE_NAMESPACE`` names one that is there already, which saves two minutes while tests are
written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clock_location import deploy_clock
from dagster_client import Dagster
from installation import Installation
from kubernetes import config as kubernetes_config
from on_cluster import ROOT, Namespace, run
from running_demo import LOCATIONS
from toy_location import MakeToy, ToyLocation

from forge_demo.dagster_api import DagsterApi

NAMESPACE = "forge-e2e"
FIGURES = pytest.StashKey[list[str]]()
PROGRAMS = ("kubectl", "helm", "docker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A step of an installation on a busy cluster takes longer than any other test."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def installation() -> Installation:
    """The platform and the three locations, installed by ``make up``."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    unset = [name for name in ("KUBECONFIG", "REGISTRY") if not os.environ.get(name)]
    if missing or unset:
        pytest.exit(f"A cluster is needed: install {missing}, set {unset}.", returncode=2)
    existing = os.environ.get("FORGE_NAMESPACE")
    kubernetes_config.load_kube_config()
    namespace = Namespace(existing or NAMESPACE)
    images = f"{os.environ['REGISTRY']}/open-forge"
    if not existing:
        run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
        os.environ["FORGE_NAMESPACE"] = NAMESPACE
        run("make", "up", f"NAMESPACE={NAMESPACE}")
    return Installation(namespace, images)


@pytest.fixture(scope="session")
def namespace(installation: Installation) -> Namespace:
    """The namespace of the platform."""
    return installation.namespace


@pytest.fixture(scope="session")
def webserver(namespace: Namespace) -> Iterator[str]:
    """URL of the UI, through a port-forward."""
    with namespace.forward("service/forge-dagster-webserver", 3000) as url:
        yield url


@pytest.fixture(scope="session")
def ui(webserver: str) -> Dagster:
    """What the UI asks the webserver."""
    return Dagster(webserver)


@pytest.fixture(scope="session")
def api(webserver: str) -> Iterator[DagsterApi]:
    """What the demo asks the webserver."""
    api = DagsterApi(webserver)
    yield api
    api.close()


@pytest.fixture(scope="session")
def locations() -> list[str]:
    """The code locations of this repository."""
    return LOCATIONS


@pytest.fixture(scope="session")
def clock(installation: Installation) -> Iterator[ToyLocation]:
    """A location with a schedule that is due every minute."""
    toy = deploy_clock(installation)
    yield toy
    toy.remove()


@pytest.fixture(scope="module")
def make_toy(installation: Installation) -> Iterator[MakeToy]:
    """Makes a toy location of a name, which is removed when the module's tests are over."""
    made: list[ToyLocation] = []

    def make(location: str) -> ToyLocation:
        images = (installation.platform_image, installation.images)
        made.append(ToyLocation(location, installation.namespace, *images))
        return made[-1]

    yield make
    for toy in made:
        toy.remove()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This repository as it is now, without what is not part of it."""
    folder = tmp_path / "checkout"
    for name in run("git", "ls-files").splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for chart in ("platform", "code-location"):
        shutil.copytree(ROOT / "helm" / chart / "charts", folder / "helm" / chart / "charts")
    return folder


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes what was measured, to be said at the end of the tests."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says what was measured."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("measured")
        for text in figures:
            terminalreporter.write_line(text)
