"""Incremental extraction from a PostgreSQL table: no row is lost, none arrives twice for good.

A run reads the rows whose watermark column is at or after the table's watermark, less an
overlap, and writes them by key. Reading a row again changes nothing; what matters is that none
is skipped. A row can only be skipped when it is committed after a run read, with a time stamp
before that run's watermark. Its time stamp is at or after the start of its transaction (that is
what ``now()`` gives), so the new watermark is never later than the start of the oldest
transaction that is open when reading begins, nor than the present: both are asked for before
the rows are. While a transaction is prepared, whose start is not known, the watermark stays.
Whoever writes other time stamps (a clock that is behind, an application that takes the time
before it begins its transaction) has the overlap as a margin.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from forge_platform.errors import ConfigurationError, SourceSchemaError
from forge_platform.postgres.type_names import full_name, is_wider, plain
from forge_platform.tables import Position, TableWrite

if TYPE_CHECKING:
    from psycopg2.sql import Composable

    from forge_platform.postgres.stream import Snapshot
    from forge_platform.resources.database import DatabaseResource

_LARGE_PAGES = 2_000  # of 8 KiB; below, another connection costs more than it gains
_BATCH_BYTES = 8 * 1024 * 1024
_LEAST_BATCH_ROWS = 2_048  # that DuckDB reads at once
_PIECE_BYTES = 16 * 1024 * 1024
_MOMENTS = {"timestamp with time zone", "timestamp without time zone"}


class ExtractConfig(dg.Config):
    """Run configuration of an asset that extracts a table."""

    mode: Literal["incremental", "full", "since"] = Field(
        default="incremental",
        description="incremental: what changed since the last run; full: everything, in place of "
        "what is there; since: what changed since a moment.",
    )
    since: str | None = Field(
        default=None,
        description="ISO time stamp, UTC unless it says otherwise; implies the mode since.",
    )

    def since_moment(self) -> datetime | None:
        """The moment to read from, if one is given.

        Raises:
            ConfigurationError: it is no time stamp, or mode and since contradict each other.
        """
        if self.since is None:
            if self.mode == "since":
                raise ConfigurationError("The mode since needs a time stamp: set since too.")
            return None
        if self.mode == "full":
            raise ConfigurationError(
                "The mode full reads everything, and since only a part: set one of them."
            )
        return _moment(self.since, "since")


@dataclass(frozen=True)
class Recent:
    """Rows whose date is not older than an age, counted in whole days of UTC."""

    column: str
    age: timedelta


@dataclass(frozen=True)
class SourceTable:
    """A table to extract, and what is relied on.

    Attributes:
        columns: column name to PostgreSQL type; other columns of the source are left out. A
            type without modifier (``varchar``) stands for any (``varchar(50)``).
        watermark_column: a ``timestamptz`` or ``timestamp`` (UTC) that every change renews.
        overlap: how far behind the watermark a run begins to read.
        also: rows that are read again by every incremental run, changed or not.
        key: columns that identify a row, for ``versions``.
        versions: ``newest`` reads, of several rows with one key, only the newest; ``all`` reads
            every row, and a full run adds to the table instead of replacing it.
        schema_changes: what may differ from ``columns`` in the source. ``widen``: a type, where
            every value fits and Iceberg can widen the table's; ``add``: this, and new columns are
            extracted too, after ``columns``; ``refuse``: nothing, not even new columns.
    """

    schema: str
    table: str
    columns: Mapping[str, str]
    watermark_column: str = "updated_at"
    overlap: timedelta = timedelta(minutes=10)
    also: Recent | None = None
    key: tuple[str, ...] = ()
    versions: Literal["newest", "all"] = "newest"
    schema_changes: Literal["widen", "add", "refuse"] = "widen"

    def __post_init__(self) -> None:
        named = [*self.key, self.watermark_column, *([self.also.column] if self.also else [])]
        if missing := [column for column in named if column not in self.columns]:
            raise ConfigurationError(
                f"{self.name} uses {', '.join(missing)} without extracting it: add it to columns."
            )
        if plain(full_name(self.columns[self.watermark_column])) not in _MOMENTS:
            raise ConfigurationError(
                f"The watermark column {self.watermark_column} of {self.name} must be a "
                f"timestamptz or timestamp, not {self.columns[self.watermark_column]}."
            )
        if self.overlap < timedelta(0):
            raise ConfigurationError(f"The overlap of {self.name} must not be negative.")

    @property
    def name(self) -> str:
        """``schema.table``."""
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class _Range:
    """What a run reads, and what it may claim afterwards."""

    mode: str
    start: datetime | None
    watermark: datetime | None
    overlap: timedelta

    @property
    def leaves_gap(self) -> bool:
        """Whether rows that the next run would read, were there none of this one, stay unread."""
        if self.start is None:
            return False
        return self.watermark is None or self.start > self.watermark - self.overlap

    def new_watermark(self, settled: datetime | None) -> datetime | None:
        """The watermark of the table once the rows are written; it never moves backwards."""
        known = [moment for moment in (self.watermark, settled) if moment is not None]
        if self.leaves_gap or not known:
            return self.watermark
        return max(known).astimezone(UTC)


def extract(
    database: "DatabaseResource",
    source: SourceTable,
    config: ExtractConfig,
    position: Position,
) -> TableWrite:
    """Reads what changed in a source table, as a stream.

    The rows are read while they are written, in one snapshot of the source. ``rows_read`` is
    left to who counts them.

    Args:
        database: the source.
        source: the table.
        config: the run's configuration.
        position: of the table that is written; without a watermark all is read.

    Returns:
        The rows, how to write them (``overwrite`` after a full run of newest versions, else the
        asset's own mode), and the position to commit with them. No rows, when the source holds
        what it held after the last run. A run with ``since`` that begins after the watermark
        less the overlap does not move it.

    Raises:
        ConfigurationError: the configuration or the watermark is malformed.
        SourceSchemaError: the source is not as expected; every difference is named.
        SourceUnavailable: the source is away, busy, or took too long; also while reading.
        AuthenticationFailed: it refuses the user.
    """
    found = database.columns(source.schema, source.table)
    source = expected_source(database, source, found)
    known = json.loads(position.window) if position.window else {}
    reading = _range(source, config, position.watermark, known)
    settled, complete, prepared = _settled(database, source)
    # A prepared transaction was open at the last run, or has begun since: either way its rows are
    # not before that run's watermark.
    watermark = reading.new_watermark(None if prepared and reading.watermark else settled)
    notes = {
        "source": source.name,
        "extraction": reading.mode,
        "read_from": reading.start.isoformat() if reading.start else "the beginning",
        "watermark": watermark.isoformat() if watermark else "none",
        **_notes(source, found, sees_transactions=complete, prepared=prepared),
    }
    replaces = reading.start is None and source.versions == "newest"
    with database.snapshot() as snapshot:
        window = _window(snapshot, source, watermark, known)
        if reading.mode == "incremental" and window.is_as_before:
            return TableWrite(
                rows=None,
                is_part=True,
                watermark=position.watermark,
                window=position.window,
                continues=position,
                metadata=notes,
            )
        layout = _layout(snapshot, source)
        queries = _queries(snapshot, source, reading, layout, database.stream_connections)
        # Many rows are merged in several commits, so a value that is refused must be found first.
        rows = snapshot.stream(queries, layout.batch_rows, verified=not replaces)
    kept = {} if reading.leaves_gap else window.now
    return TableWrite(
        rows=rows,
        mode="overwrite" if replaces else None,
        is_part=reading.start is not None,
        # That of a run that wrote meanwhile goes too: older rows may come over its own.
        watermark=watermark.isoformat() if watermark else "",
        window=json.dumps({**kept, "columns": _columns_read(source, reading, known)}),
        # Also of a whole read: who takes the watermark away meanwhile wants more than it sees.
        continues=position,
        metadata=notes,
    )


def expected_source(
    database: "DatabaseResource", source: SourceTable, found: Mapping[str, str]
) -> SourceTable:
    """The table to extract, when its columns in the source are as the asset takes them.

    Args:
        database: the source.
        source: the table as it is expected.
        found: column name to type in the source.

    Returns:
        The table, with the columns that are new where the asset takes these.

    Raises:
        SourceSchemaError: a column is missing, or has a type that is not accepted; every
            difference is named.
    """
    if differences := list(_differences(source, found)):
        raise SourceSchemaError(
            f"{source.name} in {database.address} is not what this pipeline expects:\n"
            + "\n".join(f"  - {difference}" for difference in differences)
            + "\nRestore the columns in the source, or change the expected ones with the asset."
        )
    if source.schema_changes != "add":
        return source
    return replace(source, columns={**source.columns, **_unexpected(source, found)})


def _unexpected(source: SourceTable, found: Mapping[str, str]) -> Mapping[str, str]:
    return {name: kind for name, kind in found.items() if name not in source.columns}


def _range(
    source: SourceTable, config: ExtractConfig, watermark: str | None, known: Mapping[str, Any]
) -> _Range:
    since = config.since_moment()
    current = _moment(watermark, f"The watermark of {source.name}") if watermark else None
    if since is not None:
        return _Range("since", since, current, source.overlap)
    if config.mode == "full" or current is None or _new_columns(source, known):
        return _Range("full", None, current, source.overlap)
    return _Range("incremental", current - source.overlap, current, source.overlap)


def _new_columns(source: SourceTable, known: Mapping[str, Any]) -> list[str]:
    """Columns that no run has read yet: a default fills old rows without renewing their stamp."""
    read = known.get("columns", source.columns)
    new = [name for name in source.columns if name not in read]
    if new:
        dg.get_dagster_logger().info(
            "%s is read as a whole, for its new columns %s", source.name, ", ".join(new)
        )
    return new


def _moment(text: str, what: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{what} is {text!r}: use an ISO time stamp such as 2024-01-31T12:00:00Z."
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _settled(
    database: "DatabaseResource", source: SourceTable
) -> tuple[datetime | None, bool, bool]:
    """Up to where the table is complete for what is read after this.

    Also whether open transactions were visible, and whether one is prepared.
    """
    from forge_platform.postgres.source import position_query

    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(position_query(source))
        [(settled, sees_transactions, prepared)] = cursor.fetchall()
    return settled, sees_transactions, prepared


@dataclass(frozen=True)
class _Window:
    """What the source holds from a moment on that is an overlap before a watermark.

    Attributes:
        now: for the new watermark, to be kept with it; empty without one.
        is_as_before: whether the source still holds what it held when ``known`` was kept.
    """

    now: Mapping[str, Any]
    is_as_before: bool


def _window(
    snapshot: "Snapshot",
    source: SourceTable,
    watermark: datetime | None,
    known: Mapping[str, Any],
) -> _Window:
    """Looks at the window of the new watermark, and again at that of the last run."""
    from forge_platform.postgres.source import window_query

    if watermark is None:
        return _Window({}, is_as_before=False)
    start = watermark - source.overlap
    since = datetime.fromisoformat(known["start"]) if "start" in known else start
    [(rows, digest, rows_since, digest_since)] = snapshot.rows(window_query(source, start, since))
    columns = list(source.columns)
    now = {"start": start.isoformat(), "rows": rows, "digest": digest, "columns": columns}
    seen = {**now, "start": since.isoformat(), "rows": rows_since, "digest": digest_since}
    return _Window(now, is_as_before=seen == known)


def _columns_read(source: SourceTable, reading: _Range, known: Mapping[str, Any]) -> Sequence[str]:
    """The columns that all rows have been read of: a run since a moment adds none."""
    columns = list(source.columns)
    return known.get("columns", columns) if reading.mode == "since" else columns


@dataclass(frozen=True)
class _Layout:
    """How the rows of a table lie.

    Attributes:
        pages: that they are on, of the largest partition; None where rows have no place: a view.
        all_pages: those of all partitions.
        width: mean bytes of a row, if that is known.
        rows_on_page: mean rows on a page, if a range of pages can be read by itself.
    """

    pages: int | None
    all_pages: int = 0
    width: int | None = None
    rows_on_page: int | None = None

    @property
    def batch_rows(self) -> int:
        """Rows that are read at a time: fewer, where they are wide."""
        from forge_platform.postgres.stream import BATCH_ROWS

        if not self.width:
            return BATCH_ROWS
        return max(_LEAST_BATCH_ROWS, min(BATCH_ROWS, _BATCH_BYTES // self.width))

    @property
    def pieces(self) -> int:
        """Queries for all rows, where so many as DuckDB reads at once would be too much."""
        if not self.pages or not self.width or not self.rows_on_page:
            return 1
        if self.width * _LEAST_BATCH_ROWS <= _PIECE_BYTES:
            return 1
        total = self.all_pages * self.rows_on_page * self.width
        return max(1, min(self.pages, total // _PIECE_BYTES))


def _layout(snapshot: "Snapshot", source: SourceTable) -> _Layout:
    from forge_platform.postgres.source import pages_query, sample_query

    [(pages, all_pages)] = snapshot.rows(pages_query(source))
    if pages is None:
        return _Layout(None)
    [(width, rows_on_page)] = snapshot.rows(sample_query(source, all_pages))
    return _Layout(pages, all_pages, width, rows_on_page)


def _queries(
    snapshot: "Snapshot", source: SourceTable, reading: _Range, layout: _Layout, connections: int
) -> "Sequence[Sequence[Composable]]":
    """The queries of each connection; a large table is read in parts, as it lies on disk."""
    from forge_platform.postgres.source import key_query, part_queries, rows_query

    unique = not source.key or bool(snapshot.rows(key_query(source)))
    if layout.pages is None or (source.versions == "newest" and not unique):
        return [[rows_query(source, reading.start, unique=unique)]]
    is_large = reading.start is None and layout.pages > _LARGE_PAGES
    parts = connections if is_large else 1
    count = max(parts, _pieces(snapshot, source, reading, layout))
    queries = part_queries(source, reading.start, layout.pages, count)
    edges = [count * part // parts for part in range(parts + 1)]
    return [queries[first:beyond] for first, beyond in pairwise(edges)]


def _pieces(snapshot: "Snapshot", source: SourceTable, reading: _Range, layout: _Layout) -> int:
    """How many queries wide rows need; one, where few of them are read."""
    from forge_platform.postgres.source import count_query

    if layout.pieces == 1 or reading.start is None:
        return layout.pieces
    [(rows,)] = snapshot.rows(count_query(source, reading.start))
    return 1 if rows * (layout.width or 0) <= _PIECE_BYTES else layout.pieces


def _differences(source: SourceTable, found: Mapping[str, str]) -> Iterator[str]:
    from forge_platform.postgres.failures import nearest

    unexpected = _unexpected(source, found)
    for name, kind in source.columns.items():
        expected = full_name(kind)
        if name not in found:
            yield f"column {name}: expected {expected}, missing{nearest(name, unexpected)}"
        elif expected in {found[name], plain(found[name])}:
            continue
        elif source.schema_changes == "refuse" or not is_wider(found[name], expected):
            yield f"column {name}: expected {expected}, found {found[name]}"
    if source.schema_changes == "refuse":
        yield from (
            f"column {name}: not expected, found {kind}" for name, kind in unexpected.items()
        )


def _widened(source: SourceTable, found: Mapping[str, str]) -> Iterator[str]:
    for name, kind in source.columns.items():
        expected = full_name(kind)
        if expected not in {found[name], plain(found[name])}:
            yield f"{name} ({expected} to {found[name]})"


def _notes(
    source: SourceTable, found: Mapping[str, str], *, sees_transactions: bool, prepared: bool
) -> Mapping[str, Any]:
    """What somebody should know about this run, in the log and for the metadata."""
    notes: dict[str, Any] = {}
    if ignored := _unexpected(source, found):
        notes["ignored_columns"] = ", ".join(ignored)
    if widened := list(_widened(source, found)):
        notes["widened_columns"] = ", ".join(widened)
    if not sees_transactions:
        notes["late_commits"] = (
            f"Rows committed more than {source.overlap} after their time stamp can be missed: "
            "open transactions are not visible. Grant pg_read_all_stats, and let no role turn "
            "track_activities off; on a replica there is only the overlap."
        )
    if prepared:
        notes["prepared_transactions"] = (
            "The position does not move on while a transaction of the source is prepared, since it "
            "is not known when it began: end it, see pg_prepared_xacts."
        )
    for name, note in notes.items():
        dg.get_dagster_logger().warning("%s %s: %s", source.name, name, note)
    return notes
