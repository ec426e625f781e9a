"""All code locations at once: they load alone, agree with each other and with the design."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import forge_platform
from forge_platform.contracts import CONTRACTS

ROOT = Path(__file__).parents[2]
LOCATIONS = sorted(folder.name for folder in (ROOT / "code_locations").iterdir() if folder.is_dir())

ASSETS = {
    "ingestion": {
        "exchange_rates",
        "incremental_orders",
        "loaded_files",
        "raw_customer_files",
        "raw_customers",
        "raw_orders",
        "rejected_rows",
    },
    "customers": {
        "clean_customers",
        "customer_clv",
        "customer_metrics",
        "customer_metrics_export",
        "customer_metrics_serving",
        "rejected_customers",
    },
    "orders": {"daily_order_summary", "enriched_orders", "sales_daily_summary"},
}
JOBS = {
    "ingestion": {"ingestion_job"},
    "customers": {"customer_pipeline"},
    "orders": {"transformation_job"},
}
SCHEDULES = {
    "hourly_schedule": ("0 * * * *", None),
    "daily_customer_schedule": ("0 2 * * *", None),
    "daily_schedule": ("0 6 * * *", "America/New_York"),
    "adaptive_schedule": ("0 */4 * * *", None),
    "deleted_rows_schedule": ("30 4 * * *", None),
    "table_care_schedule": ("30 3 * * *", None),
}
ELSEWHERE = {"customer_metrics_serving", "customer_metrics_export"}  # no Iceberg table
SENSORS = {"new_data_sensor": 60, "s3_file_sensor": 300, "new_file_sensor": 300}

LOAD_ALONE = """
import socket, sys
def refuse(*_, **__): raise OSError("no network while definitions load")
socket.socket.connect = refuse
socket.create_connection = refuse
import dagster as dg
from importlib import import_module
dg.Definitions.validate_loadable(import_module(f"{sys.argv[1]}.definitions").defs)
"""

# Every run pod and every code server pays for what definitions import.
LOAD_LIGHT = """
import sys
from importlib import import_module
import_module(f"{sys.argv[1]}.definitions")
heavy = {"boto3", "duckdb", "httpx", "matplotlib", "numpy", "polars", "psycopg2", "pyarrow",
    "pyiceberg", "sqlalchemy"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or None)
"""


def definitions(location: str) -> dg.Definitions:
    found = importlib.import_module(f"{location}.definitions").defs
    assert isinstance(found, dg.Definitions)
    return found


def executable_specs(location: str) -> Iterator[dg.AssetSpec]:
    for asset in definitions(location).assets or ():
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
            yield from asset.specs


def own_specs(location: str) -> Iterator[dg.AssetSpec]:
    return (spec for spec in executable_specs(location) if spec.group_name != "table_care")


def produced(location: str) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in own_specs(location)}


def test_the_design_knows_every_location() -> None:
    assert sorted(ASSETS) == LOCATIONS


@pytest.mark.parametrize("location", LOCATIONS)
def test_definitions_load_with_no_variable_and_no_network(location: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    command = [sys.executable, "-c", LOAD_ALONE, location]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("location", LOCATIONS)
def test_definitions_load_no_library_that_only_assets_need(location: str) -> None:
    command = [sys.executable, "-c", LOAD_LIGHT, location]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("location", LOCATIONS)
def test_assets_and_jobs_are_those_of_the_design(location: str) -> None:
    assert set(produced(location)) == ASSETS[location]
    jobs = {job.name for job in definitions(location).jobs or ()}
    assert jobs == JOBS[location] | {"table_care"}


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_table_is_cared_for(location: str) -> None:
    care = [spec for spec in executable_specs(location) if spec.group_name == "table_care"]
    names = {spec.key.to_user_string() for spec in care}
    assert names == {f"{asset}_care" for asset in ASSETS[location] - ELSEWHERE}
    for spec in care:
        assert spec.owners == [f"team:{location}"]
        assert spec.metadata["documentation"].value.endswith("docs/table-care.md")
        assert spec.metadata["keep_days"] > 0
        assert spec.automation_condition is None


def test_schedules_and_sensors_are_those_of_the_design() -> None:
    schedules = {
        schedule.name: (schedule.cron_schedule, schedule.execution_timezone)
        for location in LOCATIONS
        for schedule in definitions(location).schedules or ()
        if isinstance(schedule, dg.ScheduleDefinition)
    }
    assert schedules == SCHEDULES
    sensors = {
        sensor.name: sensor.minimum_interval_seconds
        for location in LOCATIONS
        for sensor in definitions(location).sensors or ()
    }
    assert {name: sensors[name] for name in SENSORS} == SENSORS


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_asset_is_described_owned_and_linked(location: str) -> None:
    for spec in own_specs(location):
        name = spec.key.to_user_string()
        assert spec.description, name
        assert spec.group_name == location, name
        assert spec.owners == [f"team:{location}"], name
        assert spec.kinds, name
        assert spec.tags["forge/location"] == location, name
        assert spec.metadata["documentation"].value.endswith(f"docs/assets.md#{name}"), name
        (reference,) = spec.metadata["dagster/code_references"].code_references
        assert Path(reference.file_path).is_relative_to(ROOT / "code_locations" / location), name


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_asset_is_explained_where_its_link_points(location: str) -> None:
    page = (ROOT / "docs" / "assets.md").read_text()
    for name in produced(location):
        assert f"\n### {name}\n" in page, name


def test_what_crosses_locations_is_under_contract() -> None:
    own = {location: produced(location) for location in LOCATIONS}
    crossing = {
        dep.asset_key.to_user_string()
        for location, specs in own.items()
        for spec in specs.values()
        for dep in spec.deps
        if dep.asset_key.to_user_string() not in specs
    }
    assert crossing == {contract.asset for contract in CONTRACTS}
    for contract in CONTRACTS:
        assert contract.asset in own[contract.location]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.identifier)
def test_the_producer_checks_its_contract(contract: forge_platform.TableContract) -> None:
    keys = {
        key
        for check in definitions(contract.location).asset_checks or ()
        for key in check.check_keys
    }
    assert dg.AssetCheckKey(contract.asset_key, "contract") in keys
    spec = produced(contract.location)[contract.asset]
    assert spec.owners == [contract.owner]
    assert spec.metadata["forge/key"] == ",".join(contract.key)


def test_locations_are_the_same_wherever_they_are_repeated() -> None:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    demo = tomllib.loads((ROOT / "demo" / "pyproject.toml").read_text())
    development = root["dependency-groups"]["dev"]
    for location in LOCATIONS:
        assert location in development
        assert location in demo["project"]["optional-dependencies"]["local"]
        assert location in root["tool"]["uv"]["sources"]


def test_the_public_surface_is_what_all_says() -> None:
    public = {
        name
        for name, value in vars(forge_platform).items()
        if not name.startswith("_") and not isinstance(value, type(forge_platform))
    }
    assert public == set(forge_platform.__all__)
    assert sorted(forge_platform.__all__) == sorted(set(forge_platform.__all__))
