"""The variables and files with which the demo's processes run."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forge_demo.ports import HOST, first_free_port, free_ports, is_free
from forge_demo.state import ROOT, DemoState

SOURCE_DATABASE = "shop"
SERVING_DATABASE = "serving"
INSTANCE_DATABASE = "dagster"
_USER = "postgres"
_AUTOMATION_INTERVAL_SECONDS = 3
_DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")
# Set in the user's shell for something else, these would change what the demo does.
_FOREIGN_PREFIXES = ("DAGSTER_", "FORGE_", "PYICEBERG_", "AWS_", "PG")


def code_locations() -> list[str]:
    """The code locations of this repository: the folders that are packages."""
    return sorted(path.parent.name for path in (ROOT / "code_locations").glob("*/pyproject.toml"))


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the demo's servers listen."""

    webserver: int
    postgres: int
    rates: int
    code_servers: Mapping[str, int]

    @classmethod
    def choose(cls, state: DemoState, webserver: int) -> Ports:
        """Free ports: the webserver's is the wanted one or the next, the others the last demo's.

        Dagster finds the earlier evaluations of a sensor by the address of its code server.
        """
        names = ["postgres", "rates", *code_locations()]
        known = json.loads(state.ports_file.read_text()) if state.ports_file.exists() else {}
        fresh = dict(zip(names, free_ports(len(names)), strict=True))
        chosen = {
            name: known[name] if name in known and is_free(known[name]) else fresh[name]
            for name in names
        }
        state.ports_file.write_text(json.dumps(chosen))
        return cls(
            webserver=first_free_port(webserver),
            postgres=chosen.pop("postgres"),
            rates=chosen.pop("rates"),
            code_servers=chosen,
        )


def variables(state: DemoState, ports: Ports) -> dict[str, str]:
    """What is written to ``.demo/env``: the variables of production, and Dagster's."""
    password = state.read_env().get("DB_PASSWORD") or secrets.token_urlsafe(24)
    return {
        **_database("DB", SOURCE_DATABASE, ports.postgres, password),
        **_database("SERVING_DB", SERVING_DATABASE, ports.postgres, password),
        "ICEBERG_CATALOG_URI": f"sqlite:///{state.catalog}",
        "ICEBERG_WAREHOUSE": f"file://{state.warehouse}",
        "LANDING_URI": f"file://{state.landing}",
        "EXPORT_URI": f"file://{state.exports}",
        "EXCHANGE_RATES_URL": f"http://{HOST}:{ports.rates}/rates",
        "FORGE_ENVIRONMENT": "prod",
        "FORGE_DOCS_URL": f"http://{HOST}:{ports.rates}/docs",
        "FORGE_AUTOMATION_INTERVAL_SECONDS": str(_AUTOMATION_INTERVAL_SECONDS),
        "DAGSTER_HOME": str(state.dagster_home),
        "DAGSTER_PG_HOST": HOST,
        "DAGSTER_PG_PORT": str(ports.postgres),
        "DAGSTER_PG_USERNAME": _USER,
        "DAGSTER_PG_PASSWORD": password,
        "DAGSTER_PG_DB": INSTANCE_DATABASE,
        # Without it a run over 1,057 partitions spends 35 s storing their events one by one.
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "DAGSTER_WEBSERVER_URL": f"http://{HOST}:{ports.webserver}",
    }


def _database(prefix: str, name: str, port: int, password: str) -> dict[str, str]:
    return {
        f"{prefix}_HOST": HOST,
        f"{prefix}_PORT": str(port),
        f"{prefix}_USER": _USER,
        f"{prefix}_PASSWORD": password,
        f"{prefix}_NAME": name,
    }


def process_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of the demo's processes: the user's, without what is meant for others."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)
    }
    return {**inherited, **ours}


def write_dagster_home(state: DemoState, ports: Ports) -> None:
    """Writes ``dagster.yaml`` and ``workspace.yaml``."""
    state.dagster_home.mkdir(parents=True, exist_ok=True)
    (state.dagster_home / "dagster.yaml").write_text(_DAGSTER_YAML.read_text())
    workspace_file(state).write_text(_workspace(ports.code_servers))


def workspace_file(state: DemoState) -> Path:
    """The file that tells webserver and daemon where the code servers are."""
    return state.dagster_home / "workspace.yaml"


def _workspace(code_servers: Mapping[str, int]) -> str:
    entries = (
        f"  - grpc_server: {{host: {HOST}, port: {port}, location_name: {location}}}\n"
        for location, port in code_servers.items()
    )
    return "load_from:\n" + "".join(entries)
