"""What is refused before it is served."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from forge_platform import validate as validate_module
from forge_platform.checks import contract_check
from forge_platform.contracts import CLEAN_CUSTOMERS, RAW_ORDERS
from forge_platform.helm_values import CONTAINER_CONTEXT
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.validate import (
    contract_problems,
    instance_problems,
    launch_problems,
    main,
    validate,
    version_problems,
)

MADE_TWICE = """
import dagster as dg

@dg.asset
def twice(): ...

defs = dg.Definitions([twice, twice.with_attributes()])
"""


def producer(key: str) -> dg.Definitions:
    @dg.asset(name="clean_customers", metadata={"forge/key": key})
    def clean_customers() -> None: ...

    catalog = IcebergResource(catalog_uri="sqlite:///x", warehouse_path="file:///x")
    checks = [contract_check(CLEAN_CUSTOMERS)]
    resources = {"iceberg": catalog}
    return dg.Definitions([clean_customers], asset_checks=checks, resources=resources)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of definitions, to be written."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "team_definitions.py"
    sys.modules.pop("team_definitions", None)


@pytest.fixture
def webserver() -> Iterator[list[str]]:
    """URL of a webserver, the version that it will tell, and what makes it close once before."""
    told = ["", version("dagster")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if told[2:]:
                del told[2:]
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"dagster_version": told[1]}).encode())

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told[0] = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told
    server.shutdown()


def test_a_location_that_keeps_its_contracts_is_accepted() -> None:
    assert contract_problems("customers", producer("customer_id")) == []


def test_another_key_than_the_contracts_is_refused() -> None:
    (problem,) = contract_problems("customers", producer("email"))
    assert problem == "customers.clean_customers has the key email, its contract (customer_id)"


def test_a_promised_asset_that_is_missing_is_refused() -> None:
    (problem,) = contract_problems("customers", dg.Definitions())
    assert "customers.clean_customers is under contract" in problem


def test_reading_another_locations_asset_without_a_contract_is_refused() -> None:
    specs = [RAW_ORDERS.spec(), dg.AssetSpec("somebody_elses")]
    resources = {"iceberg_io_manager": dg.mem_io_manager}
    definitions = dg.Definitions(assets=specs, resources=resources)
    (problem,) = contract_problems("new", definitions)
    assert problem.startswith("somebody_elses of another location is read without a contract")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
        ("x = 1", "must hold one dagster.Definitions, and holds 0"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        (MADE_TWICE, "DagsterInvalidDefinitionError"),
    ],
)
def test_definitions_that_do_not_load_are_refused(
    module: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    module.write_text(text)
    with pytest.raises(SystemExit, match="1"):
        main(["--location", "team", "--module", "team_definitions"])
    printed = capsys.readouterr().out
    assert printed.startswith("refused: the definitions of team_definitions do not load")
    assert reason in printed


def test_a_module_that_fits_is_accepted(
    module: Path, webserver: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    module.write_text("import dagster as dg\ndefs = dg.Definitions()")
    assert validate("team", "team_definitions", webserver[0]) == []


def test_another_series_of_dagster_is_refused(webserver: list[str]) -> None:
    assert version_problems(webserver[0]) == []
    webserver[1] = "1.9.3"
    (problem,) = version_problems(webserver[0])
    assert "the platform 1.9.3: build it from a lock with Dagster 1.9" in problem


def test_a_webserver_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_module, "_SECONDS", 1)
    (problem,) = version_problems("http://127.0.0.1:1")
    assert "does not tell its version at http://127.0.0.1:1/server_info" in problem


def test_a_webserver_that_is_about_to_start_is_waited_for(webserver: list[str]) -> None:
    webserver[2:] = ["closes"]
    assert version_problems(webserver[0]) == []
    assert not webserver[2:]


@pytest.mark.parametrize(
    "settings",
    [
        "storage: {postgres: {postgres_url: 'postgresql://a:b@127.0.0.1:1/c'}}",
        "compute_logs: {module: dagster_not_there, class: S3ComputeLogManager}",
    ],
)
def test_an_instance_that_cannot_be_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(settings)
    (problem,) = instance_problems()
    assert problem.startswith("the platform's instance cannot be used: ")


def test_a_limit_below_what_the_platform_requests_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def context(memory: str) -> Mapping[str, Any]:
        return {"k8s": {"resources": {"limits": {"cpu": 1, "memory": memory}}}}

    requests = {"cpu": "250m", "memory": "512Mi"}
    names = {"service_account_name": "runs", "instance_config_map": "instance"}
    config = {**names, "resources": {"requests": requests}}
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}
    (tmp_path / "dagster.yaml").write_text(json.dumps({"run_launcher": launcher}))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv(CONTAINER_CONTEXT, json.dumps(context("256Mi")))
    (problem,) = instance_problems()
    assert problem.startswith("a run would request more memory than its limit")
    with dg.DagsterInstance.get() as instance:
        assert launch_problems(instance, context("1Gi")) == []
