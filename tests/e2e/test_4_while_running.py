"""A location is upgraded while it works, and while the registrar cannot see it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from dagster_client import Dagster
from installation import Installation
from location_probe import probing
from on_cluster import Namespace, start_times, wait_until
from toy_location import MakeToy, ToyLocation, work

AWAY = 60
NO_RETRY = {"dagster/max_retries": "0"}
REGISTRAR = "deployment/forge-registrar"
DAEMON = "deployment/dagster-daemon"
PROXY = "e2e-api-proxy"
NETWORKING = "networking.k8s.io/v1"
API_HOST = "kubernetes.default.svc"
FORWARD = f"""
import asyncio


async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def forward(reader, writer):
    there_reader, there_writer = await asyncio.open_connection("{API_HOST}", 443)
    await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))


async def main():
    server = await asyncio.start_server(forward, "0.0.0.0", 6443)
    await server.serve_forever()


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def toy(make_toy: MakeToy, ui: Dagster) -> ToyLocation:
    found = make_toy("delta")
    for version in ("v1", "v2", "v3"):
        found.build(version)
    found.deploy("v1", "--wait")
    wait_until(lambda: ui.assets("delta") == {"delta_v1"}, 30, "delta in the UI")
    return found


def test_runs_finish_on_the_image_that_they_were_started_with(
    namespace: Namespace, ui: Dagster, toy: ToyLocation
) -> None:
    before = start_times(namespace)
    run_id = ui.launch("delta", "work_job", work(seconds=30))
    wait_until(lambda: "this is version v1" in ui.run(run_id).text, 60, "the run's work")
    with probing(ui, namespace.name, "delta", "work_job") as probe:
        toy.deploy("v2", "--wait")
        wait_until(lambda: ui.assets("delta") == {"delta_v2"}, 20, "version v2 in the UI")
        assert ui.run(run_id).status == "STARTED"
        done = ui.wait_for_end(run_id)
    assert done.status == "SUCCESS"
    assert "version v1 has held" in done.text
    assert done.tags["dagster/image"] == f"{toy.repository}:v1"
    assert not probe.unloaded
    assert not probe.unreachable
    assert "this is version v2" in ui.wait_for_end(ui.launch("delta", "work_job")).text
    assert start_times(namespace) == before


@contextmanager
def api_through_a_proxy(installation: Installation) -> Iterator[None]:
    """Has registrar and daemon reach the API server through a pod that can be taken away."""
    namespace = installation.namespace
    (registrar,) = namespace.get("deployment", "app.kubernetes.io/component=registrar")
    spec = registrar["spec"]["template"]["spec"]
    labels = {"app.kubernetes.io/component": PROXY}
    container = {
        "name": "proxy",
        "image": installation.platform_image,
        "args": ["python", "-c", FORWARD],
        "securityContext": spec["containers"][0]["securityContext"],
        "readinessProbe": {"tcpSocket": {"port": 6443}, "periodSeconds": 1},
    }
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "securityContext": spec["securityContext"]},
    }
    metadata = {"name": PROXY, "labels": labels}
    deployment = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    service = {"selector": labels, "ports": [{"port": 6443}]}
    policy = {"podSelector": {"matchLabels": labels}, "ingress": [{}], "egress": [{}]}
    namespace.apply(
        {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": metadata, "spec": policy},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    )
    namespace.kubectl("rollout", "status", f"deployment/{PROXY}", "--timeout=60s")
    (found,) = namespace.get("service", f"app.kubernetes.io/component={PROXY}")
    aliases = [{"ip": found["spec"]["clusterIP"], "hostnames": [API_HOST]}]
    address = [
        {"name": "KUBERNETES_SERVICE_HOST", "value": API_HOST},
        {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"},
    ]
    for target, container_name in ((REGISTRAR, "registrar"), (DAEMON, "dagster")):
        patched = {
            "hostAliases": aliases,
            "containers": [{"name": container_name, "env": address}],
        }
        patch = {"spec": {"template": {"spec": patched}}}
        namespace.kubectl("patch", target, "--patch", json.dumps(patch))
    rolled_out(namespace)
    try:
        yield
    finally:
        for target in (REGISTRAR, DAEMON):
            namespace.kubectl("rollout", "undo", target)
        rolled_out(namespace)
        namespace.kubectl("delete", "deployment,service,networkpolicy", PROXY, "--wait=false")


def rolled_out(namespace: Namespace) -> None:
    for target in (REGISTRAR, DAEMON):
        namespace.kubectl("rollout", "status", target, "--timeout=120s")


def reloaded(namespace: Namespace) -> int:
    return namespace.kubectl("logs", REGISTRAR).count("reloaded location=delta")


def test_an_api_server_that_is_away_for_a_minute_is_outlived(
    installation: Installation,
    namespace: Namespace,
    ui: Dagster,
    toy: ToyLocation,
    figure: Callable[[str], None],
) -> None:
    with api_through_a_proxy(installation):
        before, reloads = start_times(namespace), reloaded(namespace)
        run_id = ui.launch("delta", "work_job", work(seconds=AWAY + 10), NO_RETRY)
        wait_until(lambda: ui.run(run_id).status == "STARTED", 60, "the run's start")
        namespace.scale(PROXY, 0)
        gone = time.monotonic()
        toy.deploy("v3", "--wait")
        time.sleep(max(0, AWAY - (time.monotonic() - gone)))
        namespace.scale(PROXY, 1)
        back = time.monotonic()
        wait_until(lambda: ui.assets("delta") == {"delta_v3"}, 20, "version v3 in the UI")
        wait_until(lambda: reloaded(namespace) > reloads, 20, "the registrar's return", pause=0.2)
        seconds = time.monotonic() - back
        figure(f"the registrar goes on {seconds:.0f} s after the API server is back")
        assert "step_failed" in namespace.kubectl("logs", REGISTRAR)
        # Nobody could see its pod for a minute, which does not mean that it is dead.
        assert ui.wait_for_end(run_id).status == "SUCCESS"
        assert start_times(namespace) == before
