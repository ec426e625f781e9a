"""Reads CSV, JSON lines and Parquet in chunks, and says of every unreadable line what is wrong.

Nothing here knows a store, a table or a column's type. Lines are looked at one by one only
where a chunk cannot be split into columns as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from forge_platform.file_formats.chunks import Reader, UnusableFile
from forge_platform.file_formats.csv_records import read_csv
from forge_platform.file_formats.json_lines import read_json_lines
from forge_platform.file_formats.parquet import read_parquet

_READERS: Mapping[str, Reader] = {
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}


def reader_for(name: str) -> Reader:
    """What reads a file with this name, by its extension.

    Raises:
        UnusableFile: the extension is none of the known ones.
    """
    extension = PurePosixPath(name).suffix.lower()
    if extension not in _READERS:
        known = ", ".join(_READERS)
        raise UnusableFile(f"the file type {extension!r} is not known: expected {known}")
    return _READERS[extension]
