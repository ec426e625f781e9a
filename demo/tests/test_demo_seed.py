"""What a development cluster is filled with."""

from __future__ import annotations

from contextlib import closing
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import psycopg2
import pytest

from forge_demo.cli import main
from forge_demo.landing_files import NEW_CUSTOMERS
from forge_demo.seed import seed
from forge_platform.errors import SourceUnavailable
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

ORDERS = 69_659


@pytest.fixture
def environment(
    new_database: ConnectionParameters, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> ConnectionParameters:
    variables = {
        "DB_HOST": new_database["host"],
        "DB_PORT": str(new_database["port"]),
        "DB_USER": new_database["user"],
        "DB_PASSWORD": new_database["password"],
        "DB_NAME": new_database["database"],
        "LANDING_URI": f"{s3_bucket}/landing",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return new_database


def test_everything_is_there_after_it_and_again_does_no_harm(
    environment: ConnectionParameters, s3_bucket: str, postgres: EmbeddedPostgres
) -> None:
    database, bucket = f"more_{uuid4().hex}", f"more-{uuid4().hex}"
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(["seed", "--database", database, "--bucket", bucket])
        assert end.value.code == 0
    with closing(psycopg2.connect(**environment)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.orders")
        assert cursor.fetchone() == (ORDERS,)
    environment["database"] = database
    psycopg2.connect(**environment).close()
    postgres.drop_database(database)
    client = boto3.client("s3")
    client.head_bucket(Bucket=bucket)
    objects = client.list_objects_v2(Bucket=urlsplit(s3_bucket).netloc)["Contents"]
    assert {item["Key"] for item in objects} == {f"landing/{name}" for name in NEW_CUSTOMERS}


@pytest.mark.usefixtures("environment")
def test_a_server_that_does_not_come_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PORT", "1")
    with pytest.raises(SourceUnavailable, match="does not answer"):
        seed([], [], patience=1)
