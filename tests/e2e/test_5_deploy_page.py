"""docs/deploy.md, followed word by word: a platform of production's shape, from images to removal.

Its database, store and registry are the test's, so the page's examples of their names are replaced,
and nothing else is. The store listens on a port of its own, for which the page says what to set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
from cluster_tables import secret
from dagster_client import Dagster
from docs_page import Page, Reader
from installation import Installation
from on_cluster import Namespace, run, wait_until

NAMESPACE = "data"
DATABASE = "documented"
LAKE = "lake"
STORE = 7070
PORTS = {"networkPolicy": {"egressPorts": [5432, 443, 6443, STORE]}}
BUCKETS = ("example-dagster-logs", "example-lake")


@pytest.fixture
def page(namespace: Namespace) -> Page:
    return Page.read(
        "docs/deploy.md",
        {
            "db.example.com": f"dev-postgres.{namespace.name}",
            "https://s3.example.com": f"http://dev-s3.{namespace.name}:{STORE}",
            "registry.example.com/data": os.environ["REGISTRY"],
            "postgresqlDatabase: dagster": f"postgresqlDatabase: {DATABASE}",
            'requests: {cpu: "2"}': "requests: {cpu: 100m}",
            "nodeSelector: {pool: batch}": "nodeSelector: {kubernetes.io/os: linux}",
            "rollback orders 7": "rollback orders 1",
            "secrets: [lake] ": "secrets: [lake, s3] ",
        },
    )


def create_buckets(platform: Namespace, key: Mapping[str, str]) -> None:
    with platform.forward("service/dev-s3", STORE) as url:
        store = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=key["AWS_REGION"],
            aws_access_key_id=key["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"],
        )
        there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
        for name in set(BUCKETS) - there:
            store.create_bucket(Bucket=name)


@pytest.fixture
def reader(installation: Installation, checkout: Path) -> Iterator[Reader]:
    run("git", "init", "--quiet", cwd=checkout)
    run("git", "add", "--all", cwd=checkout)
    author = ("-c", "user.name=reader", "-c", "user.email=reader@example.com")
    run("git", *author, "commit", "--quiet", "--message", "The page's reader", cwd=checkout)
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    password = secret(installation.namespace, "dagster-postgresql")["postgresql-password"]
    for name in (DATABASE, LAKE):
        installation.empty_database(name)
    installation.psql(f"DROP ROLE IF EXISTS {LAKE}")
    installation.psql(f"CREATE ROLE {LAKE} SUPERUSER LOGIN PASSWORD '{password}'")
    installation.admit_visitors()
    key = secret(installation.namespace, "dev-s3")
    create_buckets(installation.namespace, key)
    yield Reader(checkout, {"PASSWORD": password, **key})
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def test_what_the_page_says_can_be_done_word_by_word(page: Page, reader: Reader) -> None:
    data = Namespace(NAMESPACE)
    reader.types(page.bash("1. The images", "2. What the platform needs"))
    reader.writes("platform.yaml", page.yaml("3. The platform", PORTS))
    reader.types(page.bash("3. The platform"))
    orders = page.yaml("4. The code locations", PORTS)
    reader.writes("code_locations/orders/deploy/prod.yaml", orders)
    with data.forward("service/forge-dagster-webserver", 3000) as url:
        ui = Dagster(url)
        for commands in page.blocks["4. The code locations", "bash"]:
            reader.types(commands)
        wait_until(lambda: "enriched_orders" in ui.assets("orders"), 30, "orders in the UI")
        done = ui.wait_for_end(ui.launch("orders", "table_care"))
        assert done.status == "SUCCESS", done.text
        assert "table_care" in ui.output(done.id)
        reader.types(page.bash("Upgrading the platform"))
        rolled_out(data)
        wait_until(lambda: "enriched_orders" in ui.assets("orders"), 30, "orders in the UI")
    history = json.loads(run("helm", "history", "orders", "-n", NAMESPACE, "-o", "json"))
    assert [found["description"] for found in history] == [
        "Install complete",
        "Upgrade complete",
        "Rollback to 1",
    ]
    reader.types(page.bash("Removing it").replace("kubectl delete priorityclass", "echo keeps"))
    assert data.get("deployment") == []


def rolled_out(namespace: Namespace) -> None:
    for found in namespace.get("deployment"):
        name = found["metadata"]["name"]
        namespace.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
