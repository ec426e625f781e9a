"""A real Iceberg REST catalog: Nessie, in memory, over a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from java import jars, running_java
from pyiceberg.catalog.rest import RestCatalog
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from forge_platform.testing import free_port

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


class Nessie:
    """A running server; each branch is a catalog of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def new_catalog_uri(self) -> str:
        """Where an empty catalog is found; its warehouse is ``tables``."""
        name = f"test-{uuid4().hex}"
        main = httpx.get(f"{self._url}/api/v2/trees/main").raise_for_status().json()
        httpx.post(
            f"{self._url}/api/v2/trees",
            params={"name": name, "type": "BRANCH"},
            json=main["reference"],
        ).raise_for_status()
        return f"{self._url}/iceberg/{name}"


def add_last_column_ids(catalog: Catalog) -> None:
    """Adds to new schemas what Nessie insists on and the specification has given up.

    See https://github.com/projectnessie/nessie/issues/11341.
    """
    assert isinstance(catalog, RestCatalog)
    catalog._session.mount("http://", _LastColumnId())


class _LastColumnId(HTTPAdapter):
    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        body = request.body or b""
        if isinstance(body, bytes) and b'"add-schema"' in body:
            content = json.loads(body)
            for update in content["updates"]:
                if update["action"] == "add-schema":
                    update["last-column-id"] = max(_field_ids(update["schema"]))
            request.prepare_body(None, None, json=content)
        return super().send(request, *args, **options)


def _field_ids(node: Any) -> Iterator[int]:
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for name, child in children:
        if name in {"id", "element-id", "key-id", "value-id"}:
            yield child
        elif isinstance(child, dict | list):
            yield from _field_ids(child)


@contextmanager
def running_nessie(warehouse: str, s3: Mapping[str, str], folder: Path) -> Iterator[Nessie]:
    """Starts the server, and stops it when the block ends.

    Args:
        warehouse: location of the table files, ``s3://…``.
        s3: the AWS variables of the endpoint that has the bucket.
        folder: where it works and what it says is kept.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = [f"-D{name}={value}" for name, value in _settings(port, warehouse, s3).items()]
    (jar,) = jars("nessie")
    command = ["-Xmx512m", *settings, "-jar", str(jar)]
    with running_java(command, f"{url}/iceberg/v1/config", folder, {}):
        yield Nessie(url)


def _settings(port: int, warehouse: str, s3: Mapping[str, str]) -> dict[str, str]:
    options = "nessie.catalog.service.s3.default-options"
    return {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": str(port),
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": "0",
        "quarkus.otel.sdk.disabled": "true",
        "nessie.version.store.type": "IN_MEMORY",
        "nessie.catalog.default-warehouse": "tables",
        "nessie.catalog.warehouses.tables.location": warehouse,
        "nessie.catalog.object-stores.health-check.enabled": "false",
        f"{options}.endpoint": s3["AWS_ENDPOINT_URL"],
        f"{options}.path-style-access": "true",
        f"{options}.region": s3["AWS_REGION"],
        f"{options}.auth-type": "STATIC",
        f"{options}.access-key": "urn:nessie-secret:quarkus:forge.s3",
        f"{options}.request-signing-enabled": "false",
        "forge.s3.name": s3["AWS_ACCESS_KEY_ID"],
        "forge.s3.secret": s3["AWS_SECRET_ACCESS_KEY"],
    }
