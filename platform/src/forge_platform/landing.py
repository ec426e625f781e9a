"""Loads files that partners drop: every good row once, every bad one into quarantine.

Each file is read in chunks, and what is found is kept on disk until it is written, so memory
is bounded by a chunk. The files themselves stay where they are.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_platform.errors import ConfigurationError
from forge_platform.logs import event
from forge_platform.objects import ObjectChanged, StoredObject
from forge_platform.objects.folder import disk_errors

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from forge_platform.file_formats.chunks import Chunk, Rejection
    from forge_platform.resources.object_store import S3Resource
    from forge_platform.spool import Spool

logger = logging.getLogger(__name__)

_ROW_KEY = {"_source_file": "string", "_source_line": "long"}
_REJECTION_KEY = ("source_file", "source_line")
_REJECTION_COLUMNS = {
    "source_file": "string",
    "source_line": "long",
    "reason": "string",
    "text": "string",
    "rejected_at": "timestamptz",
}
_LEDGER_COLUMNS = {
    "source_file": "string",
    "version": "string",
    "last_modified": "timestamptz",
    "bytes": "long",
    "rows": "long",
    "rejected": "long",
    "loaded_at": "timestamptz",
}


@dataclass(frozen=True, kw_only=True)
class FileSchema:
    """What files must hold, in any of the formats.

    Attributes:
        columns: column name to Iceberg type; a file must have all of them.
        required: columns that must have a value in every row.
    """

    columns: Mapping[str, str]
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a required column that is none of the columns."""
        if unknown := [name for name in self.required if name not in self.columns]:
            raise ConfigurationError(
                f"Required columns are not among the columns of the files: {', '.join(unknown)}."
            )


@dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """What became of one file.

    Attributes:
        object: the file in the version that was read.
        rows: how many rows were accepted.
        rejected: how many entries it has in the quarantine.
        ignored_columns: its columns that the schema does not have.
        refused: why no row of it was taken, if so.
    """

    object: StoredObject
    rows: int
    rejected: int
    ignored_columns: tuple[str, ...] = ()
    refused: str | None = None


def not_loaded(
    objects: Iterable[StoredObject], loaded: Mapping[str, tuple[str, datetime]]
) -> list[StoredObject]:
    """The objects that the ledger does not have as they were written last.

    A file that was put back has the version that it had before, but a new moment: in between, a
    run may have loaded another one and died before it was in the ledger.

    Args:
        objects: as listed.
        loaded: from the ledger, ``source_file`` to ``version`` and ``last_modified``.
    """
    return [
        found for found in objects if loaded.get(found.key) != (found.version, found.last_modified)
    ]


@contextmanager
def load_files(
    store: S3Resource, objects: Iterable[StoredObject], schema: FileSchema
) -> Iterator[LandedFiles]:
    """Reads files; their rows are there while the context is open.

    A file that is replaced or removed meanwhile is postponed: the next listing has it as it is
    then. A file of which no row can be used is refused as a whole, with one entry for line 0.

    Args:
        store: where the objects are.
        objects: what to read, as listed by the store.
        schema: what the files must hold.

    Raises:
        SourceUnavailable: the store is away; nothing was written yet, so nothing is lost.
        StorageFull: no room is left to keep the rows until they are written.
        ConfigurationError: the schema has a type that files cannot have.
    """
    with disk_errors(tempfile.gettempdir()):
        folder = tempfile.TemporaryDirectory(prefix="landing-")
    with folder as path:
        landed = LandedFiles(Path(path), schema)
        for found in objects:
            landed.load(store, found)
        yield landed


class LandedFiles:
    """Rows, rejected rows and ledger of the files that were read, in this order to be written.

    Attributes:
        files: what became of each file, in the order they were read.
        postponed: files that changed while they were read; they count as not loaded.
    """

    def __init__(self, folder: Path, schema: FileSchema) -> None:
        self.files: list[LoadedFile] = []
        self.postponed: list[StoredObject] = []
        self._schema = schema
        self._now = datetime.now(UTC)
        self._rows = _spool(folder / "rows", {**schema.columns, **_ROW_KEY})
        self._rejected = _spool(folder / "rejected", _REJECTION_COLUMNS)

    def rows(self) -> pa.RecordBatchReader:
        """The accepted rows with ``_source_file`` and ``_source_line``, as a stream."""
        return self._rows.reader()

    def rejected(self) -> pa.RecordBatchReader:
        """The rows for ``rejected_rows``, as a stream."""
        return self._rejected.reader()

    def ledger(self) -> pl.DataFrame:
        """The rows for ``loaded_files``, one for each file; they are to be written last."""
        import polars as pl

        return pl.DataFrame(
            [self._ledger_entry(file) for file in self.files],
            schema=_polars_schema(_LEDGER_COLUMNS),
            orient="row",
        )

    def stale_rows(self, existing: pl.LazyFrame) -> pl.DataFrame:
        """Keys of rows that an earlier version of these files had and the present one has not.

        Args:
            existing: the table of accepted rows, or its key columns.
        """
        return self._stale(existing, tuple(_ROW_KEY), self._rows)

    def stale_rejected(self, existing: pl.LazyFrame) -> pl.DataFrame:
        """Keys of rejected rows that the present version of these files does not have.

        Args:
            existing: the table of rejected rows, or its key columns.
        """
        return self._stale(existing, _REJECTION_KEY, self._rejected)

    @property
    def row_count(self) -> int:
        """How many rows were accepted."""
        return self._rows.height

    @property
    def rejected_count(self) -> int:
        """How many entries the quarantine gets."""
        return self._rejected.height

    def metadata(self) -> Mapping[str, Any]:
        """What to show of the files on a materialisation."""
        ignored = {f.object.key: list(f.ignored_columns) for f in self.files if f.ignored_columns}
        refused = {f.object.key: f.refused for f in self.files if f.refused is not None}
        postponed = [found.key for found in self.postponed]
        return {
            "files": len(self.files),
            "ignored_columns": ignored,
            "refused_files": refused,
            "postponed_files": postponed,
        }

    def load(self, store: S3Resource, found: StoredObject) -> None:
        """Reads one file; ``load_files`` does it for all."""
        from forge_platform.file_formats.chunks import Rejection, UnusableFile

        before = self._rows.height, self._rejected.height
        columns: tuple[str, ...] = ()
        refused = None
        try:
            columns = self._read(store, found)
        except ObjectChanged as change:
            self._truncate(*before)
            self.postponed.append(found)
            logger.warning(event("file_postponed", source_file=found.key, reason=change))
            return
        except UnusableFile as problem:
            self._truncate(*before)
            refused = str(problem)
            self._reject(found, [Rejection(0, refused, "")])
        self._note(
            LoadedFile(
                object=found,
                rows=self._rows.height - before[0],
                rejected=self._rejected.height - before[1],
                ignored_columns=tuple(n for n in columns if n not in self._schema.columns),
                refused=refused,
            )
        )

    def _read(self, store: S3Resource, found: StoredObject) -> tuple[str, ...]:
        """Takes the rows of a file; returns the columns that it has."""
        from forge_platform.file_formats import reader_for

        read = reader_for(found.key)
        columns: dict[str, None] = {}
        with disk_errors(found.uri), store.open(found.key, found.version) as file:
            for chunk in read(file, list(self._schema.columns)):
                columns.update(dict.fromkeys(chunk.columns))
                self._take(found, chunk)
        return tuple(columns)

    def _take(self, found: StoredObject, chunk: Chunk) -> None:
        import polars as pl

        from forge_platform.column_types import REASON, split_by_type, unusable_columns
        from forge_platform.file_formats.chunks import LINE, TEXT, Rejection, UnusableFile

        wanted = self._schema.columns
        if unusable := unusable_columns(chunk.cells.schema, wanted):
            raise UnusableFile(f"columns have another type: {', '.join(unusable)}")
        rows, others = split_by_type(chunk.cells, wanted, self._schema.required)
        self._rows.append(rows.with_columns(pl.lit(found.key).alias("_source_file")))
        row_as_json = pl.struct(list(wanted)).struct.json_encode()
        text = pl.col(TEXT) if TEXT in others.columns else row_as_json
        refused = (Rejection(*row) for row in others.select(LINE, REASON, text).iter_rows())
        self._reject(found, [*chunk.rejections, *refused])

    def _reject(self, found: StoredObject, rejections: Iterable[Rejection]) -> None:
        import polars as pl

        rows = [
            (found.key, entry.line, entry.reason, entry.text, self._now)
            for entry in sorted(rejections, key=lambda entry: entry.line)
        ]
        schema = _polars_schema(_REJECTION_COLUMNS)
        self._rejected.append(pl.DataFrame(rows, schema=schema, orient="row"))

    def _truncate(self, rows: int, rejected: int) -> None:
        self._rows.truncate(rows)
        self._rejected.truncate(rejected)

    def _note(self, file: LoadedFile) -> None:
        self.files.append(file)
        name = file.object.key
        logger.info(event("file", source_file=name, rows=file.rows, rejected=file.rejected))
        if file.refused is not None:
            logger.warning(event("file_refused", source_file=name, reason=file.refused))
        if file.ignored_columns:
            ignored = ", ".join(file.ignored_columns)
            logger.warning(event("file_columns_ignored", source_file=name, columns=ignored))

    def _ledger_entry(self, file: LoadedFile) -> tuple[object, ...]:
        found = file.object
        counts = (found.size, file.rows, file.rejected)
        return (found.key, found.version, found.last_modified, *counts, self._now)

    def _stale(self, existing: pl.LazyFrame, key: Sequence[str], present: Spool) -> pl.DataFrame:
        import polars as pl

        names = [file.object.key for file in self.files if file.refused is None]
        stale = existing.filter(pl.col(key[0]).is_in(names)).select(key).collect()
        for frame in present.frames():
            if stale.is_empty():
                break
            stale = stale.join(frame, on=list(key), how="anti")
        return stale


def _spool(folder: Path, columns: Mapping[str, str]) -> Spool:
    from forge_platform.spool import Spool

    with disk_errors(str(folder)):
        folder.mkdir()
    return Spool(folder, _polars_schema(columns))


def _polars_schema(columns: Mapping[str, str]) -> pl.Schema:
    import polars as pl

    from forge_platform.column_types import column_type

    return pl.Schema({name: column_type(kind).dtype for name, kind in columns.items()})
