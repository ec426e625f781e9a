"""A whole platform as tests use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import log_location
import polars as pl
import psycopg2
import pytest
from psycopg2 import sql

import customers.definitions
import ingestion.definitions
import orders.definitions
from forge_platform import IcebergResource
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


def ingestion_job() -> dg.JobDefinition:
    return ingestion.definitions.defs.resolve_job_def("ingestion_job")


def customer_pipeline() -> dg.JobDefinition:
    return customers.definitions.defs.resolve_job_def("customer_pipeline")


def transformation_job() -> dg.JobDefinition:
    return orders.definitions.defs.resolve_job_def("transformation_job")


def log_job() -> dg.JobDefinition:
    return log_location.defs.resolve_job_def("log_job")


LOCATIONS = ("ingestion", "customers", "orders")
JOBS = {
    "ingestion": ingestion_job,
    "customers": customer_pipeline,
    "orders": transformation_job,
    "log": log_job,
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
    variables: Mapping[str, str]

    def run(self, location: str, **options: Any) -> dg.JobExecutionResult:
        """Runs a location's job; ``options`` are those of ``run_job``."""
        return run_job(self.instance, location, **options)

    def run_all(self, first_day: str = "2024-01-01", last_day: str = "2024-01-01") -> None:
        """Runs the three jobs, one after the other, with some days of the daily summary."""
        self.run("ingestion")
        self.run("customers")
        self.run("orders", tags=days(first_day, last_day))

    def execute(self, statement: str, *values: object) -> None:
        """Changes the source."""
        with connected(self.source) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Asks the source."""
        return query(self.source, statement, *values)

    def rows(self, table: str) -> pl.DataFrame:
        """A table, as a data frame."""
        return self.iceberg.view(table).read()

    def materialisation(self, asset: str) -> dg.AssetMaterialization:
        """An asset's last materialisation."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event is not None
        assert event.asset_materialization is not None
        return event.asset_materialization

    def metadata(self, asset: str) -> dict[str, Any]:
        """The metadata of an asset's last materialisation."""
        metadata = self.materialisation(asset).metadata
        return {name: value.value for name, value in metadata.items()}


def run_job(
    instance: dg.DagsterInstance,
    location: str,
    *,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    retries: bool = False,
    run_config: Mapping[str, Any] | None = None,
    **options: Any,
) -> dg.JobExecutionResult:
    """Runs a location's job as a run of its own would, in this process.

    Args:
        instance: the Dagster instance.
        location: the code location.
        partition_key: day of the daily summary.
        tags: further tags of the run.
        retries: whether steps are retried, as they are in production.
        run_config: configuration of the assets.
        options: those of ``dagster.execute_job``.
    """
    partition = {"dagster/partition": partition_key} if partition_key else {}
    retry_mode: Mapping[str, Any] = {"enabled" if retries else "disabled": {}}
    return dg.execute_job(
        dg.reconstructable(JOBS[location]),
        instance,
        run_config={"execution": {"config": {"retries": retry_mode}}, **(run_config or {})},
        tags={**partition, **(tags or {})},
        **{"raise_on_error": True, **options},
    )


def days(first: str, last: str) -> dict[str, str]:
    """Tags of a run that makes some days of the daily summary."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


@contextmanager
def started(
    folder: Path, variables: Mapping[str, str], instance: dg.DagsterInstance | None = None
) -> Iterator[Platform]:
    """A platform in a folder, with no run yet; its variables are set meanwhile.

    Args:
        folder: where everything goes that the variables do not put elsewhere.
        variables: the databases and the API, and whatever else shall differ.
        instance: the Dagster instance; one in memory, which is much faster than one on disk, if
            none is given.
    """
    for sub in ("landing", "exports"):
        (folder / sub).mkdir()
    variables = {**_local(folder), **variables}
    given = nullcontext(instance) if instance else dg.DagsterInstance.ephemeral()
    with given as used, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield Platform(
            instance=used,
            source=_parameters("DB", variables),
            serving=_parameters("SERVING_DB", variables),
            landing=folder / "landing",
            exports=folder / "exports",
            iceberg=open_iceberg(variables),
            variables=variables,
        )


def open_iceberg(variables: Mapping[str, str]) -> IcebergResource:
    """The catalog that the variables name, opened anew."""
    return IcebergResource(
        catalog_uri=variables["ICEBERG_CATALOG_URI"],
        warehouse_path=variables["ICEBERG_WAREHOUSE"],
    )


def _local(folder: Path) -> dict[str, str]:
    return {
        "ICEBERG_CATALOG_URI": f"sqlite:///{folder}/catalog.db",
        "ICEBERG_WAREHOUSE": f"file://{folder}/tables",
        "LANDING_URI": f"file://{folder}/landing",
        "EXPORT_URI": f"file://{folder}/exports",
    }


def database_variables(prefix: str, parameters: ConnectionParameters) -> dict[str, str]:
    """A database as a deployment's variables name it."""
    return {
        f"{prefix}_HOST": parameters["host"],
        f"{prefix}_PORT": str(parameters["port"]),
        f"{prefix}_USER": parameters["user"],
        f"{prefix}_PASSWORD": parameters["password"],
        f"{prefix}_NAME": parameters["database"],
    }


def _parameters(prefix: str, variables: Mapping[str, str]) -> ConnectionParameters:
    return {
        "host": variables[f"{prefix}_HOST"],
        "port": int(variables[f"{prefix}_PORT"]),
        "user": variables[f"{prefix}_USER"],
        "password": variables[f"{prefix}_PASSWORD"],
        "database": variables[f"{prefix}_NAME"],
    }


def copy_database(server: EmbeddedPostgres, original: str, copy: str) -> ConnectionParameters:
    """A database with the content of another one, to which nobody may be connected."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with closing(psycopg2.connect(**server.connection())) as connection:
        connection.autocommit = True
        names = (sql.Identifier(copy), sql.Identifier(original))
        connection.cursor().execute(statement.format(*names))
    return server.connection(copy)


@contextmanager
def connected(parameters: ConnectionParameters) -> Iterator[Connection]:
    """A connection and its transaction, in UTC: committed at the end, closed in any case."""
    connection = psycopg2.connect(**parameters, options="-c TimeZone=UTC")
    with closing(connection), connection:
        yield connection


def query(
    parameters: ConnectionParameters, statement: str, *values: object
) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with connected(parameters) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def select_like(
    parameters: ConnectionParameters, relation: sql.Identifier, frame: pl.DataFrame
) -> pl.DataFrame:
    """A PostgreSQL table or view in the columns and types of a frame."""
    names = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    with connected(parameters) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(names, relation))
        return pl.DataFrame(cursor.fetchall(), schema=frame.schema, orient="row")
