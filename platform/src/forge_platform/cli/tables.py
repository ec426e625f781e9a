"""``forge tables``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from forge_platform.cli.environment import open_iceberg, table_names
from forge_platform.cli.output import as_json, print_json, print_table
from forge_platform.environment import current_environment
from forge_platform.errors import (
    ConfigurationError,
    ForgeError,
    PermanentError,
    TableFileMissing,
)

if TYPE_CHECKING:
    from pyiceberg.table import Table

_NUMBERS = ("rows", "files", "delete_files", "bytes", "snapshots")


@click.command()
@click.argument("namespace", required=False)
@as_json
def tables(namespace: str | None, *, as_json: bool) -> None:
    """Lists the tables: rows, files, snapshots, watermark, age.

    With NAMESPACE, only those of one code location. Nothing but metadata is read. Tables that
    cannot be read are named after the others.
    """
    iceberg = open_iceberg()
    rows, unreadable = [], []
    for name in _within(namespace, table_names(iceberg)):
        try:
            table = iceberg.find(name)
        except Exception as error:
            if isinstance(error, ForgeError) and not isinstance(error, TableFileMissing):
                raise
            unreadable.append(f"{name}: {error}")
        else:
            if table:
                rows.append({"table": name, **_described(table)})
    print_json(rows) if as_json else print_table(rows, _NUMBERS)
    if unreadable:
        raise PermanentError(
            "These tables cannot be read: bring back the files named, or drop the tables from the "
            "catalog and materialise their assets.\n" + "\n".join(unreadable)
        )


def _within(namespace: str | None, names: Sequence[str]) -> Sequence[str]:
    """The tables of one namespace, or all of them.

    Raises:
        ConfigurationError: the namespace has none.
    """
    found = [name for name in names if namespace in (None, name.partition(".")[0])]
    if namespace is None or found:
        return found
    choice = ", ".join(sorted({name.partition(".")[0] for name in names}))
    raise ConfigurationError(
        f"{namespace!r} names no namespace with tables of the environment "
        f"{current_environment().name}. There are: {choice or 'none: materialise an asset first'}."
    )


def _described(table: Table) -> dict[str, Any]:
    from forge_platform.iceberg.state import WATERMARK, state

    snapshot = table.current_snapshot()
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}

    def total(name: str) -> int:
        return int(summary.get(f"total-{name}") or 0)

    return {
        "rows": total("records") - total("position-deletes"),
        "files": total("data-files"),
        "delete_files": total("delete-files"),
        "bytes": total("files-size"),
        "snapshots": len(table.metadata.snapshots),
        "watermark": state(table).get(WATERMARK),
        "changed": _moment(snapshot.timestamp_ms) if snapshot else None,
    }


def _moment(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(sep=" ", timespec="seconds")
