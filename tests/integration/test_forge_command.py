"""The command ``forge`` beside a whole platform, with the variables of a deployment."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from click.testing import CliRunner, Result
from whole_platform import Platform, database_variables, started

from forge_demo.ports import free_ports
from forge_platform import build_definitions, database_resource
from forge_platform.cli.main import main
from forge_platform.iceberg.commit import Plan, commit
from forge_platform.iceberg.state import WATERMARK
from ingestion import databases, files

WITHOUT_DAEMON = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
ORDERS = "ingestion.raw_orders"


@pytest.fixture(scope="module")
def platform(
    small_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("forge")
    with started(folder, small_variables) as platform:
        (platform.landing / "empty.jsonl").touch()
        platform.run("ingestion")
        yield platform


def forge(*arguments: str, code: int = 0, typed: str | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, input=typed)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def printed(*arguments: str, code: int = 0) -> Any:
    return json.loads(forge(*arguments, "--json", code=code).stdout)


def test_every_command_explains_itself() -> None:
    for command in ([], ["tables"], ["watermark"], ["watermark", "set"], ["backfill"]):
        assert "Usage: " in forge(*command, "--help").stdout


def test_tables_are_listed_with_rows_and_watermark(platform: Platform) -> None:
    found = {row["table"]: row for row in printed("tables")}
    assert found[ORDERS]["rows"] == platform.rows(ORDERS).height
    assert found[ORDERS]["watermark"] == platform.iceberg.watermark(ORDERS)
    assert found[ORDERS]["files"] >= 1
    assert "raw_customers" in forge("tables").stdout
    assert printed("tables", "ingestion") == list(found.values())


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_namespace_that_is_not_there_is_said_with_those_that_are(
    platform: Platform, form: list[str]
) -> None:
    assert platform.iceberg.find(ORDERS) is not None
    failed = forge("tables", "ingestoin", *form, code=3)
    assert "'ingestoin' names no namespace" in failed.stderr
    assert "There are: ingestion." in failed.stderr
    assert failed.stdout == ""


def test_a_table_that_cannot_be_read_hides_no_other(platform: Platform) -> None:
    found = platform.iceberg.find(ORDERS)
    assert found is not None
    file = Path(found.metadata_location.removeprefix("file://"))
    hidden = file.rename(file.with_suffix(".hidden"))
    try:
        failed = forge("tables", "--json", code=3)
    finally:
        hidden.rename(file)
    listed = [row["table"] for row in json.loads(failed.stdout)]
    assert "ingestion.raw_customers" in listed
    assert ORDERS not in listed
    assert f"{ORDERS}: " in failed.stderr


def test_a_table_that_is_not_there_is_said_with_those_that_are(platform: Platform) -> None:
    failed = forge("watermark", "show", "raw_ordres", code=3)
    assert "names no table" in failed.stderr
    assert platform.iceberg.find(ORDERS) is not None
    assert ORDERS in failed.stderr


def test_missing_variables_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ICEBERG_CATALOG_URI", "ICEBERG_WAREHOUSE"):
        monkeypatch.delenv(name, raising=False)
    failed = forge("tables", code=3)
    assert "ICEBERG_CATALOG_URI" in failed.stderr
    assert "ICEBERG_WAREHOUSE" in failed.stderr


def test_a_source_that_is_away_may_come_back(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert platform.variables["DB_PORT"] != "1"
    monkeypatch.setenv("DB_PORT", "1")
    assert "does not answer" in forge("reconcile", "raw_orders", code=4).stderr


def test_a_source_is_reconciled_by_the_prefix_of_its_variables(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_prefix = ("reconcile", "raw_customers", "--database", "ELSEWHERE")
    failed = forge(*by_prefix, code=3)
    variables = database_variables("ELSEWHERE", platform.source)
    for name, value in variables.items():
        assert f"{name} is not set" in failed.stderr
        monkeypatch.setenv(name, value)
    assert printed(*by_prefix)["equal"]


def test_a_watermark_is_moved_and_the_next_run_obeys(platform: Platform) -> None:
    before = printed("watermark", "show", "raw_orders")["watermark"]
    moved = printed("watermark", "set", "raw_orders", "2024-01-31T12:00:00", "--yes")
    assert moved["watermark"] == "2024-01-31T12:00:00+00:00"
    window = json.loads(platform.iceberg.position(ORDERS).window or "")
    assert window == {"columns": list(databases.ORDERS.columns)}
    assert platform.rows(ORDERS).height == 120
    platform.run("ingestion", asset_selection=[dg.AssetKey("raw_orders")])
    assert platform.metadata("raw_orders")["read_from"] == "2024-01-31T11:50:00+00:00"
    assert printed("watermark", "show", "raw_orders")["watermark"] == before

    assert printed("watermark", "reset", "raw_orders", "--yes")["watermark"] is None
    snapshot = platform.iceberg.view(ORDERS).snapshot_id
    assert printed("watermark", "reset", "raw_orders", "--yes")["watermark"] is None
    assert platform.iceberg.view(ORDERS).snapshot_id == snapshot
    platform.run("ingestion", asset_selection=[dg.AssetKey("raw_orders")])
    assert platform.metadata("raw_orders")["extraction"] == "full"
    assert printed("watermark", "show", "raw_orders")["watermark"] == before


def test_rates_are_read_from_a_watermark_that_was_reset_and_set(platform: Platform) -> None:
    before = printed("watermark", "show", "exchange_rates")["watermark"]
    printed("watermark", "reset", "exchange_rates", "--yes")
    printed("watermark", "set", "exchange_rates", "2024-03-05", "--yes")
    platform.run("ingestion", asset_selection=[dg.AssetKey("exchange_rates")])
    assert printed("watermark", "show", "exchange_rates")["watermark"] == before


def test_a_watermark_is_not_moved_without_a_yes(platform: Platform) -> None:
    before = platform.iceberg.view(ORDERS).snapshot_id
    forge("watermark", "reset", "raw_orders", typed="n\n", code=1)
    for wrong in ("soon", "9999-12-31T23:59:59-05:00"):
        assert "no time stamp" in forge("watermark", "set", "raw_orders", wrong, code=3).stderr
    refused = forge("watermark", "set", "loaded_files", "2024-01-01", "--yes", code=3)
    assert "only reset" in " ".join(refused.stderr.split())
    assert platform.iceberg.view(ORDERS).snapshot_id == before


@pytest.mark.parametrize("name", [files.REJECTED, files.ROWS, files.LEDGER])
def test_a_ledger_is_not_kept_without_the_watermark_of_all_its_tables(
    platform: Platform, name: str
) -> None:
    """Where every run overwrites, what a ledger lists would be left out of the rows."""
    table = platform.iceberg.find(name)
    assert table is not None

    def is_kept() -> bool:
        return files.is_kept({table: platform.iceberg.position(table) for table in files.TABLES})

    assert is_kept()
    forge("watermark", "reset", name, "--yes")
    assert not is_kept()
    refused = forge("watermark", "set", name, "2024-01-01", "--yes", code=3)
    assert "does not follow a time stamp" in " ".join(refused.stderr.split())
    commit(table, lambda _: Plan(), {WATERMARK: files.KEPT})
    assert is_kept()


def test_a_watermark_in_the_future_is_refused(platform: Platform) -> None:
    def refused(moment: str) -> str:
        return forge("watermark", "set", "raw_orders", moment, "--yes", code=3).stderr

    before = platform.iceberg.view(ORDERS).snapshot_id
    assert "never move it back" in refused("2999-01-01")
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert "is in the future" in refused(soon.isoformat())
    assert platform.iceberg.view(ORDERS).snapshot_id == before


def test_source_and_table_are_reconciled(platform: Platform) -> None:
    same = printed("reconcile", "raw_orders")
    assert same["equal"]
    assert same["source_rows"] == same["table_rows"] == 120
    assert same["source_checksum"] == same["table_checksum"]
    assert same["ranges"] == same["not_compared"] == []
    assert printed("reconcile", "raw_customers")["equal"]

    platform.execute("UPDATE public.orders SET quantity = 99 WHERE order_id = 17")
    platform.execute(
        "INSERT INTO public.orders SELECT 500, 3, '2024-01-02', 'paid', 1, 1, 'USD', now(), now()"
    )
    other = printed("reconcile", "raw_orders", code=1)
    assert not other["equal"]
    found = {part["examples"][0]: part for part in other["ranges"]}
    assert set(found) == {"17", "500"}
    assert (found["17"]["different"], found["17"]["pending"]) == (1, 0)
    assert found["17"]["from"] <= 17 < found["17"]["before"]
    assert (found["500"]["missing"], found["500"]["pending"]) == (1, 1)
    shown = forge(
        "reconcile", "raw_orders", "--source", "public.orders", "--key", "order_id", code=1
    )
    assert "differ." in shown.stdout
    platform.run("ingestion", asset_selection=[dg.AssetKey("raw_orders")])
    assert printed("reconcile", "raw_orders", code=1)["ranges"][0]["examples"] == ["17"]
    refused = forge("reconcile", "incremental_orders", code=3)
    assert "keeps every version" in refused.stderr


@pytest.fixture(scope="module")
def webserver(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A webserver with two code locations, and no daemon."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(WITHOUT_DAEMON)
    (port,) = free_ports(1)
    modules = [part for name in ("ingestion", "orders") for part in ("-m", f"{name}.definitions")]
    command = [sys.executable, "-m", "dagster_webserver", *modules, "-p", str(port)]
    environment = {**os.environ, **platform.variables, "DAGSTER_HOME": str(home)}
    url = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(url, home / "log")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(30)


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/server_info").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(log.read_text())


def test_backfills_are_launched_from_outside(platform: Platform, webserver: str) -> None:
    def launched(*arguments: str, code: int = 0) -> Mapping[str, Any]:
        found: Mapping[str, Any] = printed("backfill", *arguments, "--url", webserver, code=code)
        return found

    def refused(*arguments: str, code: int) -> str:
        return forge("backfill", *arguments, "--url", webserver, code=code).stderr

    days = ("--from", "2024-01-02", "--to", "2024-01-04")
    assert launched("daily_order_summary", *days, "--no-wait")["status"] == "LAUNCHED"
    platform.execute(
        "UPDATE public.orders SET status = 'lost', updated_at = '2024-04-01' WHERE order_id = 5"
    )
    # Beyond that row, so that only a run that is told from when to read finds it.
    forge("watermark", "set", "raw_orders", "2024-05-01", "--yes")
    assert launched("raw_orders", "--since", "2024-02-01")["status"] == "SUCCESS"
    lost = platform.rows(ORDERS).filter(status="lost")
    assert lost["order_id"].to_list() == [5]

    assert "has no partition '1999-01-01'" in refused(
        "daily_order_summary", "--from", "1999-01-01", code=3
    )
    assert "has no partitions" in refused("raw_orders", code=3)
    assert "There is no asset" in refused("raw_ordres", code=3)
    assert "one of them" in refused("raw_orders", "--full", "--since", "2024-01-01", code=2)
    assert "ISO time stamp" in refused("raw_orders", "--since", "soon", code=2)


def test_a_webserver_that_is_away_may_come_back() -> None:
    failed = forge("backfill", "raw_orders", "--full", "--url", "http://127.0.0.1:1", code=4)
    assert "does not answer" in failed.stderr


def test_tables_of_another_environment_are_left_out(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed() -> set[str]:
        return {row["table"] for row in printed("tables")}

    everything = listed()
    with monkeypatch.context() as dev:
        dev.setenv("FORGE_ENVIRONMENT", "dev")
        run_in_dev()
        assert listed() == {ORDERS, "ingestion.incremental_orders"}
    assert platform.iceberg.find(f"dev_{ORDERS}") is not None
    assert listed() == everything
    assert not [name for name in everything if name.startswith("dev_")]
    assert printed("watermark", "show", "raw_orders")["table"] == ORDERS


def run_in_dev(config: Mapping[str, Any] | None = None) -> None:
    definitions = build_definitions(
        "ingestion",
        assets=[databases.raw_orders, databases.incremental_orders],
        resources={"database": database_resource("DB")},
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    wanted = [dg.AssetKey("raw_orders"), dg.AssetKey("incremental_orders")]
    assert job.execute_in_process(run_config=config, asset_selection=wanted).success


def test_dev_adds_what_was_read_since_a_moment(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_ENVIRONMENT", "dev")
    run_in_dev()
    before = platform.rows(f"dev_{ORDERS}")
    platform.execute("UPDATE public.orders SET status = 'found' WHERE order_id = 120")
    since = {"config": {"mode": "since", "since": "2024-03-05T23:00:00Z"}}
    run_in_dev({"ops": {"raw_orders": since, "incremental_orders": since}})
    after = platform.rows(f"dev_{ORDERS}")
    assert after.height == before.height
    assert after.filter(status="found")["order_id"].to_list() == [120]
    assert platform.rows("dev_ingestion.incremental_orders").height == before.height
    assert printed("watermark", "show", "raw_orders")["watermark"] is None


def test_dev_adds_what_was_read_since_a_watermark(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_ENVIRONMENT", "dev")
    run_in_dev()
    before = platform.rows(f"dev_{ORDERS}").height
    forge("watermark", "set", "raw_orders", "2024-03-05", "--yes")
    run_in_dev()
    assert platform.rows(f"dev_{ORDERS}").height == before
