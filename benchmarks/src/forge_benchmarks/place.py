"""Where the benchmarks keep their data, and the servers that they need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from forge_platform.resources.database import DatabaseResource
from forge_platform.resources.iceberg import IcebergResource

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from forge_platform.testing import ConnectionParameters

ROOT = Path(__file__).parents[3] / ".bench"
_ADDRESS = ROOT / "postgres.json"


@contextmanager
def postgres() -> Iterator[None]:
    """A PostgreSQL for as long as the block takes; its data stays for the next time."""
    from forge_platform.testing import EmbeddedPostgres

    ROOT.mkdir(exist_ok=True)
    with EmbeddedPostgres(ROOT / "postgres", password="bench", durable=False) as server:  # noqa: S106
        _ADDRESS.write_text(json.dumps(server.connection()))
        yield


def address() -> ConnectionParameters:
    """How to connect to it, from any process."""
    found: ConnectionParameters = json.loads(_ADDRESS.read_text())
    return found


def url() -> str:
    """The same as a URL."""
    return DatabaseResource(**address()).connection_string


def connect() -> Connection:
    """A connection that commits every statement."""
    return psycopg2.connect(url())


def execute(statement: str) -> list[tuple[object, ...]]:
    """The rows of a statement, committed."""
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def emptied(name: str) -> Path:
    """The folder of a catalog, with nothing in it."""
    folder = ROOT / "tables" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def iceberg(name: str) -> IcebergResource:
    """A catalog of its own: SQLite and local files."""
    folder = ROOT / "tables" / name
    folder.mkdir(parents=True, exist_ok=True)
    return IcebergResource(
        catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse_path=f"file://{folder}"
    )
