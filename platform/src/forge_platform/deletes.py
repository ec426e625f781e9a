"""Rows that the source no longer has: by a column that marks them, or by comparing keys.

Extraction reads what changed, and a row that is gone changes no more. Both ways here add keys to
what is committed with the extracted rows; a key that comes in with them stays, so a row that was
deleted and made again is not lost.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from forge_platform.errors import ConfigurationError
from forge_platform.extraction import ExtractConfig, SourceTable
from forge_platform.tables import TableWrite

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from forge_platform.iceberg.view import IcebergView
    from forge_platform.resources.database import DatabaseResource
    from forge_platform.resources.iceberg import IcebergResource

EXAMPLES = 20


class DeletesConfig(ExtractConfig):
    """Run configuration of an asset that also looks for rows that the source no longer has."""

    compare_keys: bool = Field(
        default=False,
        description="Compares the keys of source and table, range by range, and removes the rows "
        "whose key is gone. Reads the keys of both once; nothing of the ranges that are equal is "
        "sent.",
    )


def remove_missing_keys(
    extraction: Callable[[], TableWrite],
    database: "DatabaseResource",
    source: SourceTable,
    iceberg: "IcebergResource",
    table: str,
    config: ExtractConfig | None = None,
) -> TableWrite:
    """Extracts, and also removes the rows whose key the source does not have any more.

    The keys are compared first, so that the source keeps no snapshot for the rows meanwhile. What
    the extraction continues must have been looked up before: a row that came back while keys were
    compared then comes with it, and stays. Rows that the table lacks, and that are older than what
    is extracted, are counted and warned of (``missing_keys``).

    Args:
        extraction: extracts, from a position that is known already. When it replaces the table,
            nothing needs to be removed.
        database: the source.
        source: the source table; its ``key`` identifies a row.
        iceberg: the catalog.
        table: the table, ``namespace.asset``.
        config: the configuration that the rows are extracted with, if it is not the default.

    Raises:
        ConfigurationError: the key cannot be compared.
        SourceUnavailable: the source is away, busy, or took too long.
    """
    from forge_platform.comparison.tables import KeyedTables, compare_keys

    if iceberg.find(table) is None:
        return extraction()
    view = iceberg.view(table)
    start = _start(source, config or ExtractConfig(), iceberg.watermark(table))
    with iceberg.failures():
        found = compare_keys(KeyedTables.of(database, source, view, source.key), start)
    write = extraction()
    if write.mode == "overwrite":
        return write
    if found.missing:
        dg.get_dagster_logger().warning(
            "%s lacks %s keys of %s, whose rows are older than what runs read. Run it in the mode "
            "full once, or since a moment before their time stamps.",
            table,
            found.missing,
            source.name,
        )
    notes = {
        "keys_in_source": found.comparison.source.rows,
        "keys_in_table": found.comparison.table.rows,
        "ranges_that_differ": len(found.comparison.differences),
        "missing_keys": found.missing,
    }
    return _with_deleted(write, view, found.gone, "keys that the source does not have", notes)


def remove_marked(
    write: TableWrite,
    database: "DatabaseResource",
    source: SourceTable,
    iceberg: "IcebergResource",
    table: str,
    *,
    column: str,
    config: ExtractConfig,
) -> TableWrite:
    """Leaves out the rows that the source marks as deleted, and removes them from the table.

    A boolean column marks a row when it is true, any other one when it is not NULL. To keep such
    rows, with their mark, do not call this. Marking a row must renew its watermark column, as
    any other change.

    Args:
        write: what was extracted.
        database: the source.
        source: the source table; its ``key`` identifies a row.
        iceberg: the catalog.
        table: the table, ``namespace.asset``.
        column: the column that marks a row as deleted.
        config: the configuration that the rows were extracted with.

    Raises:
        ConfigurationError: the column is not extracted, or the source table has no key.
        SourceUnavailable: the source is away, busy, or took too long.
    """
    if column not in source.columns or not source.key:
        raise ConfigurationError(
            f"{source.name} cannot be asked for rows that {column} marks as deleted: name the "
            "column among its columns, and its key."
        )
    if write.rows is None:
        return write
    is_flag = source.columns[column].strip().lower() in {"bool", "boolean"}
    kept = replace(write, rows=_unmarked(write.rows, column, is_flag=is_flag))
    if write.mode == "overwrite" or iceberg.find(table) is None:
        return kept
    start = _start(source, config, iceberg.watermark(table))
    gone = _marked_keys(database, source, start, column, is_flag=is_flag)
    return _with_deleted(kept, iceberg.view(table), gone, f"marked by {column}", {})


def _with_deleted(
    write: TableWrite, view: "IcebergView", gone: "pl.DataFrame", why: str, notes: Mapping[str, int]
) -> TableWrite:
    """The write, with further keys that go."""
    found = {**write.metadata, **notes}
    if gone.is_empty():
        return replace(write, metadata={"deleted_keys": 0, **found})
    dg.get_dagster_logger().info("%s rows of %s go: %s", gone.height, view.identifier, why)
    examples = [", ".join(map(str, key)) for key in gone.head(EXAMPLES).iter_rows()]
    metadata: dict[str, Any] = {
        **found,
        "deleted_keys": gone.height + found.get("deleted_keys", 0),
        "deleted_why": "; ".join([*filter(None, [found.get("deleted_why")]), why]),
        "deleted_examples": [*found.get("deleted_examples", []), *examples][:EXAMPLES],
    }
    # The write needs the table's columns, also where no row has changed.
    rows = view.table.schema().as_arrow().empty_table() if write.rows is None else write.rows
    return replace(write, rows=rows, deleted_keys=_all_keys(write, gone), metadata=metadata)


def _all_keys(write: TableWrite, gone: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    from forge_platform.iceberg.write import to_reader

    if write.deleted_keys is None:
        return gone
    earlier = pl.DataFrame(pl.from_arrow(to_reader(write.deleted_keys).read_all()))
    return pl.concat([earlier.select(gone.columns).cast(gone.schema), gone])


def _start(source: SourceTable, config: ExtractConfig, watermark: str | None) -> datetime | None:
    """From where the rows were read, at the latest."""
    since = config.since_moment()
    if since is not None or watermark is None:
        return since
    return datetime.fromisoformat(watermark) - source.overlap


def _marked_keys(
    database: "DatabaseResource",
    source: SourceTable,
    start: datetime | None,
    column: str,
    *,
    is_flag: bool,
) -> "pl.DataFrame":
    import polars as pl
    from psycopg2 import sql

    from forge_platform.postgres.source import rows_query

    condition = sql.SQL("{} IS TRUE" if is_flag else "{} IS NOT NULL")
    statement = sql.SQL("SELECT {} FROM ({}) AS versions WHERE {}").format(
        sql.SQL(", ").join(map(sql.Identifier, source.key)),
        rows_query(source, start, unique=False),
        condition.format(sql.Identifier(column)),
    )
    return pl.DataFrame(pl.from_arrow(database.stream(statement).read_all()))


def _unmarked(rows: Any, column: str, *, is_flag: bool) -> "pa.RecordBatchReader":  # noqa: ANN401
    """The stream without the marked rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from forge_platform.iceberg.write import to_reader

    reader = to_reader(rows)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            mark = batch.column(column)
            unset = pc.is_null(mark)
            yield batch.filter(pc.or_kleene(unset, pc.invert(mark)) if is_flag else unset)

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
