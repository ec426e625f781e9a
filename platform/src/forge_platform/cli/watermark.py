"""``forge watermark``."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import click

from forge_platform.cli.environment import asset_metadata, full_name, open_iceberg
from forge_platform.cli.output import as_json, print_json, print_table
from forge_platform.errors import ConfigurationError
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.sources import WATERMARK_OF

# How far ahead the clock may be that a time stamp was taken from.
_CLOCKS_DIFFER = dt.timedelta(minutes=5)

_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def watermark() -> None:
    """Shows and moves how far a table follows its source."""


@watermark.command()
@click.argument("table")
@as_json
def show(table: str, *, as_json: bool) -> None:
    """Shows the watermark of TABLE, its data version, and the snapshots it was made from."""
    iceberg = open_iceberg()
    _print(iceberg, full_name(iceberg, table), as_json=as_json)


@watermark.command("set")
@click.argument("table")
@click.argument("value")
@_yes
@as_json
def set_(table: str, value: str, *, yes: bool, as_json: bool) -> None:
    """Moves the watermark of TABLE to VALUE, an ISO time stamp (UTC unless it says otherwise).

    The next run reads what changed since then. Forward, what lies between is not read: it is
    lost until `forge backfill --since`. A moment in the future is refused: what changes until then
    would never be read.
    """
    iceberg = open_iceberg()
    name = full_name(iceberg, table)
    position = iceberg.position(name)
    current = position.watermark
    wanted = _like(current, value, name)
    _ask(f"Move the watermark of {name} from {current or 'none'} to {wanted}?", yes=yes)
    _move(iceberg, name, wanted, _columns_read(position.window))
    _print(iceberg, name, as_json=as_json)


@watermark.command()
@click.argument("table")
@_yes
@as_json
def reset(table: str, *, yes: bool, as_json: bool) -> None:
    """Takes the watermark of TABLE away: the next run reads everything."""
    iceberg = open_iceberg()
    name = full_name(iceberg, table)
    if (current := iceberg.watermark(name)) is not None:
        _ask(f"Take the watermark {current} of {name} away?", yes=yes)
        _move(iceberg, name, "", "")
    _print(iceberg, name, as_json=as_json)


def _ask(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


def _columns_read(window: str | None) -> str:
    """What remains true when the watermark moves: one that is new is still to be read of all rows.

    What the source held near the old watermark says nothing about the new one.
    """
    known = json.loads(window) if window else {}
    return json.dumps({"columns": known["columns"]}) if "columns" in known else ""


def _move(iceberg: IcebergResource, name: str, value: str, window: str) -> None:
    """Commits the watermark as any write does: a writer that was first keeps its rows."""
    from forge_platform.iceberg.commit import Plan, commit
    from forge_platform.iceberg.state import WATERMARK, WINDOW

    found = iceberg.find(name)
    if found is None:  # dropped since it was listed
        raise ConfigurationError(f"The table {name} is gone.")
    with iceberg.failures():
        commit(found, lambda _: Plan(), {WATERMARK: value, WINDOW: window})


def _like(current: str | None, value: str, name: str) -> str:
    """The value in the form of the current watermark.

    Raises:
        ConfigurationError: it is no time stamp or a future one, or the table's watermark is none.
    """
    moment = _past_moment(value)
    metadata = asset_metadata(name) if current is None else {}
    if metadata and WATERMARK_OF not in metadata:
        raise ConfigurationError(
            f"The asset of {name} does not follow a time stamp of a source, so it has no watermark "
            f"to set. If it does, say so in its metadata: {WATERMARK_OF}."
        )
    if current is None or (_moment(current) and len(current) > len("2024-01-31")):
        return moment.isoformat()
    if _moment(current):
        return moment.date().isoformat()
    raise ConfigurationError(
        f"The watermark of {name} is {current!r}, which is no time stamp: it cannot be set, only "
        "reset."
    )


def _past_moment(value: str) -> dt.datetime:
    moment = _moment(value)
    if moment is None or moment.year == dt.MINYEAR:  # an overlap before it there must be a moment
        raise ConfigurationError(
            f"{value!r} is no time stamp of the years 2 to 9999 in UTC: use ISO 8601, such as "
            "2024-01-31T12:00:00Z."
        )
    if moment > dt.datetime.now(dt.UTC) + _CLOCKS_DIFFER:
        raise ConfigurationError(
            f"{moment.isoformat()} is in the future. Runs read what changes after the watermark "
            "and never move it back, so they would read nothing until then: use a moment that has "
            "been."
        )
    return moment


def _moment(text: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def _print(iceberg: IcebergResource, name: str, *, as_json: bool) -> None:
    found = _described(iceberg, name)
    if as_json:
        print_json(found)
        return
    shown = {**found, "inputs": ", ".join(f"{of} {id_}" for of, id_ in found["inputs"].items())}
    print_table([{"what": what, "value": value or None} for what, value in shown.items()])


def _described(iceberg: IcebergResource, name: str) -> Mapping[str, Any]:
    from forge_platform.iceberg.state import data_version

    table = iceberg.find(name)
    return {
        "table": name,
        "watermark": iceberg.watermark(name),
        "data_version": data_version(table) if table else None,
        "inputs": iceberg.inputs(name),
    }
