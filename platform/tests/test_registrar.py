"""The registrar's steps, with a real webserver and code servers; only the namespace is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from dagster_servers import HOST, code_server, hanging_code_server, webserver, write_workspace
from kubernetes import client
from on_cluster import wait_until

from forge_platform.registrar.cluster import Cluster, ControlPod, control_pod
from forge_platform.registrar.code_server import server_id
from forge_platform.registrar.registrar import Registrar
from forge_platform.registrar.webserver import Loaded, Webserver
from forge_platform.registrar.workspace import CodeServer, Endpoint, parse, render
from forge_platform.testing import free_port

SERVICE = "localhost"
LOADED = "{ locationStatusesOrError { ... on WorkspaceLocationStatusEntries { entries "
LOADED += "{ name updateTimestamp } } } }"


class Namespace(Cluster):
    """A namespace with one webserver, whose workspace file is in a folder."""

    def __init__(self, folder: Path) -> None:
        self.servers: dict[str, CodeServer] = {}
        self._file = folder / "workspace.yaml"
        self._webserver = ControlPod("webserver", HOST, ready=True, process="one", workspace=None)

    def serve(self, location: str, port: int, pod: str = "first") -> None:
        endpoint = Endpoint(pod, HOST, "set", ready=True, terminating=False)
        self.servers[location] = CodeServer(
            location=location,
            service=SERVICE,
            address=HOST,
            port=port,
            created=datetime.now(UTC),
            endpoints=frozenset({endpoint}),
        )

    def code_servers(self) -> Sequence[CodeServer]:
        return list(self.servers.values())

    def workspace_text(self) -> str:
        return self._file.read_text()

    def write_workspace(self, text: str) -> None:
        self._file.write_text(text)

    def webservers(self) -> Sequence[ControlPod]:
        return [self._webserver]

    def daemons(self) -> Sequence[ControlPod]:
        return []

    def tell(self, pod: ControlPod, version: str) -> None:
        self._webserver = replace(pod, workspace=version)


@pytest.fixture
def namespace(tmp_path: Path) -> Namespace:
    return Namespace(tmp_path)


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Webserver]:
    write_workspace(tmp_path)
    with webserver(tmp_path) as found:
        yield found


@pytest.fixture
def registrar(shown: Webserver, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> Registrar:
    monkeypatch.setattr("forge_platform.registrar.registrar.AGAIN", (0.0, 0.5, 1.0))
    return Registrar(namespace, int(shown.url.rpartition(":")[2]))


def step_until(registrar: Registrar, reached: Callable[[], bool]) -> None:
    def step() -> bool:
        registrar.step()
        return reached()

    wait_until(step, 60, "the locations in the webserver", pause=0.1)


def step_until_shown(registrar: Registrar, shown: Webserver, **ports: int) -> None:
    """Steps until the webserver has exactly the locations that are served at these ports."""
    expected = {
        name: Loaded(server_id(HOST, port), (SERVICE, port)) for name, port in ports.items()
    }
    step_until(registrar, lambda: shown.locations() == expected)


def loaded_at(shown: Webserver) -> dict[str, float]:
    answer: dict[str, Any] = httpx.post(f"{shown.url}/graphql", json={"query": LOADED}).json()
    entries = answer["data"]["locationStatusesOrError"]["entries"]
    return {entry["name"]: entry["updateTimestamp"] for entry in entries}


def test_a_location_comes_moves_and_goes(
    tmp_path: Path, registrar: Registrar, shown: Webserver, namespace: Namespace
) -> None:
    port, other = free_port(), free_port()
    with code_server(tmp_path, port), code_server(tmp_path, other):
        namespace.serve("orders", port)
        step_until_shown(registrar, shown, orders=port)
        namespace.serve("orders", other)
        step_until_shown(registrar, shown, orders=other)
        assert parse(namespace.workspace_text()) == {"orders": (SERVICE, other)}
    del namespace.servers["orders"]
    step_until_shown(registrar, shown)


def test_only_the_location_that_changed_is_loaded_again(
    tmp_path: Path, registrar: Registrar, shown: Webserver, namespace: Namespace
) -> None:
    orders, customers = free_port(), free_port()
    with code_server(tmp_path, customers):
        with code_server(tmp_path, orders):
            namespace.serve("orders", orders)
            namespace.serve("customers", customers)
            step_until_shown(registrar, shown, orders=orders, customers=customers)
            # It is loaded more than once, while the Service may still lead to an old pod.
            wait_until(registrar.step, 60, "the registrar to be done", pause=0.1)
            before = loaded_at(shown)
        with code_server(tmp_path, orders):
            namespace.serve("orders", orders, pod="second")
            step_until_shown(registrar, shown, orders=orders, customers=customers)
            after = loaded_at(shown)
    assert after["orders"] > before["orders"]
    assert after["customers"] == before["customers"]


def test_locations_that_hang_hold_up_no_other(
    tmp_path: Path, registrar: Registrar, shown: Webserver, namespace: Namespace
) -> None:
    orders, known, new = free_port(), free_port(), free_port()
    namespace.serve("orders", orders)
    namespace.serve("known", known)
    namespace.write_workspace(render({"orders": (SERVICE, orders), "known": (SERVICE, known)}))
    # Nobody answers yet, so that this takes no time.
    shown.reload_workspace()
    with hanging_code_server(known), hanging_code_server(new), code_server(tmp_path, orders):
        namespace.serve("new", new)
        begin = time.monotonic()
        step_until(registrar, lambda: shown.locations()["orders"].server == server_id(HOST, orders))
        assert not registrar.step()
        # Of one that hangs a webserver waits for 60 s.
        assert time.monotonic() - begin < 40
        assert parse(namespace.workspace_text()).keys() == {"orders", "known"}


def test_a_pod_is_as_ready_as_its_first_container() -> None:
    def status(name: str, *, ready: bool) -> client.V1ContainerStatus:
        return client.V1ContainerStatus(
            name=name, container_id=name, image="", image_id="", ready=ready, restart_count=0
        )

    containers = [client.V1Container(name=name) for name in ("dagster", "auth-proxy")]
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="webserver", uid="uid"),
        spec=client.V1PodSpec(containers=containers),
        status=client.V1PodStatus(container_statuses=[]),
    )
    assert (control_pod(pod).process, control_pod(pod).ready) == ("uid", False)
    # The kubelet sorts them by name.
    pod.status.container_statuses = [
        status("auth-proxy", ready=False),
        status("dagster", ready=True),
    ]
    assert (control_pod(pod).process, control_pod(pod).ready) == ("dagster", True)
