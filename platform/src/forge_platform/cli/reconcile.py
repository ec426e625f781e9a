"""``forge reconcile``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from forge_platform.cli.environment import (
    asset_metadata,
    full_name,
    open_database,
    open_iceberg,
)
from forge_platform.cli.output import as_json, print_json, print_table, progress_bar
from forge_platform.errors import ConfigurationError
from forge_platform.extraction import SourceTable

if TYPE_CHECKING:
    from forge_platform.comparison.tables import RangeReport, Report
    from forge_platform.resources.database import DatabaseResource

DIFFERENT = 1
_NUMBERS = ("source_rows", "table_rows", "missing", "extra", "different", "pending")


@click.command()
@click.argument("table")
@click.option("--source", metavar="SCHEMA.TABLE", help="The source, if its asset is not installed.")
@click.option("--key", metavar="COLUMN[,COLUMN]", help="What identifies a row; the asset's key.")
@click.option(
    "--database", default="DB", show_default=True, help="Prefix of the source's variables."
)
@as_json
@click.pass_context
def reconcile(
    context: click.Context,
    table: str,
    source: str | None,
    key: str | None,
    database: str,
    *,
    as_json: bool,
) -> None:
    """Compares TABLE with its source: row counts and checksums by ranges of the key.

    Both sides count and sum up by themselves; only ranges that differ are looked at more
    closely, and only the smallest of them are read, as keys and checksums. A row of the source
    that is newer than the table's watermark is pending, which is no difference.

    Ends with 1 when the tables differ.
    """
    from forge_platform.comparison import tables

    iceberg = open_iceberg()
    name = full_name(iceberg, table)
    server = open_database(database)
    wanted = _source(name, source, key, server)
    view = iceberg.view(name)
    moment = iceberg.watermark(name)
    with iceberg.failures(), progress_bar(f"comparing {name}", hidden=as_json) as advance:
        both = tables.KeyedTables.of(server, wanted, view, wanted.key)
        settled = datetime.fromisoformat(moment) if moment else None
        report = tables.reconcile(both, settled, advance)
    if as_json:
        print_json(_as_json(name, wanted, report))
    else:
        _print(name, wanted, report)
    context.exit(0 if report.is_equal else DIFFERENT)


def _source(
    table: str, named: str | None, key: str | None, database: DatabaseResource
) -> SourceTable:
    """What the asset tells of its source, or what the options do."""
    from forge_platform.sources import source_of

    keys = tuple(key.split(",")) if key else ()
    told = source_of(asset_metadata(table))
    if named is None and told is not None:
        return SourceTable(**{**vars(told), "key": keys or told.key})
    if named is None or not keys:
        raise ConfigurationError(
            f"Nothing here tells which source table {table} is made from: install its code "
            "location, or give --source and --key."
        )
    schema, _, name = named.rpartition(".")
    columns = database.columns(schema or "public", name)
    moments = [column for column, kind in columns.items() if kind.startswith("timestamp")]
    newest = "updated_at" if "updated_at" in moments else next(iter(moments), None)
    if newest is None:
        raise ConfigurationError(f"{named} has no time stamp that tells which row is newer.")
    return SourceTable(schema or "public", name, columns, watermark_column=newest, key=keys)


def _as_json(name: str, source: SourceTable, report: Report) -> Mapping[str, Any]:
    return {
        "table": name,
        "source": source.name,
        "equal": report.is_equal,
        "source_rows": report.source.rows,
        "table_rows": report.table.rows,
        "source_checksum": str(report.source.digest),
        "table_checksum": str(report.table.digest),
        "not_compared": list(report.left_out),
        "ranges": _rows(report.ranges),
    }


def _rows(ranges: Sequence[RangeReport]) -> list[dict[str, Any]]:
    return [
        {
            "from": part.within.low,
            "before": part.within.high,
            **{name: getattr(part, name) for name in _NUMBERS},
            "examples": list(part.examples),
        }
        for part in ranges
    ]


def _print(name: str, source: SourceTable, report: Report) -> None:
    if report.ranges:
        shown = [
            {**row, "examples": "; ".join(row["examples"][:3])} for row in _rows(report.ranges)
        ]
        print_table(shown, _NUMBERS)
    if report.left_out:
        click.echo(f"Not compared: {', '.join(report.left_out)}.")
    verdict = "are equal" if not report.ranges else "are equal but for what is pending"
    click.echo(
        f"{source.name} ({report.source.rows:,} rows) and {name} ({report.table.rows:,} rows) "
        f"{verdict if report.is_equal else 'differ'}."
    )
