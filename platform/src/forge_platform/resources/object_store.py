"""A place for objects as a Dagster resource: S3, MinIO, any S3 endpoint, or a local folder."""

import io
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import dagster as dg
from pydantic import Field

from forge_platform.errors import ConfigurationError
from forge_platform.objects import ObjectChanged, ObjectStore, StoredObject
from forge_platform.objects.bucket import Bucket, S3Settings
from forge_platform.objects.folder import Folder

__all__ = ["ObjectChanged", "S3Resource", "StoredObject"]


class S3Resource(dg.ConfigurableResource["S3Resource"]):
    """A place for objects: ``s3://bucket/prefix`` at any S3 endpoint, or ``file:///folder``.

    What is not given comes from the standard ``AWS_*`` variables. Both kinds of place behave
    alike: the bucket or folder itself must exist, what is below it is made when written.
    """

    uri: str = Field(description="s3://bucket/prefix or file:///folder.")
    endpoint_url: str | None = Field(default=None, description="Else AWS_ENDPOINT_URL.")
    region: str | None = Field(default=None, description="Else AWS_REGION.")
    access_key_id: str | None = Field(default=None, description="Else AWS_ACCESS_KEY_ID.")
    secret_access_key: str | None = Field(
        default=None, description="Else AWS_SECRET_ACCESS_KEY.", repr=False
    )

    @property
    def scheme(self) -> str:
        """``s3`` or ``file``."""
        return urlsplit(self.uri).scheme

    def list_objects(
        self, prefix: str = "", modified_after: datetime | None = None
    ) -> list[StoredObject]:
        """The objects whose key starts with a prefix, oldest first, then by key.

        Hidden objects and those in the making are left out: any part of the key starts with
        ``.`` or ``_`` or ends with ``.tmp`` or ``.part``.

        Args:
            prefix: start of the keys, relative to the URI.
            modified_after: aware point in time; objects as old or older are left out.

        Raises:
            ConfigurationError: the bucket or folder does not exist.
            AuthenticationFailed: listing it is not allowed.
            SourceUnavailable: the endpoint cannot be reached.
        """
        found = [
            entry
            for entry in self._store.entries(prefix)
            if modified_after is None or entry.last_modified > modified_after
        ]
        return sorted(found, key=lambda entry: (entry.last_modified, entry.key))

    def open(self, key: str, version: str | None = None) -> AbstractContextManager[BinaryIO]:
        """An object as a seekable binary file; from S3 it is a temporary copy on disk.

        Args:
            key: the object, relative to the URI.
            version: as listed; any other version is refused.

        Raises:
            ObjectChanged: the object is gone, or no longer the version asked for.
            AuthenticationFailed: reading it is not allowed.
            SourceUnavailable: the endpoint cannot be reached.
            StorageFull: no room is left for the temporary copy.
        """
        return self._store.open(key, version)

    def read(self, key: str) -> bytes:
        """The whole of an object that is known to be small; ``open`` is for any other."""
        with self.open(key) as file:
            return file.read()

    def write(self, key: str, source: bytes | BinaryIO) -> str:
        """Writes an object as a whole: readers see the old one or the new one.

        Args:
            key: where, relative to the URI.
            source: the content; a file is streamed from where it stands, and left open.

        Returns:
            The object's URI.

        Raises:
            ConfigurationError: the bucket or folder does not exist.
            AuthenticationFailed: writing there is not allowed.
            SourceUnavailable: the endpoint cannot be reached.
            StorageFull: no room is left; nothing of the object is left behind.
        """
        content = io.BytesIO(source) if isinstance(source, bytes) else source
        return self._store.write(key, content)

    def delete(self, key: str) -> None:
        """Removes an object; nothing happens when it is not there."""
        self._store.delete(key)

    @cached_property
    def _store(self) -> ObjectStore:
        parts = urlsplit(self.uri)
        if parts.scheme == "s3" and parts.netloc:
            return Bucket(parts.netloc, parts.path.strip("/"), self._settings())
        if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path:
            return Folder(Path(unquote(parts.path)))
        raise ConfigurationError(
            f"{self.uri!r} is no place for objects: use s3://bucket/prefix, or file:///folder "
            "with three slashes."
        )

    def _settings(self) -> S3Settings:
        return S3Settings(
            endpoint_url=self.endpoint_url,
            region=self.region,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
        )
