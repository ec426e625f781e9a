"""Reads CSV: as a whole where there are no quotes, record by record where there are."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import polars as pl

from forge_platform.file_formats.chunks import (
    LINE,
    TEXT,
    Chunk,
    Rejection,
    Rows,
    UnusableFile,
    refuse_missing,
)
from forge_platform.file_formats.lines import CUT_OFF, TOO_LONG, Lines, decoded, end_hint, shown


def read_csv(file: BinaryIO, wanted: Sequence[str]) -> Iterator[Chunk]:
    """Reads CSV as RFC 4180 has it, with a header; an empty value is NULL.

    A record that is malformed costs its first line only: reading goes on with the next line, so
    that a stray quote cannot swallow the rows that follow.

    Raises:
        UnusableFile: empty, or the header has not the wanted columns.
    """
    lines = Lines(file)
    header = _header(_Records(lines))
    refuse_missing(wanted, header)
    if twice := [name for name in wanted if header.count(name) > 1]:
        raise UnusableFile(f"columns come twice in the header: {', '.join(twice)}")
    yield Rows(wanted).chunk(header)
    while block := lines.take_block():
        first = lines.number - len(block) + 1
        text = None if lines.too_long else _simple_text(block)
        if text is not None:
            yield _simple_csv(text, first, header, wanted)
        else:
            lines.give_back(block)
            yield _careful_csv(lines, first + len(block), header, wanted)


def _header(records: _Records) -> list[str]:
    record = records.take()
    while record is not None and not record.fields and record.problem is None:
        record = records.take()
    if record is None:
        raise UnusableFile("the file is empty")
    if record.problem is not None:
        raise UnusableFile(f"the header cannot be read: {record.problem}")
    return [name.strip() for name in record.fields]


def _simple_text(block: Sequence[bytes]) -> str | None:
    """The lines as text, if every line is a record and every comma a delimiter."""
    raw = b"".join(block).replace(b"\r\n", b"\n")
    if b'"' in raw or b"\r" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _simple_csv(text: str, first: int, header: Sequence[str], wanted: Sequence[str]) -> Chunk:
    texts = pl.Series(TEXT, text.removesuffix("\n").split("\n"), dtype=pl.String)
    places = pl.int_range(first, first + texts.len(), dtype=pl.Int64, eager=True).alias(LINE)
    width = pl.col(TEXT).str.count_matches(",", literal=True) + 1
    lines = pl.DataFrame([places, texts]).filter(pl.col(TEXT) != "").with_columns(_width=width)
    good = lines.filter(pl.col("_width") == len(header))
    bad = lines.filter(pl.col("_width") != len(header))
    fields = good[TEXT].str.split_exact(",", len(header) - 1).struct.unnest()
    named = (pl.col(f"field_{header.index(name)}").alias(name) for name in wanted)
    cells = fields.select(named).select(pl.all().replace("", None))
    cut_off = None if text.endswith("\n") else places[-1]
    rejections = [
        Rejection(line, _wrong_width(count, len(header), CUT_OFF if line == cut_off else ""), row)
        for line, row, count in bad.iter_rows()
    ]
    return Chunk(columns=header, cells=cells.hstack(good.select(LINE, TEXT)), rejections=rejections)


def _careful_csv(lines: Lines, stop: int, header: Sequence[str], wanted: Sequence[str]) -> Chunk:
    positions = [header.index(name) for name in wanted]
    rows = Rows(wanted)
    records = _Records(lines, len(header))
    while lines.number + 1 < stop and (record := records.take()) is not None:
        if record.problem is not None:
            rows.reject(record.line, record.problem, record.text)
        elif record.fields:
            fields = record.fields
            rows.add(record.line, record.text, [fields[i] or None for i in positions])
    return rows.chunk(header)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A record of a CSV file; blank lines are records without fields."""

    line: int
    text: str
    fields: Sequence[str]
    problem: str | None


class _Records:
    """Takes records from lines; the last lines are kept, to show them or to read them again."""

    def __init__(self, lines: Lines, width: int | None = None) -> None:
        self._lines = lines
        self._width = width
        self._taken: list[bytes] = []
        self._problems: list[str | None] = []
        self._reader = csv.reader(self, strict=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line, for the parser."""
        line = self._lines.take()
        if not line:
            raise StopIteration
        text, problem = decoded(line)
        self._taken.append(line)
        self._problems.append(TOO_LONG if self._lines.number in self._lines.too_long else problem)
        return text

    def take(self) -> _Record | None:
        """The next record, whole or refused; None at the end of the file."""
        first = self._lines.number + 1
        self._taken.clear()
        self._problems.clear()
        try:
            fields = next(self._reader)
        except StopIteration:
            return None
        except csv.Error as error:
            return self._refused(first, _csv_problem(error))
        if fields and self._width not in {None, len(fields)}:
            hint = end_hint(self._taken[-1])
            return self._refused(first, _wrong_width(len(fields), self._width, hint))
        problem = next(filter(None, self._problems), None)
        return _Record(line=first, text=shown(self._taken), fields=fields, problem=problem)

    def _refused(self, number: int, problem: str) -> _Record:
        """The first line alone; the others are read again as if it had not been there."""
        self._lines.give_back(self._taken[1:])
        text = shown(self._taken[:1])
        return _Record(line=number, text=text, fields=(), problem=self._problems[0] or problem)


def _csv_problem(error: csv.Error) -> str:
    known = {
        "unexpected end": "a quoted field is opened and never closed: is the file cut off?",
        "field larger": "a field is too long: is a closing quote missing?",
        "',' expected": "a quoted field goes on after its closing quote",
        "new-line": "a carriage return stands inside a value",
    }
    texts = (text for start, text in known.items() if str(error).startswith(start))
    return next(texts, f"not CSV: {error}")


def _wrong_width(count: int, width: int | None, hint: str) -> str:
    return f"{count} {'field' if count == 1 else 'fields'} instead of {width}{hint}"
