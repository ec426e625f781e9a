"""Objects in a bucket or in a local folder, with one behaviour for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from forge_platform.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime


class ObjectChanged(SourceUnavailable):
    """An object is gone, or another version took its place, since it was listed."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            f"{uri} is gone, or another version took its place since it was listed. "
            "It is taken as it is now when the place is listed again."
        )


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One object in a store.

    Attributes:
        key: its name relative to the store's URI.
        uri: where it is, for people and other programs.
        size: in bytes.
        last_modified: when it was written; for a local file, when it came into the folder.
        version: changes with the content: the ETag, or size and time of a local file.
    """

    key: str
    uri: str
    size: int
    last_modified: datetime
    version: str


class ObjectStore(Protocol):
    """What a bucket and a folder have in common; :class:`S3Resource` describes the methods."""

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The visible objects whose key starts with the prefix, in any order."""

    def open(self, key: str, version: str | None) -> AbstractContextManager[BinaryIO]:
        """An object as a seekable file."""

    def write(self, key: str, source: BinaryIO) -> str:
        """Writes an object as a whole and returns its URI."""

    def delete(self, key: str) -> None:
        """Removes an object, if it is there."""


def is_hidden(name: str) -> bool:
    """Whether a part of a key marks an object as hidden or as still being written."""
    # lost+found is at the top of every ext4 volume, and only root may read it.
    unfinished = name.lower().endswith((".tmp", ".part"))
    return name.startswith((".", "_")) or unfinished or name == "lost+found"
