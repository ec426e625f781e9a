"""What a night of table care does for a table with 2,000 commits, and what it costs.

A table as two thousand hourly runs leave it: each appended or merged some rows. The same queries
are timed before the care and after it, each from opening the table on, the best of several times.

    .venv/bin/python benchmarks/table_care.py [--commits 2000] [--rows 500] [--json]
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
from pyiceberg.catalog import Catalog
from pyiceberg.table.metadata import TableMetadataV2

from forge_platform.cli.output import print_json, print_table
from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.commit import Plan, commit
from forge_platform.iceberg.maintenance.care import Neighbours, care
from forge_platform.iceberg.view import IcebergView, current_snapshot_id
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.maintenance import CareOptions

TABLE = "bench.orders"
KEY = ("order_id",)
ATTEMPTS = 3
WANTED = 4_711
MERGE_EVERY = 100
STATUSES = ("new", "paid", "sent", "lost")


def main() -> None:
    """Builds the table, times the queries, cares for the table, and times them again."""
    options = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="forge-bench-", dir=options.folder))
    try:
        _report(_measured(folder, options.commits, options.rows), as_json=options.json)
    finally:
        shutil.rmtree(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=500, help="rows of a commit")
    parser.add_argument("--folder", help="where the table is made")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def _measured(folder: Path, commits: int, rows: int) -> dict[str, Any]:
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    with _quick_commits():
        built, _ = _timed(lambda: _build(catalog, commits, rows))
    before, expected = _figures(catalog, folder)
    spent, done = _timed(lambda: _care(catalog))
    after, found = _figures(catalog, folder)
    if expected != found:
        raise AssertionError(f"the rows changed: {expected} before, {found} after")
    return {
        "commits": commits,
        "build_seconds": built,
        "care_seconds": spent,
        "care": done,
        "before": before,
        "after": after,
    }


@contextmanager
def _quick_commits() -> Iterator[None]:
    """Copies no snapshot while the table is built: pyiceberg copies all of them a dozen times.

    With it a commit takes seconds at the end, and 2,000 take an hour.
    """
    copy = TableMetadataV2.model_copy

    def shallow(
        metadata: TableMetadataV2,
        *,
        update: Mapping[str, Any] | None = None,
        deep: bool = False,  # noqa: ARG001 - what is left out
    ) -> TableMetadataV2:
        return copy(metadata, update=update)

    with mock.patch.object(TableMetadataV2, "model_copy", shallow):
        yield


def _build(catalog: Catalog, commits: int, rows: int) -> None:
    """Mostly appended; every hundredth commit also changes half of the rows before its own."""
    for number in range(commits):
        is_merge = number % MERGE_EVERY == MERGE_EVERY - 1
        first = number * rows - (rows // 2 if is_merge else 0)
        write = WriteRequest(
            rows=_orders(first, (number + 1) * rows, number),
            mode="merge" if is_merge else "append",
            properties={"forge.watermark": str(number)},
        )
        write_table(catalog, TABLE, write, TableOptions(key=KEY if is_merge else ()))


def _orders(first: int, last: int, hour: int) -> pl.DataFrame:
    numbers = pl.int_range(first, last, eager=True)
    moment = dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=hour)
    return pl.DataFrame(
        {
            "order_id": numbers,
            "customer_id": numbers * 7919 % 20_000,
            "status": [STATUSES[number % len(STATUSES)] for number in numbers],
            "amount": (numbers % 10_000).cast(pl.Float64) / 100,
            "updated_at": pl.repeat(moment, numbers.len(), eager=True).cast(
                pl.Datetime("us", "UTC")
            ),
        }
    )


def _care(catalog: Catalog) -> dict[str, int | float]:
    """As the nightly asset does it, a month later: everything is old enough."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)
    options = CareOptions()
    table = catalog.load_table(TABLE)
    neighbours = Neighbours.of(catalog)
    return care(table, TABLE, options, neighbours=neighbours, key=KEY, now=later)


def _figures(catalog: Catalog, folder: Path) -> tuple[dict[str, Any], object]:
    """Sizes and times, and the result of the query that reads everything."""
    files = list(_file_sizes(folder / "tables"))
    results = {name: _best(partial(query, catalog)) for name, query in QUERIES.items()}
    sizes = {
        "files_on_disk": len(files),
        "megabytes_on_disk": round(sum(files) / 1e6, 1),
    }
    return {**sizes, **{name: seconds for name, (seconds, _) in results.items()}}, results[
        "all_rows_by_status_seconds"
    ][1]


def _file_sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # pyiceberg removes old metadata in the background
            if path.is_file():
                yield path.stat().st_size


def _view(catalog: Catalog) -> IcebergView:
    table = catalog.load_table(TABLE)
    return IcebergView(table, TABLE, current_snapshot_id(table))


def _opened(catalog: Catalog) -> object:
    return _view(catalog).snapshot_id


def _by_status(catalog: Catalog) -> object:
    found = _view(catalog).scan().group_by("status").agg(pl.len(), pl.col("amount").sum().round(2))
    return found.sort("status").collect().rows()


def _one_row(catalog: Catalog) -> object:
    return _view(catalog).scan().filter(pl.col("order_id") == WANTED).collect().rows()


def _merged(catalog: Catalog) -> object:
    """A merge that changes nothing: it has to find and read the rows that it is about."""
    unchanged = _view(catalog).scan().filter(pl.col("order_id") == WANTED).collect()
    request = WriteRequest(rows=unchanged, mode="merge")
    return write_table(catalog, TABLE, request, TableOptions(key=KEY)).unchanged


def _committed(catalog: Catalog) -> object:
    """A commit without rows."""
    table = catalog.load_table(TABLE)
    return commit(table, lambda _: Plan(), {"forge.watermark": str(time.time_ns())}).committed


QUERIES: dict[str, Callable[[Catalog], object]] = {
    "open_seconds": _opened,
    "all_rows_by_status_seconds": _by_status,
    "one_row_by_key_seconds": _one_row,
    "merge_of_one_row_seconds": _merged,
    "commit_seconds": _committed,
}


def _best(action: Callable[[], object]) -> tuple[float, object]:
    times = [_timed(action) for _ in range(ATTEMPTS)]
    return min(times, key=lambda timed: timed[0])


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return round(time.perf_counter() - started, 3), result


def _report(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    before, after = found["before"], found["after"]
    print_table(
        [
            {
                "what": name.removesuffix("_seconds").replace("_", " "),
                "before": str(before[name]),
                "after": str(after[name]),
                "ratio": f"{before[name] / after[name]:.1f}" if after[name] else "-",
            }
            for name in before
        ],
        ("before", "after", "ratio"),
    )
    rest = {name: found[name] for name in ("commits", "build_seconds", "care_seconds")}
    print_table([{"what": name, "value": str(value)} for name, value in rest.items()])
    print_table([{"what": name, "value": str(value)} for name, value in found["care"].items()])


if __name__ == "__main__":
    main()
