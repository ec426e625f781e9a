"""Customer files that partners drop, each version exactly once."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from forge_platform import (
    RETRY_TRANSIENT,
    FileSchema,
    IcebergResource,
    RunMode,
    RunModeConfig,
    S3Resource,
    TableWrite,
    load_files,
    not_loaded,
    table_options,
)
from forge_platform.contracts import RAW_CUSTOMER_FILES
from forge_platform.tables import Position

if TYPE_CHECKING:
    import polars as pl

ROWS = RAW_CUSTOMER_FILES.identifier
REJECTED = "ingestion.rejected_rows"
LEDGER = "ingestion.loaded_files"
TABLES = (REJECTED, ROWS, LEDGER)
KEPT = "ledger"
"""The watermark of the ledger and of the tables that it speaks for.

Where every run overwrites there is none, nor in a table that was made anew.
"""

CUSTOMER_FILES = FileSchema(
    columns={
        name: kind for name, kind in RAW_CUSTOMER_FILES.columns.items() if not name.startswith("_")
    },
    required=("customer_id", "updated_at"),
)


@dg.multi_asset(
    outs={
        "rejected_rows": dg.AssetOut(
            description="Rows of landing files that cannot be used: file, line, reason, text.",
            kinds={"s3", "iceberg"},
            metadata=table_options(mode="merge", key=("source_file", "source_line")),
        ),
        "raw_customer_files": dg.AssetOut(
            description=RAW_CUSTOMER_FILES.description,
            kinds={"s3", "iceberg"},
            metadata=table_options(mode="merge", key=RAW_CUSTOMER_FILES.key),
        ),
        "loaded_files": dg.AssetOut(
            description="Which version of which landing file was loaded.",
            kinds={"s3", "iceberg"},
            metadata=table_options(mode="merge", key=("source_file",)),
        ),
    },
    retry_policy=RETRY_TRANSIENT,
)
def raw_customer_files(
    config: RunModeConfig, iceberg: IcebergResource, landing: S3Resource
) -> Iterator[dg.Output[TableWrite]]:
    """Loads the files that the ledger does not have; the ledger is written last.

    A run that dies before the ledger is written loads the same files into the same rows. Of two
    runs at once one is refused and retried: it may have read an older version of a file.
    """
    continues = {table: iceberg.position(table) for table in TABLES}
    kept = is_kept(continues)
    loaded = loaded_versions(iceberg) if kept and config.mode is not RunMode.FULL else {}
    found = not_loaded(landing.list_objects(), loaded)
    with load_files(landing, found, CUSTOMER_FILES) as landed:
        rows_read = landed.row_count + landed.rejected_count
        alone = bool(landed.files)
        yield dg.Output(
            TableWrite(
                rows=landed.rejected(),
                deleted_keys=landed.stale_rejected(existing_rows(iceberg, REJECTED)),
                rows_read=rows_read,
                watermark=KEPT,
                continues=continues[REJECTED],
                alone=alone,
            ),
            "rejected_rows",
        )
        yield dg.Output(
            TableWrite(
                rows=landed.rows(),
                deleted_keys=landed.stale_rows(existing_rows(iceberg, ROWS)),
                rows_rejected=landed.rejected_count,
                metadata=landed.metadata(),
                rows_read=rows_read,
                watermark=KEPT,
                continues=continues[ROWS],
                alone=alone,
            ),
            "raw_customer_files",
        )
        yield dg.Output(
            TableWrite(
                rows=landed.ledger(),
                mode=None if kept else "overwrite",  # what was not believed must not be later
                watermark=KEPT,
                continues=continues[LEDGER],
                alone=alone,
            ),
            "loaded_files",
        )


def is_kept(positions: Mapping[str, Position]) -> bool:
    """Whether the ledger speaks for all tables as they are."""
    return all(positions[table].watermark == KEPT for table in TABLES)


def loaded_versions(iceberg: IcebergResource) -> dict[str, tuple[str, datetime]]:
    """Which version of each file is loaded, and from when, by the ledger."""
    columns = ["source_file", "version", "last_modified"]
    ledger = iceberg.view(LEDGER).read(columns).select(columns)
    return {name: (version, modified) for name, version, modified in ledger.iter_rows()}


def existing_rows(iceberg: IcebergResource, table: str) -> "pl.LazyFrame":
    """The table's rows; none with the key's columns before it exists."""
    import polars as pl

    if iceberg.find(table) is None:
        names = ("source_file", "source_line", "_source_file", "_source_line")
        return pl.LazyFrame(schema=dict.fromkeys(names, pl.String))
    return iceberg.view(table).scan()
