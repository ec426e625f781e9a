"""Who reaches whom, on a cluster whose network enforces policies; skipped where it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from installation import Installation
from on_cluster import Namespace, run

STRANGER = Namespace("default")
POD = "forge-e2e-stranger"
TRY = """
import socket, sys

for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        print(target)
    except OSError:
        pass
"""
DATABASE, STORE, API = "dev-postgres:5432", "dev-s3:7070", "kubernetes.default:443"
WEBSERVER = "forge-dagster-webserver:3000"
SERVER = "customers:4000"
EVERYTHING = (DATABASE, STORE, API, WEBSERVER, SERVER)
MAY = {
    "deployment/orders-orders": {DATABASE, STORE},
    "deployment/dagster-daemon": {*EVERYTHING},
    "deployment/forge-dagster-webserver": {*EVERYTHING},
    "deployment/forge-registrar": {*EVERYTHING},
}


def reached(namespace: Namespace, pod: str, *targets: str) -> set[str]:
    """Those of some addresses that a pod can connect to."""
    return set(namespace.kubectl("exec", pod, "--", "python", "-c", TRY, *targets).split())


@pytest.fixture(scope="module")
def stranger(installation: Installation) -> Iterator[str]:
    """A pod of somebody else in another namespace."""
    image = f"--image={installation.platform_image}"
    STRANGER.kubectl("run", POD, image, "--restart=Never", "--", "sleep", "300")
    STRANGER.kubectl("wait", f"pod/{POD}", "--for=condition=Ready", "--timeout=60s")
    yield POD
    run("kubectl", "-n", STRANGER.name, "delete", "pod", POD, "--wait=false")


@pytest.fixture(scope="module", autouse=True)
def _enforced(namespace: Namespace, stranger: str) -> None:
    if reached(STRANGER, stranger, f"orders.{namespace.name}:4000"):
        pytest.skip("This cluster's network does not enforce policies.")


@pytest.mark.parametrize("pod", MAY)
def test_a_pod_reaches_what_it_must_and_nothing_else(namespace: Namespace, pod: str) -> None:
    assert reached(namespace, pod, *EVERYTHING) == MAY[pod]


def test_a_stranger_reaches_the_ui_and_nothing_else(namespace: Namespace, stranger: str) -> None:
    targets = [target.replace(":", f".{namespace.name}:") for target in (WEBSERVER, SERVER)]
    assert reached(STRANGER, stranger, *targets) == {targets[0]}
