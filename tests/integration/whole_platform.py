"""A whole platform as tests use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psycopg2

import customers.definitions
import ingestion.definitions
import orders.definitions
from forge_platform import IcebergResource
from forge_platform.testing import ConnectionParameters

JOBS = {
    "ingestion": (ingestion.definitions.defs, "ingestion_job"),
    "customers": (customers.definitions.defs, "customer_pipeline"),
    "orders": (orders.definitions.defs, "transformation_job"),
}


@dataclass(frozen=True)
class Platform:
    """A whole platform: what it reads, where it writes, and the Dagster instance."""

    instance: dg.DagsterInstance
    source: ConnectionParameters
    serving: ConnectionParameters
    landing: Path
    exports: Path
    iceberg: IcebergResource

    def run(self, location: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Runs a location's job; ``options`` are those of ``execute_in_process``."""
        definitions, job = JOBS[location]
        config = {"execution": {"config": {"retries": {"disabled": {}}}}}
        return definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, run_config={**config, **options.pop("run_config", {})}, **options
        )

    def execute(self, statement: str, *values: object) -> None:
        """Changes the source."""
        with psycopg2.connect(**self.source) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
        connection.close()

    def rows(self, table: str) -> pl.DataFrame:
        """A table, as a data frame."""
        return self.iceberg.view(table).read()

    def metadata(self, asset: str) -> dict[str, Any]:
        """The metadata of an asset's last materialisation."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def database_variables(prefix: str, parameters: ConnectionParameters) -> dict[str, str]:
    """A database as a deployment's variables name it."""
    parts = zip(("HOST", "PORT", "USER", "PASSWORD", "NAME"), _values(parameters), strict=True)
    return {f"{prefix}_{part}": str(value) for part, value in parts}


def _values(parameters: ConnectionParameters) -> tuple[object, ...]:
    names = ("host", "port", "user", "password", "database")
    return tuple(dict(parameters)[name] for name in names)
