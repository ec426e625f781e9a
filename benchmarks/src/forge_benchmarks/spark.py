"""A local Spark with Iceberg, as a peer."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from forge_benchmarks.place import address

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MAVEN = "https://repo1.maven.org/maven2"
_JARS = (
    "org/apache/iceberg/iceberg-spark-runtime-4.0_2.13/1.11.0/iceberg-spark-runtime-4.0_2.13-1.11.0.jar",
    "org/postgresql/postgresql/42.7.7/postgresql-42.7.7.jar",
    "org/xerial/sqlite-jdbc/3.50.3.0/sqlite-jdbc-3.50.3.0.jar",
)
_CACHE = Path.home() / ".cache" / "forge-benchmarks"


@contextmanager
def session(folder: Path, catalog: str | None = None) -> Iterator[SparkSession]:
    """A session whose catalog ``local`` keeps tables in a folder.

    Args:
        folder: the warehouse.
        catalog: SQLite file of a catalog that pyiceberg wrote; None keeps tables by their path.
    """
    from pyspark.sql import SparkSession

    kind = {"type": "hadoop"}
    if catalog is not None:
        kind = {"type": "jdbc", "uri": f"jdbc:sqlite:{catalog}", "jdbc.schema-version": "V1"}
    options = {"warehouse": f"file://{folder}", **kind}
    builder = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.jars", ",".join(str(_jar(path)) for path in _JARS))
        .config(
            "spark.sql.extensions",
            "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        )
        .config("spark.sql.catalog.default", "org.apache.iceberg.spark.SparkCatalog")
        .config("spark.sql.catalog.local", "org.apache.iceberg.spark.SparkCatalog")
    )
    for name, value in options.items():
        for alias in ("default", "local"):
            builder = builder.config(f"spark.sql.catalog.{alias}.{name}", value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    try:
        yield made
    finally:
        made.stop()


def jdbc() -> Mapping[str, str]:
    """How Spark reads from the source."""
    source = address()
    return {
        "url": f"jdbc:postgresql://{source['host']}:{source['port']}/{source['database']}",
        "user": source["user"],
        "password": source["password"],
        "driver": "org.postgresql.Driver",
    }


def _jar(path: str) -> Path:
    """A jar of Maven Central, kept; it is what the checksum beside it says."""
    file = _CACHE / Path(path).name
    if not file.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        content = _get(path)
        if (
            hashlib.sha1(content, usedforsecurity=False).hexdigest()
            != _get(f"{path}.sha1").decode()
        ):
            raise OSError(f"{_MAVEN}/{path} is not what its checksum says: try again.")
        file.write_bytes(content)
    return file


def _get(path: str) -> bytes:
    with urllib.request.urlopen(f"{_MAVEN}/{path}", timeout=300) as answer:  # noqa: S310 - https
        content: bytes = answer.read()
        return content
