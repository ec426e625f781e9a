from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from forge_platform.errors import SourceUnavailable
from forge_platform.registrar.code_server import server_id
from forge_platform.registrar.webserver import ReloadRefused, Webserver
from forge_platform.registrar.workspace import render

HOST = "127.0.0.1"
WIPE = "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }"
DEFINITIONS = "import dagster as dg\n\ndefs = dg.Definitions()\n"


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
    return port


def wait_until(reached: Callable[[], bool], limit: float = 60) -> None:
    end = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@contextmanager
def process(*command: str, folder: Path) -> Iterator[None]:
    started = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={"DAGSTER_HOME": str(folder), "DAGSTER_DISABLE_TELEMETRY": "1"},
    )
    try:
        yield
    finally:
        started.kill()
        started.wait()


@contextmanager
def code_server(folder: Path, port: int) -> Iterator[None]:
    (folder / "defs.py").write_text(DEFINITIONS)
    with process("dagster", "api", "grpc", "-f", "defs.py", "-p", str(port), folder=folder):
        wait_until(lambda: server_id(HOST, port) is not None)
        yield


@contextmanager
def webserver(
    folder: Path, *options: str, module: str = "forge_platform.webserver"
) -> Iterator[Webserver]:
    port = free_port()
    command = (module, "-w", "workspace.yaml", "-p", str(port), *options)
    found = Webserver(f"http://{HOST}:{port}", process="one")

    def answers() -> bool:
        try:
            return httpx.get(f"{found.url}/server_info").is_success
        except httpx.HTTPError:
            return False

    with process(*command, folder=folder):
        wait_until(answers)
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


def write_workspace(folder: Path, **ports: int) -> None:
    text = render({name: (HOST, port) for name, port in ports.items()})
    (folder / "workspace.yaml").write_text(text)


def test_a_webserver_follows_locations_that_come_change_and_go(folder: Path) -> None:
    port = free_port()
    write_workspace(folder)
    with webserver(folder) as found:
        assert found.locations() == {}
        with code_server(folder, port):
            first = server_id(HOST, port)
            write_workspace(folder, orders=port)
            found.reload_workspace()
            assert found.locations() == {"orders": first}
        with code_server(folder, port):
            second = server_id(HOST, port)
            assert second != first
            found.reload_location("orders")
            assert found.locations() == {"orders": second}
        found.reload_location("orders")
        assert found.locations() == {"orders": None}
        write_workspace(folder)
        found.reload_workspace()
        assert found.locations() == {}


def test_a_read_only_webserver_follows_locations_and_changes_nothing(folder: Path) -> None:
    port = free_port()
    write_workspace(folder)
    with webserver(folder, "--read-only") as found, code_server(folder, port):
        assert found.locations() == {}
        write_workspace(folder, orders=port)
        found.reload_workspace()
        found.reload_location("orders")
        assert found.locations() == {"orders": server_id(HOST, port)}
        answer = httpx.post(f"{found.url}/graphql", json={"query": WIPE}).json()
    assert answer["data"]["wipeAssets"]["__typename"] == "UnauthorizedError"


def test_a_read_only_webserver_of_dagster_refuses(folder: Path) -> None:
    write_workspace(folder)
    with (
        webserver(folder, "--read-only", module="dagster_webserver") as found,
        pytest.raises(ReloadRefused, match="Unauthorized"),
    ):
        found.reload_workspace()


def test_a_webserver_that_is_away_is_unavailable() -> None:
    with pytest.raises(SourceUnavailable, match="ConnectError"):
        Webserver(f"http://{HOST}:{free_port()}", process="none").locations()


def test_a_code_server_that_is_away_has_no_id() -> None:
    assert server_id(HOST, free_port(), timeout=1) is None
