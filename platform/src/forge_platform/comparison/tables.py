"""A source table and the Iceberg table that is made from it, ready to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from forge_platform.comparison.columns import ComparedColumn
from forge_platform.comparison.compare import Comparison, Difference, Progress, compare
from forge_platform.comparison.ranges import DIGEST, KEY, PENDING, Figures, KeyRange
from forge_platform.comparison.source_side import SourceSide
from forge_platform.comparison.table_side import TableSide
from forge_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from forge_platform.extraction import SourceTable
    from forge_platform.iceberg.view import IcebergView
    from forge_platform.resources.database import DatabaseResource

MOST_LISTED_ROWS = 1_000_000
"""Of a larger range that cannot be split only the counts are told."""
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class KeyedTables:
    """Both tables, and what identifies a row in them.

    Attributes:
        left_out: columns that cannot be compared.
    """

    database: DatabaseResource
    source: SourceTable
    view: IcebergView
    key: Sequence[ComparedColumn]
    columns: Sequence[ComparedColumn]
    left_out: Sequence[str]

    @classmethod
    def of(
        cls,
        database: DatabaseResource,
        source: SourceTable,
        view: IcebergView,
        key: Sequence[str],
    ) -> KeyedTables:
        """Looks at the table's types.

        Raises:
            ConfigurationError: the key cannot be compared, or the table keeps every version.
        """
        if source.versions == "all":
            raise ConfigurationError(
                f"{view.identifier} keeps every version of a row and {source.name} only the "
                "newest: there is nothing to compare. Compare the table of the newest versions."
            )
        kinds = view.column_types()
        shared = [
            ComparedColumn(name, kinds[name], type_)
            for name, type_ in source.columns.items()
            if kinds.get(name)
        ]
        by_name = {column.name: column for column in shared if column.is_comparable}
        if not key or not set(key) <= set(by_name) or not by_name[key[0]].is_ordered:
            raise ConfigurationError(
                f"{view.identifier} cannot be compared by the key ({', '.join(key)}): its columns "
                "must be in both tables, and the first one a whole number, a decimal, a date, a "
                "time stamp or text."
            )
        return cls(
            database,
            source,
            view,
            [by_name[name] for name in key],
            list(by_name.values()),
            [name for name in source.columns if name not in by_name],
        )

    def sides(
        self, columns: Sequence[ComparedColumn], start: datetime | None
    ) -> tuple[SourceSide, TableSide]:
        """Both tables, with digests of some columns; what is read from the start on is pending."""
        source = SourceSide(
            database=self.database,
            source=self.source,
            key=self.key,
            columns=columns,
            newest_only=not self._is_unique(),
            start=start,
        )
        return source, TableSide(view=self.view, key=self.key, columns=columns)

    def _is_unique(self) -> bool:
        from forge_platform.postgres.catalog import primary_key

        with self.database.connect() as connection, connection.cursor() as cursor:
            found = primary_key(cursor, self.source.schema, self.source.table)
        return bool(found) and found <= {column.name for column in self.key}


@dataclass(frozen=True)
class RangeReport:
    """How the tables differ in a range.

    Attributes:
        missing: rows of the source that the table lacks.
        extra: rows of the table that the source lacks.
        different: rows that both have with other values.
        pending: of these, changes that are newer than the table's watermark.
        examples: some keys that differ, as text.
    """

    within: KeyRange
    source_rows: int
    table_rows: int
    missing: int
    extra: int
    different: int
    pending: int
    examples: Sequence[str]


@dataclass(frozen=True)
class Report:
    """The outcome of a reconciliation."""

    source: Figures
    table: Figures
    ranges: Sequence[RangeReport]
    left_out: Sequence[str]

    @property
    def is_equal(self) -> bool:
        """Whether the tables are the same, but for what the next run brings."""
        return all(
            part.missing + part.extra + part.different == part.pending for part in self.ranges
        )


def reconcile(
    tables: KeyedTables, settled: datetime | None, progress: Progress | None = None
) -> Report:
    """Compares all columns of both tables by ranges of the key.

    Args:
        tables: what to compare.
        settled: the table's watermark: a row that is newer in the source is pending.
        progress: told how far it is.
    """
    source, table = tables.sides(tables.columns, settled + _TICK if settled else None)
    found = compare(source, table, progress)
    ranges = [_range_report(source, table, part) for part in found.differences]
    # A row that changed while the tables were compared is the same when it is looked at.
    real = [part for part in ranges if part.missing + part.extra + part.different]
    return Report(found.source, found.table, real, tables.left_out)


@dataclass(frozen=True)
class KeysFound:
    """How the keys of two tables differ.

    Attributes:
        gone: the keys of the table that the source does not have, in the table's types.
        missing: how many keys of the source the table lacks, without those that are read next.
        comparison: by ranges.
    """

    gone: pl.DataFrame
    missing: int
    comparison: Comparison


def compare_keys(
    tables: KeyedTables, start: datetime | None, progress: Progress | None = None
) -> KeysFound:
    """Compares the keys of both tables.

    Args:
        tables: what to compare.
        start: the moment from which rows of the source are read next.
        progress: told how far it is.
    """
    source, table = tables.sides(tables.key, start)
    found = compare(source, table, progress)
    gone, missing = [table.no_rows()], 0
    for part in found.differences:
        if not part.table.rows:  # which may be all rows of the source
            missing += source.overdue(part.within)
            continue
        there, here = source.rows(part.within), table.rows(part.within)
        gone.append(here.join(there, on=KEY, how="anti"))
        lacking = there.join(here, on=KEY, how="anti")
        missing += lacking.filter(~pl.col(PENDING)).height
    keys = pl.concat(gone).select(column.name for column in tables.key)
    return KeysFound(keys, missing, found)


def _range_report(source: SourceSide, table: TableSide, part: Difference) -> RangeReport:
    if part.source.rows + part.table.rows > MOST_LISTED_ROWS:
        return _counts_only(part)
    there = source.rows(part.within)
    here = table.rows(part.within).select(KEY, DIGEST)
    missing = there.join(here, on=KEY, how="anti")
    extra = here.join(there, on=KEY, how="anti")
    both = there.join(here, on=KEY, suffix="_table")
    different = both.filter(pl.col(DIGEST) != pl.col(f"{DIGEST}_table"))
    examples = pl.concat([missing[KEY], extra[KEY], different[KEY]]).sort().head(10)
    return RangeReport(
        within=part.within,
        source_rows=there.height,
        table_rows=here.height,
        missing=missing.height,
        extra=extra.height,
        different=different.height,
        pending=int(missing[PENDING].sum()) + int(different[PENDING].sum()),
        examples=[key.replace("\x1f", ", ") for key in examples],
    )


def _counts_only(part: Difference) -> RangeReport:
    surplus = part.source.rows - part.table.rows
    return RangeReport(
        within=part.within,
        source_rows=part.source.rows,
        table_rows=part.table.rows,
        missing=max(0, surplus),
        extra=max(0, -surplus),
        different=0 if surplus else 1,
        pending=0,
        examples=[],
    )
