"""A pipeline in a process of its own, which is killed at any point and started anew."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import polars as pl
import pyarrow as pa
from nessie import add_last_column_ids

from forge_platform import (
    CareOptions,
    DatabaseResource,
    ExtractConfig,
    FileSchema,
    IcebergResource,
    RunModeConfig,
    S3Resource,
    SourceTable,
    TableWrite,
    TransientError,
    extract,
    keys_of,
    load_files,
    not_loaded,
    plan_work,
    remove_marked,
    remove_missing_keys,
)
from forge_platform.iceberg import writer
from forge_platform.iceberg.maintenance.care import Neighbours, care
from forge_platform.iceberg.state import as_properties
from forge_platform.iceberg.write import TableOptions, WriteRequest, to_reader, write_table
from forge_platform.tables import Position
from forge_platform.testing import ConnectionParameters

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import CommitTableResponse, Table

    from forge_platform.tables import Frame, WriteMode

Moment = Literal["before", "after"]

OVERLAP = dt.timedelta(seconds=2)
ORPHAN_AGE = dt.timedelta(seconds=10)  # longer than a commit takes
SECONDS_TO_START = 60
SECONDS_TO_COMMIT = 60
PIECE_ROWS = 100

ORDERS = "space.orders"
ORDERS_ON_READ = "space.orders_on_read"
ORDERS_SHOWN = "space.orders_shown"
ORDER_LOG = "space.order_log"
CUSTOMERS = "space.customers"
TOTALS = "space.order_totals"
FILE_ROWS = "space.file_rows"
REJECTED = "space.rejected_rows"
LEDGER = "space.loaded_files"

_ORDERS = SourceTable(
    "public",
    "orders",
    {
        "order_id": "bigint",
        "customer_id": "bigint",
        "status": "text",
        "total_amount": "numeric(12,2)",
        "updated_at": "timestamptz",
    },
    overlap=OVERLAP,
    key=("order_id",),
)
_ORDERS_SHOWN = replace(_ORDERS, columns={**_ORDERS.columns, "hidden": "boolean"})
_ORDER_VERSIONS = SourceTable("public", "orders", _ORDERS.columns, overlap=OVERLAP, versions="all")
_CUSTOMERS = SourceTable(
    "public",
    "customers",
    {"customer_id": "bigint", "email": "text", "updated_at": "timestamptz"},
    overlap=OVERLAP,
    key=("customer_id",),
)
_FILES = FileSchema(columns={"customer_id": "long", "email": "string"}, required=("customer_id",))
_CARE = CareOptions(min_files=3, keep_days=0, keep_snapshots=5, metadata_versions=3)
_OPTIONS = {
    ORDERS: TableOptions(key=("order_id",)),
    ORDERS_ON_READ: TableOptions(key=("order_id",), on_read=True),
    ORDERS_SHOWN: TableOptions(key=("order_id",)),
    ORDER_LOG: TableOptions(key=("order_id", "updated_at")),
    CUSTOMERS: TableOptions(key=("customer_id",), order_by="updated_at"),
    TOTALS: TableOptions(key=("customer_id",)),
    FILE_ROWS: TableOptions(key=("_source_file", "_source_line")),
    REJECTED: TableOptions(key=("source_file", "source_line")),
    LEDGER: TableOptions(key=("source_file",)),
}

# A process that has imported all this is forked for every life of the pipeline.
_CONTEXT = get_context("forkserver")
_PRELOADED = [
    "_pytest.config",
    "boto3",
    "duckdb",
    "forge_platform.comparison.tables",
    "forge_platform.file_formats",
    "forge_platform.iceberg.maintenance.care",
    "forge_platform.iceberg.write",
    "forge_platform.postgres.stream",
    "forge_platform.spool",
    "nessie",
    "pyarrow.parquet",
    "pyiceberg.catalog.rest",
    "pyiceberg.catalog.sql",
]


@dataclass(frozen=True)
class Places:
    """What the pipeline reads and where it writes; the variables are those of its process."""

    source: ConnectionParameters
    catalog_uri: str
    warehouse: str
    landing_uri: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def iceberg(self) -> IcebergResource:
        """The tables."""
        found = IcebergResource(catalog_uri=self.catalog_uri, warehouse_path=self.warehouse)
        if self.catalog_uri.startswith("http"):
            add_last_column_ids(found.catalog())
        return found


class Pipeline:
    """Ingestion of a database and of files, a derived table, and the care of all tables."""

    def __init__(self, places: Places, chance: random.Random) -> None:
        self._chance = chance
        self._database = DatabaseResource(**places.source)
        self._iceberg = places.iceberg()
        self._landing = S3Resource(uri=places.landing_uri)
        self.steps: Mapping[str, Callable[[], None]] = {
            "orders": lambda: self._ingest(ORDERS, _ORDERS),
            "orders on read": lambda: self._ingest(ORDERS_ON_READ, _ORDERS),
            "orders shown": lambda: self._ingest(ORDERS_SHOWN, _ORDERS_SHOWN),
            "order log": lambda: self._ingest(ORDER_LOG, _ORDER_VERSIONS, "append"),
            "customers": lambda: self._ingest(CUSTOMERS, _CUSTOMERS),
            "files": self._load_files,
            "totals": self._derive_totals,
            "care": self._care,
        }

    def settle(self) -> None:
        """One run of everything, with the search for rows that the source does not have."""
        for name, step in self.steps.items():
            if name != "care":
                step()
        for table, source in (
            (ORDERS, _ORDERS),
            (ORDERS_ON_READ, _ORDERS),
            (ORDERS_SHOWN, _ORDERS_SHOWN),
            (CUSTOMERS, _CUSTOMERS),
        ):
            self._ingest(table, source, compare=True)
        self._derive_totals()

    def _ingest(
        self, table: str, source: SourceTable, mode: WriteMode = "merge", *, compare: bool = False
    ) -> None:
        position = self._iceberg.position(table)
        extraction = partial(self._extract, table, source, position)
        if compare or (mode == "merge" and self._chance.random() < 0.2):
            found = remove_missing_keys(extraction, self._database, source, self._iceberg, table)
        else:
            found = extraction()
        self._write(table, found, mode)

    def _extract(self, table: str, source: SourceTable, position: Position) -> TableWrite:
        config = ExtractConfig()
        found = extract(self._database, source, config, position)
        if "hidden" not in source.columns:
            return found
        return remove_marked(
            found,
            self._database,
            source,
            self._iceberg,
            table,
            column="hidden",
            config=config,
        )

    def _load_files(self) -> None:
        loaded: Mapping[str, tuple[str, dt.datetime]] = {}
        if self._iceberg.find(LEDGER) is not None:
            columns = ["source_file", "version", "last_modified"]
            ledger = self._iceberg.view(LEDGER).read(columns).select(columns)
            loaded = {name: (version, modified) for name, version, modified in ledger.iter_rows()}
        found = not_loaded(self._landing.list_objects(), loaded)
        with load_files(self._landing, found, _FILES) as landed:
            with self._iceberg.failures():
                stale = landed.stale_rejected(self._existing(REJECTED))
            self._write(REJECTED, TableWrite(rows=landed.rejected(), deleted_keys=stale))
            with self._iceberg.failures():
                stale = landed.stale_rows(self._existing(FILE_ROWS))
            self._write(FILE_ROWS, TableWrite(rows=landed.rows(), deleted_keys=stale))
            self._write(LEDGER, TableWrite(rows=landed.ledger()))

    def _existing(self, table: str) -> pl.LazyFrame:
        key = _OPTIONS[table].key
        if self._iceberg.find(table) is None:
            return pl.LazyFrame(schema={key[0]: pl.String, key[1]: pl.Int64})
        return self._iceberg.view(table).scan().select(key)

    def _derive_totals(self) -> None:
        if self._iceberg.find(ORDERS) is None:
            return
        view = self._iceberg.view(ORDERS)
        keys = keys_of("customer_id")
        work = plan_work(self._iceberg, TOTALS, [view], RunModeConfig(), keys)
        totals = (
            work.rows(view)
            .group_by("customer_id")
            .agg(pl.len().cast(pl.Int64).alias("orders"), pl.col("total_amount").sum())
        )
        self._write(TOTALS, work.write(totals))

    def _care(self) -> None:
        name = self._chance.choice(list(_OPTIONS))
        found = self._iceberg.find(name)
        if found is None:
            return
        with self._iceberg.failures():
            neighbours = Neighbours.of(self._iceberg.catalog())
            care(
                found,
                name,
                _CARE,
                neighbours=neighbours,
                key=_OPTIONS[name].key,
                now=dt.datetime.now(dt.UTC) + dt.timedelta(days=_CARE.orphan_days) - ORPHAN_AGE,
            )

    def _write(self, table: str, found: TableWrite, mode: WriteMode = "merge") -> None:
        """What the IO manager does."""
        if found.rows is None:
            return
        request = WriteRequest(
            rows=_in_small_batches(found.rows),
            mode=found.mode or mode,
            deleted_keys=found.deleted_keys,
            properties=as_properties(found),
            continues=found.continues,
        )
        with self._iceberg.failures():
            write_table(self._iceberg.catalog(), table, request, _OPTIONS[table])


def _in_small_batches(rows: Frame) -> pa.RecordBatchReader:
    """So that a merge has several pieces."""
    reader = to_reader(rows)
    small = (
        batch.slice(first, PIECE_ROWS)
        for batch in reader
        for first in range(0, batch.num_rows, PIECE_ROWS)
    )
    return pa.RecordBatchReader.from_batches(reader.schema, small)


@dataclass
class Hunt:
    """Kills the pipeline again and again.

    Attributes:
        most_steps: so many of its steps at most come to their end before it is killed,
        longest_step: as many seconds later at most.
        commits: of so many kills one is at a commit.
        killed_in: how often it was killed in which step.
        at_commits: how often it died just before or after the catalog accepted a commit.
        done: how often each step came to its end.
        failed: how often each step failed and was left to the next run.
    """

    places: Places
    chance: random.Random
    most_steps: int = 2
    longest_step: float = 0.6
    commits: int = 4
    setting: Callable[[random.Random], None] | None = None
    killed_in: Counter[str] = field(default_factory=Counter)
    at_commits: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        """How often it was killed."""
        return self.killed_in.total()

    def kill_once(self) -> None:
        """Starts the pipeline, and kills it at a random moment."""
        moment = self._moment()
        receiver, process = _started(
            _run_until_killed, self.places, self._seed(), moment, self.setting
        )
        if moment is not None:
            step = self._listen(receiver, SECONDS_TO_COMMIT, "start")
        else:
            steps = self.chance.randint(0, self.most_steps)
            step = self._listen(receiver, SECONDS_TO_START, "start", steps)
            step = self._listen(receiver, self.chance.uniform(0, self.longest_step), step)
        process.kill()
        process.join()
        step = self._listen(receiver, 0, step)
        assert process.exitcode == -signal.SIGKILL, f"the pipeline ended by itself in {step}"
        self.killed_in[step] += 1

    def settle(self) -> None:
        """Lets it come to rest, in one run that nobody kills."""
        receiver, process = _started(_settle, self.places, self._seed())
        assert receiver.recv() is None
        process.join()

    def missed(self) -> list[str]:
        """The steps in which it was never killed, and the sides of a commit where it never died."""
        steps = Pipeline(self.places, self.chance).steps.keys()
        return [*(steps - self.killed_in.keys()), *({"before", "after"} - self.at_commits.keys())]

    def report(self) -> str:
        """What happened, for whoever watches."""
        return (
            f"{self.kills} kills, at commits {dict(self.at_commits)}; "
            f"killed in {dict(self.killed_in)}; done {dict(self.done)}; "
            f"failed {dict(self.failed)}"
        )

    def _seed(self) -> int:
        return self.chance.randrange(1 << 30)

    def _moment(self) -> Moment | None:
        """By turns, so that even a few kills meet both."""
        turn, other = divmod(self.kills, self.commits)
        if other:
            return None
        return "after" if turn % 2 else "before"

    def _listen(self, receiver: Connection, seconds: float, step: str, steps: int = 1 << 30) -> str:
        """Hears the pipeline until the time or so many steps are over; the step that it is in."""
        until = time.monotonic() + seconds
        while receiver.poll(max(0, until - time.monotonic())):
            try:
                kind, name = receiver.recv()
            except EOFError:
                break
            assert kind != "broken", name
            if kind == "dies":
                self.at_commits[name] += 1
                continue
            if kind != "begun":
                (self.done if kind == "done" else self.failed)[name] += 1
                steps -= 1
                continue
            step = name
            if steps == 0:
                break
        return step


def _started(target: Callable[..., None], *arguments: Any) -> tuple[Connection, ForkServerProcess]:
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    return receiver, process


def _settle(places: Places, seed: int, sender: Connection) -> None:
    os.environ.update(places.variables)
    try:
        Pipeline(places, random.Random(seed)).settle()
        sender.send(None)
    except BaseException as error:
        sender.send("".join(traceback.format_exception(error)))
        raise


def _run_until_killed(
    places: Places,
    seed: int,
    moment: Moment | None,
    setting: Callable[[random.Random], None] | None,
    sender: Connection,
) -> None:
    os.environ.update(places.variables)
    chance = random.Random(seed)
    writer.PIECE_ROWS = PIECE_ROWS
    tempfile.gettempdir()  # it is looked for once, by writing there
    if moment is not None:
        _die_at_a_commit(type(places.iceberg().catalog()), moment, chance.randrange(3), sender)
    pipeline = Pipeline(places, chance)
    try:
        for name in _steps(pipeline, chance):
            if setting is not None:
                setting(chance)
            sender.send(("begun", name))
            sender.send((_outcome(pipeline.steps[name]), name))
    except BaseException as error:
        sender.send(("broken", "".join(traceback.format_exception(error))))
        raise


def _steps(pipeline: Pipeline, chance: random.Random) -> Iterator[str]:
    """The steps in their order, for ever, beginning with any."""
    names = list(pipeline.steps)
    first = chance.randrange(len(names))
    yield from itertools.cycle([*names[first:], *names[:first]])


def _outcome(step: Callable[[], None]) -> str:
    try:
        step()
    except TransientError:
        return "failed"
    return "done"


def _die_at_a_commit(kind: type[Catalog], moment: Moment, spared: int, sender: Connection) -> None:
    """Kills this process before the catalog is asked to commit, or when it has accepted."""
    commit = kind.commit_table
    number = itertools.count()

    def die() -> None:
        sender.send(("dies", moment))
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly(catalog: Catalog, table: Table, *change: Any) -> CommitTableResponse:
        is_last = next(number) == spared
        if is_last and moment == "before":
            die()
        response = commit(catalog, table, *change)
        if is_last:
            die()
        return response

    patch.object(kind, "commit_table", deadly).start()
