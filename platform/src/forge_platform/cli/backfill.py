"""``forge backfill``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import click

from forge_platform.automation import location_tags
from forge_platform.cli.output import Advance, as_json, print_json, progress_bar
from forge_platform.cli.webserver import Asset, Webserver
from forge_platform.errors import ConfigurationError

FAILED = 1
_ENDED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
_RUN_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_GOOD = {"COMPLETED", "COMPLETED_SUCCESS", "SUCCESS"}
_POLL_SECONDS = 1.0


@click.command()
@click.argument("asset")
@click.option("--from", "first", metavar="PARTITION", help="First partition; the asset's first.")
@click.option("--to", "last", metavar="PARTITION", help="Last partition, itself included.")
@click.option("--since", metavar="TIME", help="Reads again what changed since an ISO time stamp.")
@click.option("--full", is_flag=True, help="Reads or derives everything again.")
@click.option(
    "--url",
    envvar="DAGSTER_WEBSERVER_URL",
    show_envvar=True,
    required=True,
    help="The Dagster webserver; from a laptop, a forwarded port.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end.")
@as_json
@click.pass_context
def backfill(  # noqa: PLR0913 - one for each option
    context: click.Context,
    asset: str,
    first: str | None,
    last: str | None,
    since: str | None,
    *,
    full: bool,
    url: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Makes ASSET again: a range of its partitions, or what changed since a moment.

    The work is done where Dagster runs it, as a backfill (partitions) or a run of the asset's job
    (--since, --full); this command only launches it, and shows how far it is. Needs nothing but
    the webserver. Ends with 1 when what was launched failed.
    """
    server = Webserver(url)
    found = server.asset(asset)
    if since is not None or full:
        _refuse_partitions(first, last)
        config = _config(since, full=full)
        id_ = server.run(found, config, _run_tags(found))
        kind = "run"
    else:
        id_ = server.backfill(found, _range(server, found, first, last), _run_tags(found))
        kind = "backfill"
    with progress_bar(f"{kind} {id_}", hidden=as_json) as advance:
        status = _wait(server, kind, id_, advance) if wait else "LAUNCHED"
    if as_json:
        print_json({"asset": asset, kind: id_, "status": status})
    else:
        page = "runs" if kind == "run" else "runs/b"
        click.echo(f"{kind} {id_}: {status}. Look at {url.rstrip('/')}/{page}/{id_}")
    context.exit(0 if not wait or status in _GOOD else FAILED)


def _run_tags(asset: Asset) -> Mapping[str, str]:
    # As all runs of the location: the instance does not let them overlap.
    return location_tags(asset.location)


def _config(since: str | None, *, full: bool) -> Mapping[str, str]:
    if since is None:
        return {"mode": "full"}
    if full:
        raise click.UsageError("--since reads a part and --full everything: give one of them.")
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise click.UsageError(
            f"--since is {since!r}: use an ISO time stamp such as 2024-01-31T12:00:00Z."
        ) from None
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return {"mode": "since", "since": utc.isoformat()}


def _refuse_partitions(first: str | None, last: str | None) -> None:
    if first or last:
        raise click.UsageError("--since and --full make no partitions: leave out --from and --to.")


def _range(server: Webserver, asset: Asset, first: str | None, last: str | None) -> list[str]:
    if not asset.is_partitioned:
        raise ConfigurationError(
            f"{asset.name} has no partitions: use --since (what an asset extracts) or --full."
        )
    keys = server.partitions(asset)
    for key in (first, last):
        if key is not None and key not in keys:
            raise ConfigurationError(
                f"{asset.name} has no partition {key!r}: they go from {keys[0]} to {keys[-1]}."
            )
    start = keys.index(first) if first else 0
    end = keys.index(last) if last else len(keys) - 1
    if start > end:
        raise click.UsageError(f"--from {first} is after --to {last}.")
    return keys[start : end + 1]


def _wait(server: Webserver, kind: str, id_: str, advance: Advance) -> str:
    while True:
        if kind == "run":
            status, done, total = server.run_status(id_), 0, 1
        else:
            status, done, total = server.backfill_status(id_)
        advance(done, total)
        if status in (_RUN_ENDED if kind == "run" else _ENDED):
            return status
        time.sleep(_POLL_SECONDS)
