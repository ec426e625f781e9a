"""Fills the PostgreSQL and the S3 endpoint of a development cluster with the demo's data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg2
from psycopg2 import sql

from forge_demo import source
from forge_demo.landing_files import write_landing_files
from forge_platform.environment import database_variables, require, store_variable
from forge_platform.errors import SourceUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from forge_platform.testing import ConnectionParameters

_MAINTENANCE_DATABASE = "postgres"
_PAUSE_SECONDS = 1


def seed(databases: Iterable[str], buckets: Iterable[str], patience: float) -> None:
    """Makes databases and buckets, loads the source, drops the landing files; again does no harm.

    The source database and its server are those of the variables ``DB_*``, the files go to
    ``LANDING_URI``.

    Args:
        databases: to make besides the source.
        buckets: to make besides that of the files.
        patience: seconds in which the servers must answer.

    Raises:
        SourceUnavailable: a server does not answer in time.
    """
    require([*database_variables("DB").values(), store_variable("LANDING_URI")])
    deadline = time.monotonic() + patience
    parameters = _source()
    _when_up(lambda: _make_databases([parameters["database"], *databases]), deadline)
    source.load(parameters)
    landing = urlsplit(os.environ["LANDING_URI"])
    _when_up(lambda: _make_buckets([landing.netloc, *buckets]), deadline)
    _drop_files(landing.netloc, landing.path.strip("/"))


def _source(database: str | None = None) -> ConnectionParameters:
    return {
        "host": os.environ["DB_HOST"],
        "port": int(os.environ["DB_PORT"]),
        "user": os.environ["DB_USER"],
        "password": os.environ["DB_PASSWORD"],
        "database": database or os.environ["DB_NAME"],
    }


def _when_up(act: Callable[[], None], deadline: float) -> None:
    """Does it, as often as it takes until the server answers."""
    from botocore.exceptions import BotoCoreError

    while True:
        try:
            return act()
        except (psycopg2.OperationalError, BotoCoreError) as error:
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"A server does not answer: {error}") from error
        time.sleep(_PAUSE_SECONDS)


def _make_databases(names: Iterable[str]) -> None:
    with closing(psycopg2.connect(**_source(_MAINTENANCE_DATABASE))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in names:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _client() -> S3Client:
    import boto3

    return boto3.client("s3")


def _make_buckets(names: Iterable[str]) -> None:
    client = _client()
    known = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in dict.fromkeys(names):
        if name not in known:
            client.create_bucket(Bucket=name)


def _drop_files(bucket: str, prefix: str) -> None:
    client = _client()
    known = set(_keys(client, bucket))
    with TemporaryDirectory() as folder:
        write_landing_files(Path(folder))
        for path in sorted(Path(folder).iterdir()):
            key = f"{prefix}/{path.name}" if prefix else path.name
            if key not in known:
                client.upload_file(str(path), bucket, key)


def _keys(client: S3Client, bucket: str) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", ()):
            yield item["Key"]
