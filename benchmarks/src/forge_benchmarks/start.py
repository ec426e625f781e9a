"""What it costs to start, and to find that there is nothing to do."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from forge_benchmarks import orders
from forge_benchmarks.place import ROOT, address, emptied, iceberg
from forge_benchmarks.ways import Benchmark, Role, Watch, Way
from forge_platform import (
    DatabaseResource,
    ExtractConfig,
    IcebergIOManager,
    IcebergResource,
    TableWrite,
    extract,
    table_options,
)

Facts = Mapping[str, Any]


def imported(module: str) -> Callable[[Watch, Facts], Facts]:
    """A process that imports a module and ends."""

    def run(watch: Watch, parameters: Facts) -> Facts:
        del parameters
        with watch.running():
            subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], check=True)  # noqa: S603
        return {}

    return run


def one_query(watch: Watch, parameters: Facts) -> Facts:
    """A process that imports Dagster, asks the source one question, and ends."""
    del parameters
    program = (
        "import dagster, psycopg2, sys; from forge_benchmarks.place import connect;"
        "connect().cursor().execute('SELECT 1')"
    )
    with watch.running():
        subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)  # noqa: S603
    return {}


def nothing_changed(watch: Watch, parameters: Facts) -> Facts:
    """A run of an asset whose source is as it was: a second one, imports left out.

    The table's data files are away meanwhile, so that a run that reads one fails.
    """
    folder = emptied("idle")
    source = orders.source(parameters)

    @dg.asset(metadata=table_options(mode="merge", key=("order_id",), order_by="updated_at"))
    def raw(
        config: ExtractConfig, database: DatabaseResource, iceberg: IcebergResource
    ) -> TableWrite:
        return extract(database, source, config, iceberg.position("bench.raw"))

    resource = iceberg("idle")
    resources = {
        "database": DatabaseResource(**address()),
        "iceberg": resource,
        "io_manager": IcebergIOManager(iceberg=resource, namespace="bench"),
    }
    dg.materialize([raw], resources=resources)
    before = _snapshot(resource)
    files = list(folder.rglob("*.parquet"))
    for file in files:  # Arrow and Polars open files where Python does not see it
        file.rename(file.with_suffix(".away"))
    with watch.running():
        dg.materialize([raw], resources=resources)
    return {"data_files_away": len(files), "snapshots": int(_snapshot(resource) != before)}


def run_started(location: str | None) -> Callable[[Watch, Facts], Facts]:
    """A run's process until its first step, as a pod executes it; without a location, Dagster's."""

    def run(watch: Watch, parameters: Facts) -> Facts:
        from dagster._core.definitions.reconstruct import ReconstructableRepository
        from dagster._grpc.types import ExecuteRunArgs

        del parameters
        os.environ.update(_variables(location))
        repository = ReconstructableRepository.for_module("forge_benchmarks.first_step", "defs")
        job = repository.get_reconstructable_job("first_step_job")
        origin = job.get_python_origin()
        with _instance() as instance:
            made = instance.create_run_for_job(job.get_definition(), job_code_origin=origin)
            reference = instance.get_ref()
        asked = ExecuteRunArgs(origin, made.run_id, reference, set_exit_code_on_failure=True)
        command = [sys.executable, "-W", "ignore", "-m", *asked.get_command_args()]
        with watch.running():
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        return {"imported": done.stdout}

    return run


def _variables(location: str | None) -> Mapping[str, str]:
    """What a run pod of the location has; only the instance's database is there."""
    database = {"HOST": "host", "PORT": "1", "USER": "user", "PASSWORD": "secret", "NAME": "name"}
    return {
        **({"FORGE_BENCHMARK_LOCATION": location} if location else {}),
        **{f"DB_{name}": value for name, value in database.items()},
        **{f"SERVING_DB_{name}": value for name, value in database.items()},
        "ICEBERG_CATALOG_URI": "sqlite:////nowhere/catalog.db",
        "ICEBERG_WAREHOUSE": "file:///nowhere",
        "LANDING_URI": "file:///nowhere",
        "EXPORT_URI": "file:///nowhere",
        "EXCHANGE_RATES_URL": "http://nowhere",
    }


def _instance() -> dg.DagsterInstance:
    """An instance in PostgreSQL, as in production; output is not kept."""
    parameters = address()
    storage = {
        "hostname": parameters["host"],
        "port": parameters["port"],
        "username": parameters["user"],
        "password": parameters["password"],
        "db_name": parameters["database"],
    }
    output = {
        "module": "dagster.core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    overrides = {
        "storage": {"postgres": {"postgres_db": storage}},
        "compute_logs": output,
        "telemetry": {"enabled": False},
    }
    return dg.DagsterInstance.local_temp(str(emptied("dagster")), overrides=overrides)


def _snapshot(resource: Any) -> int | None:  # noqa: ANN401
    table = resource.find("bench.raw")
    return table.current_snapshot().snapshot_id if table else None


def _prepare(parameters: Facts) -> None:
    ROOT.mkdir(exist_ok=True)
    orders.prepare(parameters)


_LOCATIONS = ("ingestion", "customers", "orders")
IMPORTS = Benchmark(
    "imports",
    "Load a code location's definitions",
    [
        Way("import dagster", Role.FLOOR, imported("dagster")),
        *(Way(location, Role.OURS, imported(f"{location}.definitions")) for location in _LOCATIONS),
        Way(
            "dagster, polars and pyiceberg",
            Role.PEER,
            imported("dagster, polars, pyiceberg.catalog"),
        ),
    ],
    prepare=lambda _: None,
    goals=dict.fromkeys(_LOCATIONS, 1.3),
)
RUN_START = Benchmark(
    "run-start",
    "Start a run's process, until its first step begins",
    [
        Way("Dagster alone", Role.FLOOR, run_started(None)),
        Way("import dagster", Role.FLOOR, imported("dagster")),
        *(Way(location, Role.OURS, run_started(location)) for location in _LOCATIONS),
    ],
    prepare=lambda _: None,
    goals=dict.fromkeys(_LOCATIONS, 1.3),
    finds={"imported": "none"},
)
IDLE = Benchmark(
    "idle",
    "An hourly run with nothing changed",
    [
        Way("process start and one query", Role.FLOOR, one_query),
        Way("forge-platform, beyond imports", Role.OURS, nothing_changed),
    ],
    prepare=_prepare,
    finds={"snapshots": 0},
    most_seconds=2,
)
