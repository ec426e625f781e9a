"""The folder of a demo, its ports and its variables."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from forge_demo import ports, settings
from forge_demo.state import ROOT, DemoState
from forge_platform.environment import VARIABLES, check_variables
from forge_platform.errors import ConfigurationError

HOLD = """
import sys
from pathlib import Path
from forge_demo.state import DemoState
with DemoState(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> DemoState:
    return DemoState(tmp_path / "demo")


@pytest.fixture
def chosen(state: DemoState) -> settings.Ports:
    state.folder.mkdir()
    return settings.Ports.choose(state, 3000)


def test_wanted_port_is_taken_when_it_is_free() -> None:
    [free] = ports.free_ports(1)
    assert ports.first_free_port(free) == free


def test_next_port_is_taken_when_the_wanted_one_is_not_free() -> None:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        server.listen()
        taken = server.getsockname()[1]
        assert ports.is_open(taken)
        assert taken < ports.first_free_port(taken) < taken + 100


def test_free_ports_differ() -> None:
    assert len(set(ports.free_ports(20))) == 20


def test_ports_stay_the_same(state: DemoState, chosen: settings.Ports) -> None:
    again = settings.Ports.choose(state, 3000)
    assert (again.postgres, again.rates) == (chosen.postgres, chosen.rates)
    assert again.code_servers == chosen.code_servers


def test_port_that_was_taken_meanwhile_is_replaced(
    state: DemoState, chosen: settings.Ports
) -> None:
    with socket.socket() as server:
        server.bind((ports.HOST, chosen.rates))
        server.listen()
        again = settings.Ports.choose(state, 3000)
    assert again.rates != chosen.rates
    assert again.postgres == chosen.postgres


def test_env_file_is_what_production_needs(
    state: DemoState, chosen: settings.Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = settings.variables(state, chosen)
    state.write_env(written)
    for name, value in state.read_env().items():
        monkeypatch.setenv(name, value)
    check_variables(VARIABLES)
    assert state.read_env() == written
    assert written["ICEBERG_CATALOG_URI"] == f"sqlite:///{state.folder}/catalog.db"
    assert written["FORGE_ENVIRONMENT"] == "prod"


def test_env_file_is_for_its_owner_only(state: DemoState, chosen: settings.Ports) -> None:
    state.write_env(settings.variables(state, chosen))
    assert stat.S_IMODE(state.env_file.stat().st_mode) == 0o600


def test_password_outlives_a_restart(state: DemoState, chosen: settings.Ports) -> None:
    first = settings.variables(state, chosen)
    state.write_env(first)
    assert settings.variables(state, chosen)["DB_PASSWORD"] == first["DB_PASSWORD"]


def test_foreign_variables_do_not_reach_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/somewhere/else")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example.com")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = settings.process_environment({"DB_HOST": "127.0.0.1"})
    assert "DAGSTER_HOME" not in environment
    assert "AWS_ENDPOINT_URL" not in environment
    assert environment["LANG"] == "C.UTF-8"
    assert environment["DB_HOST"] == "127.0.0.1"


def test_every_code_location_has_a_server(state: DemoState, chosen: settings.Ports) -> None:
    settings.write_dagster_home(state, chosen)
    workspace = settings.workspace_file(state).read_text()
    assert len(workspace.splitlines()) == 1 + len(chosen.code_servers)
    for location, port in chosen.code_servers.items():
        assert f"port: {port}, location_name: {location}}}" in workspace
    packages = {path.parent.name for path in ROOT.glob("code_locations/*/pyproject.toml")}
    assert chosen.code_servers.keys() == packages


def test_second_demo_is_refused_and_told_about_the_first(state: DemoState) -> None:
    command = [sys.executable, "-c", HOLD, str(state.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        assert state.owner() == other.pid
        with pytest.raises(ConfigurationError, match=f"process {other.pid}"), state.lock():
            pass
        with pytest.raises(ConfigurationError, match="is running"):
            state.remove()
        other.kill()
    assert state.owner() is None
    with state.lock():
        pass


def test_state_is_removed(state: DemoState) -> None:
    with state.lock():
        state.write_env({"A": "1"})
    state.remove()
    assert not state.folder.exists()
    state.remove()


def test_a_folder_that_is_no_demo_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigurationError, match="no demo's folder"):
        DemoState(tmp_path / "photos").remove()
    assert (tmp_path / "photos").exists()
