"""The three code locations on real servers, with the demo's source data or a small one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from whole_platform import Platform, connected, copy_database, database_variables, started

from forge_demo import landing_files, rates_api, source
from forge_platform.testing import EmbeddedPostgres


@pytest.fixture(scope="session")
def rates_url() -> Iterator[str]:
    """The demo's exchange-rate API."""
    server = rates_api.server(0, Path(__file__).parents[2] / "docs")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/rates"
    server.shutdown()


@pytest.fixture(scope="session")
def demo_source(postgres: EmbeddedPostgres) -> str:
    """The database with the demo's source data, to be copied."""
    name = "demo_source"
    source.load(postgres.create_database(name))
    return name


@pytest.fixture(scope="session")
def small_source(postgres: EmbeddedPostgres) -> str:
    """The database with a small source, to be copied."""
    name = "small_source"
    statements = Path(__file__).with_name("small_source.sql").read_text()
    with connected(postgres.create_database(name)) as connection:
        connection.cursor().execute(statements)
    return name


@pytest.fixture(scope="module")
def demo_variables(postgres: EmbeddedPostgres, demo_source: str, rates_url: str) -> dict[str, str]:
    """Databases of the module's own, with the demo's source data, and the API."""
    return _variables(postgres, demo_source, rates_url)


@pytest.fixture(scope="module")
def small_variables(
    postgres: EmbeddedPostgres, small_source: str, rates_url: str
) -> dict[str, str]:
    """Databases of the module's own, with the small source, and the API."""
    return _variables(postgres, small_source, rates_url)


@pytest.fixture(scope="module")
def platform(
    demo_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform of the module's own, with the demo's source data and no run yet.

    Its Dagster instance is in memory: an event costs a tenth of what it costs on disk.
    """
    folder = tmp_path_factory.mktemp("platform")
    with started(folder, demo_variables) as platform:
        landing_files.write_landing_files(platform.landing)
        yield platform


def _variables(server: EmbeddedPostgres, original: str, rates_url: str) -> dict[str, str]:
    name = uuid4().hex
    return {
        **database_variables("DB", copy_database(server, original, f"source_{name}")),
        **database_variables("SERVING_DB", server.create_database(f"serving_{name}")),
        "EXCHANGE_RATES_URL": rates_url,
    }
