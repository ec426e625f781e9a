"""Servers that tests share; each is started when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from given_s3 import VARIABLE, GivenS3
from java import skip_without_jars
from nessie import Nessie, running_nessie
from reference_catalog import JARS, ReferenceCatalog, running_reference_catalog

from forge_platform.testing import ConnectionParameters, EmbeddedPostgres, S3Server

# Read when a location's definitions are imported; tests see what production sees.
os.environ["FORGE_ENVIRONMENT"] = "prod"


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for servers' data, not in pytest's own.

    Every pytest that root starts closes /tmp/pytest-of-root to others again, and a PostgreSQL
    of another session, which cannot run as root, dies for want of its files.
    """
    with TemporaryDirectory(prefix="forge-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for all tests of the session."""
    password = "not-'a' secret/@:%"  # noqa: S105 - to be quoted wherever it goes
    with EmbeddedPostgres(server_folder / "postgres", password=password, durable=False) as server:
        yield server


@pytest.fixture
def new_database(postgres: EmbeddedPostgres) -> Iterator[ConnectionParameters]:
    """A database that is the test's own."""
    name = f"test_{uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 endpoint for all tests of the session."""
    with GivenS3() if VARIABLE in os.environ else S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def nessie(s3_server: S3Server, server_folder: Path) -> Iterator[Nessie]:
    """One Iceberg REST catalog for all tests of the session."""
    skip_without_jars("nessie")
    folder = server_folder / "nessie"
    folder.mkdir()
    warehouse = f"{s3_server.create_bucket('nessie')}/tables"
    with running_nessie(warehouse, s3_server.environment, folder) as server:
        yield server


@pytest.fixture(scope="session")
def reference_catalog(server_folder: Path) -> Iterator[ReferenceCatalog]:
    """Another one, which keeps the history of its tables."""
    skip_without_jars(JARS)
    folder = server_folder / JARS
    folder.mkdir()
    with running_reference_catalog(folder) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a bucket that is the test's own; the AWS variables point to its server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.create_bucket(f"test-{uuid4().hex}")
