"""Opens an Iceberg catalog by the scheme of its URI."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from forge_platform.environment import CATALOG_SCHEMES
from forge_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

SQLITE_LOCK_TIMEOUT_SECONDS = 60
_TABLES = 2  # of a SQL catalog
_MADE_MEANWHILE = re.compile("already exists|duplicate key")

# pyiceberg's PyArrow file system reads credentials from the environment, but no endpoint.
_S3_VARIABLES = {
    "s3.endpoint": "AWS_ENDPOINT_URL",
    "s3.region": "AWS_REGION",
    "s3.access-key-id": "AWS_ACCESS_KEY_ID",
    "s3.secret-access-key": "AWS_SECRET_ACCESS_KEY",
    "s3.session-token": "AWS_SESSION_TOKEN",
}


def open_catalog(uri: str, warehouse: str, properties: Mapping[str, str]) -> Catalog:
    """Opens the catalog that a URI names.

    Args:
        uri: ``sqlite:///…`` or ``postgresql://…`` (SQL catalog), ``http(s)://…`` (REST
            catalog) or ``glue://region``.
        warehouse: location of the table files, or a REST catalog's warehouse name.
        properties: further pyiceberg properties; they win over the environment's.

    Raises:
        ConfigurationError: the scheme is none of these.
    """
    from pyiceberg.catalog import load_catalog

    # A SQL catalog shows only what was made under the same name: take pyiceberg's default, which
    # a reader gets who gives none.
    settings = {"warehouse": warehouse, **_s3(), **_kind(uri), **dict(properties)}
    for _ in range(_TABLES):
        try:
            return load_catalog("default", **settings)
        except Exception as error:
            # A SQL catalog makes its tables when it is first opened; somebody else was faster.
            if not _MADE_MEANWHILE.search(str(error)):
                raise
    return load_catalog("default", **settings)


def _s3() -> dict[str, str]:
    return {
        name: value
        for name, variable in _S3_VARIABLES.items()
        if (value := os.environ.get(variable))
    }


def _kind(uri: str) -> dict[str, str]:
    parts = urlsplit(uri)
    match parts.scheme:
        case "sqlite":
            separator = "&" if parts.query else "?"
            patient = f"{uri}{separator}timeout={SQLITE_LOCK_TIMEOUT_SECONDS}"
            return {"type": "sql", "uri": patient}
        case "postgresql":
            address = f"postgresql+psycopg2{uri.removeprefix(parts.scheme)}"
            # A connection that was open while the server was restarted is replaced, not used.
            return {"type": "sql", "uri": address, "pool_pre_ping": "true"}
        case "http" | "https":
            return {"type": "rest", "uri": uri}
        case "glue":
            return {"type": "glue", "glue.region": parts.netloc}
    raise ConfigurationError(
        f"ICEBERG_CATALOG_URI has the scheme {parts.scheme!r}: "
        f"use one of {', '.join(CATALOG_SCHEMES)}."
    )


def without_credentials(uri: str) -> str:
    """A URI as it may be shown: user, password and query are left out."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
