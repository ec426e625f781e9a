"""The tables of a platform on a cluster, as somebody opens them who has its variables."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import polars as pl
from on_cluster import Namespace
from pyiceberg.catalog import Catalog, load_catalog


def secret(namespace: Namespace, name: str) -> Mapping[str, str]:
    """The entries of a Secret."""
    found = json.loads(namespace.kubectl("get", "secret", name, "-o", "json"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in found.items()}


@contextmanager
def opened_catalog(namespace: Namespace) -> Iterator[Catalog]:
    """The catalog, as long as its database and its store go on running."""
    data, s3 = secret(namespace, "dev-data"), secret(namespace, "dev-s3")
    with (
        namespace.forward("service/dev-postgres", 5432) as database,
        namespace.forward("service/dev-s3", 7070) as store,
    ):
        uri = data["ICEBERG_CATALOG_URI"].replace("dev-postgres:5432", database.split("//")[1])
        yield load_catalog(
            uri=uri.replace("postgresql", "postgresql+psycopg2", 1),
            warehouse=data["ICEBERG_WAREHOUSE"],
            **{
                "s3.endpoint": store,
                "s3.region": s3["AWS_REGION"],
                "s3.access-key-id": s3["AWS_ACCESS_KEY_ID"],
                "s3.secret-access-key": s3["AWS_SECRET_ACCESS_KEY"],
            },
        )


def rows(catalog: Catalog, table: str) -> pl.DataFrame:
    """A table's rows, in one order."""
    found = pl.DataFrame(catalog.load_table(table).scan().to_arrow())
    columns = sorted(found.columns)
    return found.select(columns).sort(by=columns)
