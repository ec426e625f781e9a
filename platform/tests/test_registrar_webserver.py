from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from dagster_servers import HOST, code_server, webserver, write_workspace

from forge_platform.errors import SourceUnavailable
from forge_platform.registrar.code_server import server_id
from forge_platform.registrar.webserver import Loaded, ReloadRefused, Webserver
from forge_platform.testing import free_port

WIPE = "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


def test_a_webserver_follows_locations_that_come_change_and_go(folder: Path) -> None:
    port = free_port()
    write_workspace(folder)
    with webserver(folder) as found:
        assert found.locations() == {}
        with code_server(folder, port):
            first = server_id(HOST, port)
            write_workspace(folder, orders=port)
            found.reload_workspace()
            assert found.locations() == {"orders": Loaded(first, (HOST, port))}
        with code_server(folder, port):
            second = server_id(HOST, port)
            assert second != first
            found.reload_location("orders")
            assert found.locations() == {"orders": Loaded(second, (HOST, port))}
        found.reload_location("orders")
        assert found.locations() == {"orders": Loaded(None, (HOST, port))}
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
        assert found.locations() == {"orders": Loaded(server_id(HOST, port), (HOST, port))}
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
