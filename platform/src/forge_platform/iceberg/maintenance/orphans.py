"""Removes files under a table's location that nothing refers to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow.fs import FileSelector, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO

from forge_platform.errors import ConfigurationError
from forge_platform.iceberg.maintenance.reachable import may_remove, reachable, removed

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem
    from pyiceberg.table import Table


@dataclass(frozen=True, kw_only=True)
class Orphans:
    """What was removed."""

    files: int = 0
    bytes: int = 0


def remove_orphans(table: Table, *, older_than: dt.datetime, others: Iterable[str]) -> Orphans:
    """Removes the files that no metadata of the table refers to and that are old enough.

    A commit in progress has files that nothing refers to yet: they are young. None are removed
    where the table's files may not be (``gc.enabled``).

    Args:
        table: the table; refreshed in place.
        older_than: younger files stay.
        others: locations of the other tables.

    Raises:
        ConfigurationError: the location cannot be listed, or holds another table.
    """
    if not may_remove(table.refresh()):
        return Orphans()
    store, base = _store(table)
    _refuse_shared(table, others)
    # What is listed first and asked for afterwards cannot be committed in between.
    listed = [info for info in _listed(store, base) if _is_older(info, older_than)]
    table.refresh()
    used = {_path(table, location) for location in reachable(table)}
    found = {info.path: info.size for info in listed if info.path not in used}
    return Orphans(files=removed(store.delete_file, found), bytes=sum(found.values()))


def _store(table: Table) -> tuple[FileSystem, str]:
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        raise ConfigurationError(
            f"The files of {'.'.join(table.name())} are read with {type(io).__name__}, which "
            "cannot list them: leave py-io-impl at PyArrow's."
        )
    scheme, netloc, path = io.parse_location(table.location(), io.properties)
    return io.fs_by_scheme(scheme, netloc), path.rstrip("/")


def _path(table: Table, location: str) -> str:
    return PyArrowFileIO.parse_location(location, table.io.properties)[2]


def _refuse_shared(table: Table, others: Iterable[str]) -> None:
    # By path: s3:// and s3a:// name the same place.
    base = _folder(table, table.location())
    if inside := [other for other in others if _folder(table, other).startswith(base)]:
        raise ConfigurationError(
            f"The location of {'.'.join(table.name())}, {table.location()}, also holds the table "
            f"at {inside[0]}: its orphan files cannot be told from the other's. Move one of them."
        )


def _folder(table: Table, location: str) -> str:
    return _path(table, location).rstrip("/") + "/"


def _listed(store: FileSystem, base: str) -> Iterable[FileInfo]:
    found = store.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
    return [info for info in found if info.type == FileType.File]


def _is_older(info: FileInfo, moment: dt.datetime) -> bool:
    return info.mtime_ns is not None and info.mtime_ns < moment.timestamp() * 1e9
