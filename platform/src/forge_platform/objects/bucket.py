"""Objects below a prefix of a bucket, at any S3 endpoint."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, cast

from forge_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForgeError,
    SourceUnavailable,
)
from forge_platform.objects import ObjectChanged, StoredObject, is_hidden
from forge_platform.objects.folder import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_EXPIRED = {"ExpiredToken", "InvalidToken"}  # these come with status 400
_GONE = {"NoSuchKey", "PreconditionFailed"}


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """How to reach an S3 endpoint; what is None comes from the ``AWS_*`` variables."""

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


class Bucket:
    """A prefix of a bucket as an object store."""

    def __init__(self, name: str, prefix: str, settings: S3Settings) -> None:
        self._name = name
        self._base = f"{prefix}/" if prefix else ""
        self._settings = settings

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The visible objects whose key starts with the prefix, page by page."""
        with self._errors("list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._base + prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(self._base)
                    if not _is_left_out(key):
                        yield StoredObject(
                            key=key,
                            uri=self._uri(key),
                            size=entry["Size"],
                            last_modified=entry["LastModified"].astimezone(UTC),
                            version=entry["ETag"].strip('"'),
                        )

    @contextmanager
    def open(self, key: str, version: str | None) -> Iterator[BinaryIO]:
        """A temporary copy on disk, gone when it is closed."""
        request: GetObjectRequestTypeDef = {"Bucket": self._name, "Key": self._base + key}
        if version is not None:
            request["IfMatch"] = f'"{version}"'
        with ExitStack() as stack:
            with disk_errors(tempfile.gettempdir()), self._errors("read", key):
                file = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(self._client.get_object(**request)["Body"], file)
                file.seek(0)
            yield cast("BinaryIO", file)

    def write(self, key: str, source: BinaryIO) -> str:
        """Uploads in one request, or in parts that become an object when all are there."""
        from boto3.s3.transfer import TransferConfig

        with self._errors("write", key):
            self._client.upload_fileobj(
                cast("BinaryIO", _KeptOpen(source)),
                self._name,
                self._base + key,
                Config=TransferConfig(max_concurrency=4),  # 8 MiB of memory for each
            )
        return self._uri(key)

    def delete(self, key: str) -> None:
        """Removes an object, if it is there."""
        with self._errors("delete", key):
            self._client.delete_object(Bucket=self._name, Key=self._base + key)

    @cached_property
    def _client(self) -> S3Client:
        import boto3
        from botocore.config import Config

        given = self._settings
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 3},
            # Other makers' endpoints refuse the checksums that newer SDKs add by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            return boto3.Session().client(
                "s3",
                region_name=given.region or os.environ.get("AWS_REGION"),  # boto3 ignores it
                endpoint_url=given.endpoint_url,
                aws_access_key_id=given.access_key_id,
                aws_secret_access_key=given.secret_access_key,
                config=config,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"There is no way to reach s3://{self._name} ({error}): check AWS_ENDPOINT_URL "
                "and AWS_REGION."
            ) from error

    def _uri(self, key: str) -> str:
        return f"s3://{self._name}/{self._base}{key}"

    @contextmanager
    def _errors(self, action: str, key: str = "") -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise _refusal(error, action, self._uri(key)) from error
        except BotoCoreError as error:
            raise _failure(error, action, self._uri(key)) from error


def _is_left_out(key: str) -> bool:
    is_folder = key.endswith("/")  # an empty object that consoles make
    return is_folder or any(is_hidden(part) for part in key.split("/"))


def _refusal(error: ClientError, action: str, uri: str) -> ForgeError:
    """What an answer of the store means."""
    code = error.response.get("Error", {}).get("Code", "")
    message = error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{code}: {message}"
    if code == "NoSuchBucket":
        return ConfigurationError(
            f"The bucket of {uri} does not exist: create it, or correct the URI."
        )
    if code in _GONE:
        return ObjectChanged(uri)
    if status in _REFUSED or code in _EXPIRED:
        return AuthenticationFailed(
            f"The store refuses to {action} {uri} ({said}). Check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and what they are allowed to do."
        )
    if code == "SlowDown" or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailable(f"The store cannot {action} {uri} at the moment ({said}).")
    return ConfigurationError(f"The store cannot {action} {uri} ({said}).")


def _failure(error: Exception, action: str, uri: str) -> ForgeError:
    """What it means that there is no answer."""
    from botocore import exceptions as botocore

    if isinstance(error, botocore.NoCredentialsError | botocore.PartialCredentialsError):
        return ConfigurationError(
            f"There are no credentials to {action} {uri}: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the process a role."
        )
    transient = (
        botocore.ConnectionError,
        botocore.CredentialRetrievalError,
        botocore.HTTPClientError,
        botocore.IncompleteReadError,
        botocore.MetadataRetrievalError,
    )
    if isinstance(error, transient):
        return SourceUnavailable(
            f"The store does not answer ({type(error).__name__}) and cannot {action} {uri}: "
            "check that it is running and that AWS_ENDPOINT_URL leads to it."
        )
    return ConfigurationError(f"The S3 client cannot {action} {uri} ({error}).")


class _KeptOpen(io.RawIOBase):
    """A file that boto3 cannot close: it closes what it has uploaded."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)
