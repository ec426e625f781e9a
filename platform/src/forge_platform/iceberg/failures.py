"""What catalogs and the stores of table files answer, as the platform's failure types."""

from __future__ import annotations

import errno
import inspect
import os
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from functools import wraps
from typing import Any

from forge_platform.environment import CATALOG_VARIABLES
from forge_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForgeError,
    SourceUnavailable,
    StorageFull,
    TableFileMissing,
)

# Besides "no space left": a quota, and a limit on the size of one file.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# By name: which of these libraries is installed depends on the catalog.
_AWAY = {
    "botocore.ConnectionError",
    "botocore.HTTPClientError",
    "pyiceberg.CommitStateUnknownException",
    "pyiceberg.ServerError",
    "pyiceberg.ServiceUnavailableError",
    "pyiceberg.TooManyRequestsError",
    "requests.ConnectionError",
    "requests.Timeout",
    "sqlalchemy.InterfaceError",
    "sqlalchemy.OperationalError",
    "sqlalchemy.TimeoutError",
}
_REFUSED = {
    "botocore.NoCredentialsError",
    "botocore.PartialCredentialsError",
    "pyiceberg.AuthorizationExpiredError",
    "pyiceberg.ForbiddenError",
    "pyiceberg.OAuthError",
    "pyiceberg.UnauthorizedError",
}
# PostgreSQL gives no code while connecting, and PyArrow none for S3, only a text.
_LOGIN_FAILED = re.compile('authentication failed|role "[^"]*" does not exist|no pg_hba.conf entry')
_S3 = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))?")
_S3_REFUSED = {"ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"}
_POLARS = "object-store error"
# Where Iceberg puts the files of a table.
_TABLE_FILE = re.compile(r"/(?:data|metadata)/\S*\.(?:parquet|avro|json)\b")


@contextmanager
def translated(catalog: str, warehouse: str) -> Iterator[None]:
    """Raises the platform's failures in place of those of a catalog or store.

    Args:
        catalog: the catalog's URI as it may be shown.
        warehouse: location of the table files.
    """
    try:
        yield
    except ForgeError:
        raise
    except Exception as error:
        found = _of_catalog(error, catalog) or _of_store(error, warehouse)
        if found is None:
            raise
        raise found from error


def translating(function: Callable[..., Any]) -> Callable[..., Any]:
    """An asset's function, or a check's, that raises these failures where it reads lazily.

    Only those that name a file of a table: what else the function uses has failures of its own.
    """
    # Dagster tells by the kind of function how it is to be called.
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return _translating_async(function)

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401
            with _of_table_files():
                return (yield from function(*args, **kwargs))

        return generate

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with _of_table_files():
            return function(*args, **kwargs)

    return call


def _translating_async(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with _of_table_files():
                return await function(*args, **kwargs)

        return call

    @wraps(function)
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: ANN401
        with _of_table_files():
            async with aclosing(function(*args, **kwargs)) as events:
                async for event in events:
                    yield event

    return generate


@contextmanager
def of_store(location: str) -> Iterator[None]:
    """Raises the platform's failures in place of those of the store that a location is in."""
    try:
        yield
    except OSError as error:
        found = _of_store(error, location)
        if found is None:
            raise
        raise found from error


@contextmanager
def _of_table_files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _TABLE_FILE.search(str(error)):
            raise
        with of_store(os.environ.get(CATALOG_VARIABLES["warehouse_path"].name, "the warehouse")):
            raise


def _of_catalog(error: Exception, catalog: str) -> ForgeError | None:
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).mro()}
    said = _said(error)
    if names & _REFUSED or (names & _AWAY and _LOGIN_FAILED.search(said)):
        return AuthenticationFailed(
            f"The Iceberg catalog at {catalog} refuses the credentials: {said}. "
            "Check ICEBERG_CATALOG_URI and what the user may do."
        )
    if names & _AWAY:
        return SourceUnavailable(
            f"The Iceberg catalog at {catalog} cannot be reached: {said}. "
            "Check ICEBERG_CATALOG_URI and that it is running."
        )
    return None


def _of_store(error: Exception, warehouse: str) -> ForgeError | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:
        return StorageFull(
            f"No room is left at {warehouse}: the table is as it was. Free space or enlarge the "
            "volume; the run can then be retried."
        )
    said = _said(error)
    if isinstance(error, FileNotFoundError) and _TABLE_FILE.search(said):
        return TableFileMissing(
            f"A file of a table at {warehouse} is gone: {said}. If the run began so long ago that "
            "its snapshot has expired, start it again; else restore the file, or drop the table "
            "and make it anew."
        )
    return _of_bucket(error, said, warehouse)


def _of_bucket(error: OSError, said: str, warehouse: str) -> ForgeError | None:
    found = _S3.search(said)
    if found is None and _POLARS not in said:
        return None
    code, status = found.groups() if found else (None, None)
    if code == "NO_SUCH_BUCKET":
        return ConfigurationError(
            f"The bucket of the table files at {warehouse} does not exist: create it, or correct "
            "ICEBERG_WAREHOUSE."
        )
    refused = code in _S3_REFUSED or status in {"401", "403"}
    if refused or isinstance(error, PermissionError):
        return AuthenticationFailed(
            f"The store of the table files at {warehouse} refuses the credentials: {said}. "
            "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they allow."
        )
    return SourceUnavailable(
        f"The store of the table files at {warehouse} cannot be used: {said}. "
        "Check ICEBERG_WAREHOUSE, AWS_ENDPOINT_URL and that it is running."
    )


def _said(error: Exception) -> str:
    """The message in one line, without the statement that SQLAlchemy adds to it."""
    return " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".?")
