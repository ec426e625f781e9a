"""Frames that are kept on disk until they are written, so that memory holds one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from forge_platform.objects.folder import disk_errors

_OLDEST = pl.CompatLevel.oldest()  # large strings, which every Arrow reader knows


class Spool:
    """A sequence of frames with one schema, in files of a folder.

    Attributes:
        height: how many rows it holds.
    """

    def __init__(self, folder: Path, schema: pl.Schema) -> None:
        """Begins an empty sequence; the folder is the caller's to remove."""
        self.height = 0
        self._folder = folder
        self._schema = schema
        self._heights: list[int] = []

    def append(self, frame: pl.DataFrame) -> None:
        """Adds a frame with the columns of the schema.

        Raises:
            StorageFull: no room is left.
        """
        if frame.is_empty():
            return
        table = frame.select(self._schema.names()).to_arrow(compat_level=_OLDEST)
        path = self._path(len(self._heights))
        with (
            disk_errors(str(path)),
            path.open("wb") as file,
            pa.ipc.new_stream(file, table.schema, options=_compressed()) as writer,
        ):
            writer.write_table(table)
        self._heights.append(frame.height)
        self.height += frame.height

    def truncate(self, height: int) -> None:
        """Takes back the frames that were added since the height was this."""
        while self.height > height:
            self.height -= self._heights.pop()
            self._path(len(self._heights)).unlink()

    def frames(self) -> Iterator[pl.DataFrame]:
        """The frames, one after the other."""
        for batch in self.reader():
            yield pl.DataFrame(pl.from_arrow(batch))

    def reader(self) -> pa.RecordBatchReader:
        """The rows as a stream of Arrow batches; every call begins anew."""
        empty = pl.DataFrame(schema=self._schema).to_arrow(compat_level=_OLDEST)
        return pa.RecordBatchReader.from_batches(empty.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for number in range(len(self._heights)):
            with self._path(number).open("rb") as file, pa.ipc.open_stream(file) as batches:
                yield from batches

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.arrow"


def _compressed() -> pa.ipc.IpcWriteOptions:
    return pa.ipc.IpcWriteOptions(compression="lz4")
