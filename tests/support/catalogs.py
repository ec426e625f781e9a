"""The catalogs and stores on which tables are tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from forge_platform.iceberg.catalog import open_catalog

if TYPE_CHECKING:
    from nessie import Nessie
    from pyiceberg.catalog import Catalog

    from forge_platform.testing import ConnectionParameters

FILES = "sqlite and files"
S3 = "postgresql and s3"
REST = "rest and s3"


def catalog_at(place: str, request: pytest.FixtureRequest, folder: Path) -> Catalog:
    """An empty catalog; a local one is in the folder."""
    if place == REST:
        request.getfixturevalue("s3_bucket")
        nessie: Nessie = request.getfixturevalue("nessie")
        return nessie.new_catalog()
    if place == S3:
        database: ConnectionParameters = request.getfixturevalue("new_database")
        address = "{user}:{password}@{host}:{port}/{database}".format(
            **{**database, "password": quote(database["password"], safe="")}
        )
        bucket: str = request.getfixturevalue("s3_bucket")
        return open_catalog(f"postgresql://{address}", f"{bucket}/tables", {})
    return local_catalog(folder)


def local_catalog(folder: Path) -> Catalog:
    """SQLite and a folder."""
    return open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
