"""What readers of files yield, and how they refuse lines and whole files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

import polars as pl

CHUNK_ROWS = 50_000

LINE = "_source_line"
TEXT = "_text"


class UnusableFile(Exception):
    """No row of a file can be used; the text says why."""


@dataclass(frozen=True)
class Rejection:
    """A row that cannot be used, as it stands in its file."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows of a file.

    Attributes:
        columns: the file's columns, as far as these rows show them.
        cells: the wanted columns as found, with LINE, and TEXT unless the file is binary.
        rejections: rows that could not even be split into columns.
    """

    columns: Sequence[str]
    cells: pl.DataFrame
    rejections: Sequence[Rejection] = ()


Reader: TypeAlias = Callable[[BinaryIO, Sequence[str]], Iterator[Chunk]]


def refuse_missing(wanted: Sequence[str], found: Sequence[str]) -> None:
    """Checks that a file has all wanted columns.

    Raises:
        UnusableFile: names the missing columns and those that are there.
    """
    if missing := [name for name in wanted if name not in found]:
        raise UnusableFile(
            f"columns are missing: {', '.join(missing)}; the file has: {', '.join(found)}"
        )


@dataclass
class Rows:
    """Rows of a text file as they are gathered one by one; ``wanted`` are their columns."""

    wanted: Sequence[str]
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    cells: list[Sequence[str | None]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def add(self, number: int, text: str, cells: Sequence[str | None]) -> None:
        """Takes a row whose wanted values are known."""
        self.numbers.append(number)
        self.texts.append(text)
        self.cells.append(cells)

    def reject(self, number: int, reason: str, text: str) -> None:
        """Takes a row that cannot be used."""
        self.rejections.append(Rejection(number, reason, text))

    def chunk(self, columns: Sequence[str]) -> Chunk:
        """All rows so far; ``columns`` are those of the file."""
        by_column = zip(*self.cells, strict=True) if self.cells else ((),) * len(self.wanted)
        cells = {
            name: pl.Series(values, dtype=pl.String)
            for name, values in zip(self.wanted, by_column, strict=True)
        }
        places = {
            LINE: pl.Series(self.numbers, dtype=pl.Int64),
            TEXT: pl.Series(self.texts, dtype=pl.String),
        }
        return Chunk(
            columns=columns, cells=pl.DataFrame(cells | places), rejections=self.rejections
        )
