"""Reads JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

from forge_platform.file_formats.chunks import Chunk, Rows, UnusableFile, refuse_missing
from forge_platform.file_formats.lines import TOO_LONG, Lines, decoded, end_hint, shown


def read_json_lines(file: BinaryIO, wanted: Sequence[str]) -> Iterator[Chunk]:
    """Reads one JSON object a line; a column that a line leaves out is NULL there.

    Raises:
        UnusableFile: empty, or no line has a wanted column; the latter after the last chunk.
    """
    lines = Lines(file)
    columns: dict[str, None] = {}
    is_empty = True
    while block := lines.take_block():
        is_empty = is_empty and all(line.isspace() for line in block)
        first = lines.number - len(block) + 1
        chunk = _json_chunk(block, first, lines.too_long, wanted)
        columns.update(dict.fromkeys(chunk.columns))
        yield chunk
    if is_empty:
        raise UnusableFile("the file is empty")
    if columns:
        refuse_missing(wanted, list(columns))


class _BadLine(ValueError):
    """A line that is no JSON object with values for columns; the text says why."""


def _json_chunk(
    block: Sequence[bytes], first: int, too_long: set[int], wanted: Sequence[str]
) -> Chunk:
    rows = Rows(wanted)
    columns: dict[str, None] = {}
    for number, line in enumerate(block, first):
        if line.isspace():
            continue
        try:
            values = _json_object(line, is_too_long=number in too_long)
            columns.update(dict.fromkeys(values))
            rows.add(number, shown([line]), [_json_text(name, values) for name in wanted])
        except _BadLine as error:
            rows.reject(number, str(error), shown([line]))
    return rows.chunk(list(columns))


def _refuse_constant(name: str) -> NoReturn:
    raise _BadLine(f"not JSON: {name} is no value")


# Numbers stay as they are written: a float would round long ones.
_decode_json = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=_refuse_constant
).decode


def _json_object(line: bytes, *, is_too_long: bool) -> dict[str, Any]:
    text, problem = decoded(line)
    if is_too_long or problem is not None:
        raise _BadLine(TOO_LONG if is_too_long else problem)
    try:
        values = _decode_json(text)
    except json.JSONDecodeError as error:
        place = f"{error.msg} at character {error.pos + 1}"
        raise _BadLine(f"not JSON: {place}{end_hint(line)}") from error
    except RecursionError as error:
        raise _BadLine("not JSON that can be read: nested too deeply") from error
    if not isinstance(values, dict):
        raise _BadLine("not a JSON object")
    if "\\ud" in text.lower():
        _refuse_half_characters(values)
    return values


def _refuse_half_characters(values: Mapping[str, Any]) -> None:
    """JSON can name half of a UTF-16 pair, which no UTF-8 text can hold."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _BadLine("a \\u escape is half of a pair and no character") from error


def _json_text(name: str, values: Mapping[str, Any]) -> str | None:
    value = values.get(name)
    if value is None or isinstance(value, str):
        return value
    kind = {bool: "true or false", list: "a list", dict: "an object"}[type(value)]
    raise _BadLine(f"{name} is {kind}, not a text or a number")
