"""The catalogs and stores on which tables are tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from nessie import add_last_column_ids
from pyiceberg.catalog import Catalog

from forge_platform.iceberg.catalog import open_catalog
from forge_platform.resources.iceberg import IcebergResource

if TYPE_CHECKING:
    from nessie import Nessie
    from reference_catalog import ReferenceCatalog

    from forge_platform.testing import ConnectionParameters

FILES = "sqlite and files"
S3 = "postgresql and s3"
REST = "rest and s3"  # Nessie, which shows no snapshot but the newest one
REFERENCE = "rest and files"
SLOWER = pytest.param(REFERENCE, marks=pytest.mark.reference)
"""Left out of ``make test``, which is to stay short."""


def catalog_at(place: str, request: pytest.FixtureRequest, folder: Path) -> Catalog:
    """An empty catalog; a local one is in the folder."""
    catalog = open_catalog(*address_at(place, request, folder), {})
    if place == REST:
        add_last_column_ids(catalog)
    return catalog


def address_at(place: str, request: pytest.FixtureRequest, folder: Path) -> tuple[str, str]:
    """URI and warehouse of an empty catalog."""
    if place == FILES:
        return _local(folder)
    if place == REFERENCE:
        reference: ReferenceCatalog = request.getfixturevalue("reference_catalog")
        return reference.emptied_catalog_uri(), ""
    bucket: str = request.getfixturevalue("s3_bucket")
    if place == S3:
        return postgresql_uri(request.getfixturevalue("new_database")), f"{bucket}/tables"
    nessie: Nessie = request.getfixturevalue("nessie")
    return nessie.new_catalog_uri(), "tables"


_GIVEN: dict[str, Catalog] = {}


class GivenIceberg(IcebergResource):
    """Tables of a catalog that is open: Dagster makes resources anew for each run."""

    def catalog(self) -> Catalog:
        """The catalog that the warehouse stands for."""
        return _GIVEN[self.warehouse_path]


def iceberg_at(place: str, request: pytest.FixtureRequest, folder: Path) -> IcebergResource:
    """The same as a resource."""
    _GIVEN[str(folder)] = catalog_at(place, request, folder)
    return GivenIceberg(catalog_uri=place, warehouse_path=str(folder))


def postgresql_uri(database: ConnectionParameters) -> str:
    """What a catalog in a database is called."""
    password = quote(database["password"], safe="")
    return "postgresql://{user}:{password}@{host}:{port}/{database}".format(
        **{**database, "password": password}
    )


def local_catalog(folder: Path) -> Catalog:
    """SQLite and a folder."""
    return open_catalog(*_local(folder), {})


def _local(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables"
