"""The three code locations on real servers, with the demo's source data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from whole_platform import Platform, database_variables

from forge_demo import landing_files, rates_api, source
from forge_platform import IcebergResource
from forge_platform.testing import EmbeddedPostgres


@pytest.fixture(scope="session")
def rates_url() -> Iterator[str]:
    """The demo's exchange-rate API."""
    server = rates_api.server(0, Path(__file__).parents[2] / "docs")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/rates"
    server.shutdown()


@pytest.fixture(scope="module")
def platform(
    postgres: EmbeddedPostgres, rates_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform of the module's own, with the demo's source data and no run yet."""
    folder = tmp_path_factory.mktemp("platform")
    name = folder.name.replace("-", "_")
    shop = postgres.create_database(f"shop_{name}")
    serving = postgres.create_database(f"serving_{name}")
    source.load(shop)
    for sub in ("landing", "exports", "dagster"):
        (folder / sub).mkdir()
    landing_files.write_landing_files(folder / "landing")
    catalog = {
        "ICEBERG_CATALOG_URI": f"sqlite:///{folder}/catalog.db",
        "ICEBERG_WAREHOUSE": f"file://{folder}/tables",
    }
    variables = {
        **database_variables("DB", shop),
        **database_variables("SERVING_DB", serving),
        **catalog,
        "LANDING_URI": f"file://{folder}/landing",
        "EXPORT_URI": f"file://{folder}/exports",
        "EXCHANGE_RATES_URL": rates_url,
    }
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test(temp_dir=str(folder / "dagster")) as instance:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        yield Platform(
            instance=instance,
            source=shop,
            serving=serving,
            landing=folder / "landing",
            exports=folder / "exports",
            iceberg=IcebergResource(
                catalog_uri=catalog["ICEBERG_CATALOG_URI"],
                warehouse_path=catalog["ICEBERG_WAREHOUSE"],
            ),
        )
