"""The reference implementation of Iceberg's REST catalog, over a folder: Apache Iceberg's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from java import jars, running_java

from forge_platform.iceberg.catalog import open_catalog
from forge_platform.testing import free_port

JARS = "iceberg-rest"
# Without Hadoop's files of checksums, which no store in production has.
_HADOOP = """<configuration><property>
<name>fs.file.impl</name><value>org.apache.hadoop.fs.RawLocalFileSystem</value>
</property></configuration>
"""


class ReferenceCatalog:
    """A running server, which has one catalog."""

    def __init__(self, url: str, warehouse: Path) -> None:
        self._url = url
        self._warehouse = warehouse

    def emptied_catalog_uri(self) -> str:
        """Where the catalog is found, without what an earlier test has left in it."""
        catalog = open_catalog(self._url, "", {})
        for namespace in catalog.list_namespaces():
            for table in catalog.list_tables(namespace):
                catalog.drop_table(table)
            catalog.drop_namespace(namespace)
        shutil.rmtree(self._warehouse, ignore_errors=True)
        return self._url


@contextmanager
def running_reference_catalog(folder: Path) -> Iterator[ReferenceCatalog]:
    """Starts the server, and stops it when the block ends.

    Args:
        folder: where tables, its database and what it says is kept.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {
        "CATALOG_WAREHOUSE": f"file://{folder}/tables",
        "CATALOG_URI": f"jdbc:sqlite:{folder}/catalog.db",
        "CATALOG_CLIENTS": "1",  # SQLite has one writer
        "CATALOG_REST_PORT": str(port),
    }
    (folder / "core-site.xml").write_text(_HADOOP)
    classes = os.pathsep.join(str(path) for path in (folder, *jars(JARS)))
    command = ["-Xmx256m", "-cp", classes, "org.apache.iceberg.rest.RESTCatalogServer"]
    with running_java(command, f"{url}/v1/config", folder, variables):
        yield ReferenceCatalog(url, folder / "tables")
