"""Objects as files below a local folder."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

from forge_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForgeError,
    SourceUnavailable,
    StorageFull,
)
from forge_platform.objects import ObjectChanged, StoredObject, is_hidden

if TYPE_CHECKING:
    from collections.abc import Iterator

# Besides "no space left": a quota, and a limit on the size of one file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISPLACED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}

logger = logging.getLogger(__name__)


class Folder:
    """A local folder as an object store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The visible files whose path below the folder starts with the prefix."""
        with disk_errors(str(self._root)):
            for entry in _files_below(self._existing_root()):
                key = Path(entry.path).relative_to(self._root).as_posix()
                if key.startswith(prefix):
                    with suppress(FileNotFoundError):  # removed since the folder was read
                        yield self._describe(key, entry.stat())

    @contextmanager
    def open(self, key: str, version: str | None) -> Iterator[BinaryIO]:
        """The file itself; it must not change while it is read in a version."""
        path = self._path(key)
        with disk_errors(str(path)):
            try:
                file = path.open("rb")
            except FileNotFoundError as error:
                raise ObjectChanged(path.as_uri()) from error
        with file:
            _check_version(file, path, version)
            try:
                yield file
            finally:
                _check_version(file, path, version)

    def write(self, key: str, source: BinaryIO) -> str:
        """Writes beside the target and renames, so that a reader sees all or nothing."""
        target = self._path(key)
        unfinished = target.parent / f".{uuid4().hex}.part"
        with disk_errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with unfinished.open("xb") as file:
                    shutil.copyfileobj(source, file)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(target)
            finally:
                unfinished.unlink(missing_ok=True)
        return target.as_uri()

    def delete(self, key: str) -> None:
        """Removes a file, if it is there."""
        path = self._path(key)
        with disk_errors(str(path)):
            path.unlink(missing_ok=True)

    def _existing_root(self) -> Path:
        with disk_errors(str(self._root)):
            if not self._root.is_dir():
                raise ConfigurationError(
                    f"The folder {self._root} does not exist: create or mount it, or correct "
                    "the URI."
                )
        return self._root

    def _path(self, key: str) -> Path:
        path = PurePosixPath(key)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ConfigurationError(f"{key!r} is no key of an object below {self._root}.")
        return self._existing_root() / path

    def _describe(self, key: str, status: os.stat_result) -> StoredObject:
        # A file that was moved here keeps its old mtime; its ctime says when that happened.
        arrived = max(status.st_mtime, status.st_ctime)
        return StoredObject(
            key=key,
            uri=(self._root / key).as_uri(),
            size=status.st_size,
            last_modified=datetime.fromtimestamp(arrived, UTC),
            version=_version(status),
        )


@contextmanager
def disk_errors(place: str) -> Iterator[None]:
    """Turns what the operating system says about a local file into this library's failures.

    Raises:
        StorageFull: no room is left.
        AuthenticationFailed: the process may not do that there.
        ConfigurationError: the path does not lead to a file or folder.
        SourceUnavailable: any other failure of the disk or the network drive.
    """
    try:
        yield
    except OSError as error:
        raise _failure(error, place) from error


def _failure(error: OSError, place: str) -> ForgeError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFull(
            f"No room is left at {place} ({reason}): nothing was kept. Free space or enlarge "
            "the volume; the run can then be retried."
        )
    if error.errno in _REFUSED:
        return AuthenticationFailed(
            f"{place} may not be used by this process ({reason}): give its user the right to."
        )
    if error.errno in _MISPLACED:
        return ConfigurationError(f"{place} does not lead anywhere ({reason}): correct the path.")
    return SourceUnavailable(f"{place} cannot be used at the moment ({reason}).")


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _check_version(file: BinaryIO, path: Path, version: str | None) -> None:
    if version is not None and _version(os.fstat(file.fileno())) != version:
        raise ObjectChanged(path.as_uri())


def _files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name) or not _has_text_name(entry):
                continue
            if entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield from _files_below(Path(entry.path))
            elif entry.is_file():
                yield entry


def _has_text_name(entry: os.DirEntry[str]) -> bool:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        logger.warning("%r is left alone: its name is not UTF-8, rename it", entry.path)
        return False
    return True
