"""Servers that tests share; each is started when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from forge_platform.testing import ConnectionParameters, EmbeddedPostgres, S3Server

# Read when a location's definitions are imported; tests see what production sees.
os.environ["FORGE_ENVIRONMENT"] = "prod"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for all tests of the session."""
    data_dir = tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres(data_dir, password="not-'a' secret/@:%", durable=False) as server:
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
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a bucket that is the test's own; the AWS variables point to its server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.create_bucket(f"test-{uuid4().hex}")
