"""What is wrong around a run is named by its failure, with the remedy, and does no harm."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from other_process import run_with_small_files
from polars.testing import assert_frame_equal
from psycopg2 import sql
from whole_platform import Platform, started

import customers.definitions
import ingestion.databases
import ingestion.definitions
import ingestion.files
import orders.definitions
from forge_platform import (
    RETRY_TRANSIENT,
    DatabaseResource,
    IcebergResource,
    SourceUnavailable,
    load_files,
)
from forge_platform.environment import CATALOG_SCHEMES
from forge_platform.landing import LandedFiles
from forge_platform.testing import EmbeddedPostgres, S3Server

WRONG_SECRET = "hunter2"
RUNS = "Check that it is running and can be reached."
RESTORE = "Restore the columns in the source, or change the expected ones with the asset."
OURS = "forge_platform.errors."
FILES = [dg.AssetKey(name) for name in ("rejected_rows", "raw_customer_files", "loaded_files")]


@pytest.fixture(scope="module")
def platform(
    small_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("bad_input")
    with started(folder, small_variables) as platform:
        platform.run("ingestion")
        yield platform


@pytest.fixture
def harmless(platform: Platform) -> Iterator[None]:
    """Afterwards the customers are as they were, and the next run has nothing to make good."""
    before = snapshot(platform, "raw_customers")
    yield
    assert snapshot(platform, "raw_customers") == before
    extract(platform)
    assert snapshot(platform, "raw_customers") == before


def snapshot(platform: Platform, asset: str) -> int | None:
    return platform.iceberg.view(f"ingestion.{asset}").snapshot_id


def extract(platform: Platform, **options: Any) -> dg.JobExecutionResult:
    """Runs the asset that most of these tests break."""
    return platform.run("ingestion", asset_selection=[dg.AssetKey("raw_customers")], **options)


def failure(
    platform: Platform, asset: str = "raw_customers", location: str = "ingestion"
) -> tuple[str, str]:
    """Type and text of what made the run of an asset fail; nothing that it logs has a secret."""
    result = platform.run(location, asset_selection=[dg.AssetKey(asset)], raise_on_error=False)
    entries = platform.instance.all_logs(result.run_id)
    logged = "\n".join(dg.serialize_value(entry) for entry in entries)
    assert platform.variables["DB_PASSWORD"] not in logged
    assert WRONG_SECRET not in logged
    return cause(result)


def cause(result: dg.JobExecutionResult) -> tuple[str, str]:
    """Type and text of the platform's own failure, which Dagster wraps into others."""
    error = result.get_run_failure_event().job_failure_data.error
    while error and not error.message.startswith(OURS):
        error = error.cause
    assert error is not None
    kind, _, text = error.message.removeprefix(OURS).partition(": ")
    return kind, text.rstrip()


@pytest.mark.usefixtures("harmless")
def test_missing_and_malformed_variables_are_named_at_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DB_HOST", "DB_PASSWORD", "ICEBERG_WAREHOUSE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DB_PORT", f"5432{WRONG_SECRET}")
    monkeypatch.setenv("LANDING_URI", f"ftp://me:{WRONG_SECRET}@files")
    monkeypatch.setenv("ICEBERG_CATALOG_URI", f"mysql://me:{WRONG_SECRET}@catalog")
    kind, text = failure(platform)
    assert kind == "ConfigurationError"
    summary, *problems = text.splitlines()
    assert summary.endswith("Set or correct these variables and start again:")
    assert [problem.partition(" (")[0] for problem in sorted(problems)] == [
        "  - DB_HOST is not set",
        "  - DB_PASSWORD is not set",
        "  - DB_PORT must be a whole number",
        f"  - ICEBERG_CATALOG_URI must be a URI that starts with {', '.join(CATALOG_SCHEMES)}",
        "  - ICEBERG_WAREHOUSE is not set",
        "  - LANDING_URI must be a URI that starts with file, s3",
    ]


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("variable", "value", "kind", "told"),
    [
        ("DB_PORT", "1", "SourceUnavailable", ["PostgreSQL at 127.0.0.1:1 ", RUNS]),
        ("DB_HOST", "nobody.invalid", "SourceUnavailable", ["PostgreSQL at nobody.invalid:", RUNS]),
        ("DB_NAME", "nowhere", "ConfigurationError", ["(database nowhere)", "Check its name."]),
        (
            "DB_PASSWORD",
            WRONG_SECRET,
            "AuthenticationFailed",
            ["refuses the user postgres", "Check user and password."],
        ),
    ],
)
def test_a_source_that_cannot_be_reached(
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    kind: str,
    told: Sequence[str],
) -> None:
    monkeypatch.setenv(variable, value)
    found, text = failure(platform)
    assert found == kind
    assert all(part in text for part in told)


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("change", "undo", "told"),
    [
        (
            "ALTER TABLE public.customers RENAME TO clients",
            "ALTER TABLE public.clients RENAME TO customers",
            "public.clients). Correct the name, or restore the table in the source.",
        ),
        (
            "ALTER TABLE public.customers RENAME email TO e_mail",
            "ALTER TABLE public.customers RENAME e_mail TO email",
            f"column email: expected text, missing (nearest: e_mail)\n{RESTORE}",
        ),
        (
            "ALTER TABLE public.customers ALTER customer_id TYPE text",
            "ALTER TABLE public.customers ALTER customer_id TYPE bigint USING customer_id::bigint",
            f"column customer_id: expected bigint, found text\n{RESTORE}",
        ),
    ],
    ids=["table missing", "column missing", "type changed"],
)
def test_a_source_that_has_changed(platform: Platform, change: str, undo: str, told: str) -> None:
    platform.execute(change)
    try:
        kind, text = failure(platform)
    finally:
        platform.execute(undo)
    assert kind == "SourceSchemaError"
    assert platform.source["database"] in text
    assert text.endswith(told)


def test_an_api_that_answers_html(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(platform, "exchange_rates")
    with html_server() as url:
        monkeypatch.setenv("EXCHANGE_RATES_URL", url)
        kind, text = failure(platform, "exchange_rates")
    assert kind == "ApiResponseError"
    assert f"GET {url}?" in text
    assert "answered 200 (text/html): '<html>Log in</html>'" in text
    assert text.endswith("Check the API's base_url, or whether the API has changed.")
    assert snapshot(platform, "exchange_rates") == before


@contextmanager
def html_server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Log in</html>")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/rates"
        server.shutdown()


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("uri", "kind", "thing"),
    [
        (
            f"postgresql://me:{WRONG_SECRET}@127.0.0.1:1/catalog",
            "SourceUnavailable",
            "postgresql://127.0.0.1:1/catalog cannot be reached",
        ),
        (
            f"postgresql://postgres:{WRONG_SECRET}@127.0.0.1:{{port}}/catalog",
            "AuthenticationFailed",
            "/catalog refuses the credentials",
        ),
        ("http://127.0.0.1:1", "SourceUnavailable", "http://127.0.0.1:1 cannot be reached"),
        (
            "sqlite:////nowhere/catalog.db",
            "SourceUnavailable",
            "sqlite:////nowhere/catalog.db cannot be reached: unable to open database file",
        ),
        ("glue://eu-west-1", "AuthenticationFailed", "glue://eu-west-1 refuses the credentials"),
    ],
    ids=["away", "password", "REST", "folder missing", "no credentials"],
)
def test_a_catalog_that_cannot_be_reached(
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    kind: str,
    thing: str,
) -> None:
    monkeypatch.setenv("ICEBERG_CATALOG_URI", uri.format(port=platform.source["port"]))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found, text = failure(platform)
    assert found == kind
    assert text.startswith("The Iceberg catalog at ")
    assert thing in text
    assert "Check ICEBERG_CATALOG_URI" in text


@pytest.mark.parametrize(
    ("endpoint", "kind", "told"),
    [
        ("http://127.0.0.1:1", "SourceUnavailable", "cannot be used: "),
        (None, "ConfigurationError", "does not exist: create it, or correct ICEBERG_WAREHOUSE."),
    ],
    ids=["away", "no such bucket"],
)
def test_a_store_that_cannot_be_used(
    platform: Platform,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    endpoint: str | None,
    kind: str,
    told: str,
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("ICEBERG_CATALOG_URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("ICEBERG_WAREHOUSE", "s3://no-such-bucket/tables")
    found, text = failure(platform)
    assert found == kind
    assert "table files at s3://no-such-bucket/tables" in text
    assert told in text


def test_what_was_never_made_is_named(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ICEBERG_CATALOG_URI", f"sqlite:///{tmp_path}/catalog.db")
    kind, text = failure(platform, "customer_clv", "customers")
    assert kind == "PermanentError"
    assert text.endswith("does not exist yet: materialise the asset clean_customers first.")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> int:
    """The policy of the assets, without its waiting time; returns how often it retries."""
    op = ingestion.databases.raw_customers.op
    assert op.retry_policy is RETRY_TRANSIENT
    quick = dg.RetryPolicy(max_retries=RETRY_TRANSIENT.max_retries, delay=0.5)
    monkeypatch.setattr(op, "_retry_policy", quick)
    return quick.max_retries


def retried(result: dg.JobExecutionResult) -> int:
    return len(result.filter_events(lambda event: event.is_step_restarted))


@pytest.mark.usefixtures("harmless")
def test_what_may_pass_is_retried(
    platform: Platform, quick_retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PORT", "1")
    result = extract(platform, retries=True, raise_on_error=False)
    assert cause(result)[0] == "SourceUnavailable"
    assert retried(result) == quick_retries


@pytest.mark.usefixtures("harmless", "quick_retries")
def test_what_has_passed_is_no_failure(
    platform: Platform, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source accepts nobody when the run begins, and everybody after it was refused once."""
    columns = DatabaseResource.columns
    refused: list[Exception] = []

    def once(database: DatabaseResource, schema: str, table: str) -> dict[str, str]:
        try:
            return columns(database, schema, table)
        except SourceUnavailable as error:
            refused.append(error)
            allow(postgres, platform, True)
            raise

    monkeypatch.setattr(DatabaseResource, "columns", once)
    allow(postgres, platform, False)
    result = extract(platform, retries=True)
    assert result.success
    assert len(refused) == retried(result) == 1


def allow(server: EmbeddedPostgres, platform: Platform, connections: bool) -> None:
    statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
        sql.Identifier(platform.source["database"]), sql.Literal(connections)
    )
    with closing(psycopg2.connect(**server.connection())) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


@pytest.mark.usefixtures("harmless", "quick_retries")
def test_what_cannot_pass_is_not_retried(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", WRONG_SECRET)
    result = extract(platform, retries=True, raise_on_error=False)
    assert cause(result)[0] == "AuthenticationFailed"
    assert retried(result) == 0


def test_every_asset_is_retried_by_that_policy() -> None:
    definitions = (ingestion.definitions, customers.definitions, orders.definitions)
    assets = [
        asset
        for module in definitions
        for asset in module.defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable
    ]
    assert {asset.op.retry_policy for asset in assets} == {RETRY_TRANSIENT}


@pytest.mark.parametrize(
    ("before", "read"),
    [
        pytest.param("first", "old", id="other rows"),
        pytest.param("first", "no JSON", id="a row that is rejected"),
        pytest.param("new", "old", id="the rows that were there before"),
    ],
)
def test_a_file_that_is_replaced_between_two_runs_is_there_in_its_newest_version(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, before: str, read: str
) -> None:
    """A run has read a file, which is replaced and loaded by another run before it writes."""
    path = platform.landing / "replaced.jsonl"
    listings = 0

    def load(**options: Any) -> dg.JobExecutionResult:
        return platform.run("ingestion", asset_selection=FILES, **options)

    def loaded_versions(iceberg: IcebergResource) -> dict[str, tuple[str, dt.datetime]]:
        nonlocal listings
        listings += 1
        return loaded_before(iceberg)

    @contextmanager
    def overtaken(*arguments: Any) -> Iterator[Any]:
        with load_files(*arguments) as landed:
            if listings == 1:
                path.write_text(customer("new") + "\n")
                load()
            yield landed

    path.write_text(customer(before))
    load()
    loaded_before = ingestion.files.loaded_versions
    monkeypatch.setattr(ingestion.files, "loaded_versions", loaded_versions)
    monkeypatch.setattr(ingestion.files, "load_files", overtaken)
    op = ingestion.files.raw_customer_files.op
    monkeypatch.setattr(op, "_retry_policy", dg.RetryPolicy(max_retries=1))
    path.write_text(read if read == "no JSON" else customer(read))
    overlapped = load(retries=True)
    assert platform.rows(ingestion.files.ROWS)["first_name"].to_list() == ["new"]
    assert platform.rows(ingestion.files.REJECTED).is_empty()
    assert retried(overlapped) == 1


def test_a_file_that_was_put_back_after_a_run_had_died_is_loaded_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has the version that is there, the rows are those of another one."""
    path = platform.landing / "replaced.jsonl"

    def load(**options: Any) -> dg.JobExecutionResult:
        return platform.run("ingestion", asset_selection=FILES, **options)

    def names() -> list[str]:
        found: list[str] = platform.rows(ingestion.files.ROWS)["first_name"].to_list()
        return found

    path.write_text(customer("good"))
    status = path.stat()
    load()
    path.write_text(customer("evil"))
    with monkeypatch.context() as patched:
        patched.delattr(LandedFiles, "ledger")
        assert not load(raise_on_error=False).success
    assert names() == ["evil"]
    path.write_text(customer("good"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    load()
    assert names() == ["good"]


def test_a_table_of_files_that_was_dropped_has_its_rows_again(platform: Platform) -> None:
    before = platform.rows(ingestion.files.ROWS)
    assert before.height
    platform.iceberg.catalog().drop_table(ingestion.files.ROWS)
    path = platform.landing / "replaced.jsonl"
    away = path.rename(platform.landing.parent / "away.jsonl")
    platform.run("ingestion", asset_selection=FILES)
    assert path.name not in platform.rows(ingestion.files.LEDGER)["source_file"]
    away.rename(path)
    platform.run("ingestion", asset_selection=FILES)
    assert_frame_equal(platform.rows(ingestion.files.ROWS), before, check_row_order=False)


def customer(name: str) -> str:
    values = dict.fromkeys(("email", "first_name", "last_name"), name)
    moments = dict.fromkeys(("created_at", "updated_at"), "2024-05-01T00:00:00Z")
    return json.dumps({"customer_id": 900, **values, **moments})


def test_a_full_disk(platform: Platform) -> None:
    """Comes last: it leaves the platform with more customers."""
    before = snapshot(platform, "raw_customers")
    platform.execute(
        "INSERT INTO public.customers SELECT id, md5(id::text) || '@example.com', md5(id || 'a'),"
        " md5(id || 'b'), now(), now() FROM generate_series(1001, 21000) AS id"
    )
    failed = run_with_small_files(500_000, "ingestion", platform.variables)
    assert len(failed) == 1
    warehouse = platform.variables["ICEBERG_WAREHOUSE"]
    assert f"StorageFull: No room is left at {warehouse}/ingestion/raw_customers" in failed[0]
    assert "Free space or enlarge the volume" in failed[0]
    assert snapshot(platform, "raw_customers") == before
    extract(platform)
    assert platform.rows("ingestion.raw_customers").height == 40 + 20_000
