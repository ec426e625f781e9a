"""What it costs to start, and to find that there is nothing to do."""

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


def _snapshot(resource: Any) -> int | None:  # noqa: ANN401
    table = resource.find("bench.raw")
    return table.current_snapshot().snapshot_id if table else None


def _prepare(parameters: Facts) -> None:
    ROOT.mkdir(exist_ok=True)
    orders.prepare(parameters)


IMPORTS = Benchmark(
    "imports",
    "Load a code location's definitions",
    [
        Way("import dagster", Role.FLOOR, imported("dagster")),
        *(
            Way(location, Role.OURS, imported(f"{location}.definitions"))
            for location in ("ingestion", "customers", "orders")
        ),
        Way(
            "dagster, polars and pyiceberg",
            Role.PEER,
            imported("dagster, polars, pyiceberg.catalog"),
        ),
    ],
    prepare=lambda _: None,
    goals={"ingestion": 1.3, "customers": 1.3, "orders": 1.3},
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
