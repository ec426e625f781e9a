"""A run that is killed and then retried: nothing is lost and nothing is there twice."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from other_process import Moment, kill
from polars.testing import assert_frame_equal
from whole_platform import JOBS, LOCATIONS, Platform, days, open_iceberg, started

TABLES = {
    "ingestion": (
        "ingestion.raw_customers",
        "ingestion.raw_orders",
        "ingestion.incremental_orders",
        "ingestion.raw_customer_files",
        "ingestion.rejected_rows",
        "ingestion.loaded_files",
        "ingestion.exchange_rates",
    ),
    "customers": (
        "customers.clean_customers",
        "customers.rejected_customers",
        "customers.customer_metrics",
        "customers.customer_clv",
    ),
    "orders": (
        "orders.enriched_orders",
        "orders.daily_order_summary",
        "orders.sales_daily_summary",
    ),
}
# They say when and by which run a row was written.
OF_THE_RUN = ("_processing_run_id", "_processed_at", "loaded_at", "rejected_at")

DAY = days("2024-01-15", "2024-01-15")

HEADER = "customer_id,email,first_name,last_name,created_at,updated_at\n"
CHANGE = """
UPDATE public.customers SET email = 'new.' || customer_id || '@example.com', updated_at = now()
WHERE customer_id IN (1, 2, 3, 10);
UPDATE public.customers SET email = 'nobody', updated_at = now() WHERE customer_id = 4;
UPDATE public.orders SET status = 'delivered', updated_at = now() WHERE order_id IN (5, 6);
INSERT INTO public.orders
SELECT 200 + id, id, '2024-01-15', 'pending', 1, 10.50, 'USD', now(), now()
FROM generate_series(1, 7) AS id;
"""


def line(customer_id: object, name: str) -> str:
    times = "2024-05-01T00:00:00Z,2024-05-01T00:00:00Z"
    return f"{customer_id},{name}@example.com,{name},{name},{times}\n"


def drop_files(landing: Path) -> None:
    """What is there before the first pass."""
    (landing / "old.csv").write_text(HEADER + line(50, "Ada") + line("?", "Bad") + line(51, "Bo"))


def drop_more_files(landing: Path) -> None:
    """A new file, and another version of the old one, with a row less and another bad one."""
    (landing / "new.csv").write_text(HEADER + line(52, "Cy") + line("?", "Worse") + line(1, "Di"))
    (landing / "old.csv").write_text(HEADER + line(50, "Eve") + line("", "Worst"))


def content(platform: Platform, location: str) -> Mapping[str, pl.DataFrame]:
    """A location's tables, sorted, without what says when and by which run a row was written."""
    tables = {name: platform.rows(name).drop(OF_THE_RUN, strict=False) for name in TABLES[location]}
    return {name: rows.sort(rows.columns) for name, rows in tables.items()}


@dataclass(frozen=True)
class Base:
    """A platform after its first pass and a change of everything that it reads.

    Attributes:
        state: the folder of the tables, their catalog and the Dagster instance.
        before: copies of it as it was before each location's job.
        undisturbed: what comes out when nothing is killed.
    """

    platform: Platform
    state: Path
    before: Mapping[str, Path]
    undisturbed: Mapping[str, pl.DataFrame]

    @contextmanager
    def restored(self, location: str) -> Iterator[Platform]:
        """The platform before a job, at the same place: Iceberg's paths are absolute."""
        shutil.rmtree(self.state)
        shutil.copytree(self.before[location], self.state)
        with dg.DagsterInstance.from_config(str(self.state)) as instance:
            iceberg = open_iceberg(self.platform.variables)
            yield replace(self.platform, instance=instance, iceberg=iceberg)


@pytest.fixture(scope="module")
def base(
    small_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Base]:
    folder = tmp_path_factory.mktemp("killed")
    state = folder / "state"
    state.mkdir()
    (state / "dagster.yaml").write_text("telemetry: {enabled: false}")
    variables = {
        **small_variables,
        "DAGSTER_HOME": str(state),
        "ICEBERG_CATALOG_URI": f"sqlite:///{state}/catalog.db",
        "ICEBERG_WAREHOUSE": f"file://{state}/tables",
    }
    with (
        dg.DagsterInstance.from_config(str(state)) as instance,
        started(folder, variables, instance) as platform,
    ):
        drop_files(platform.landing)
        platform.run_all()
        platform.execute(CHANGE)
        drop_more_files(platform.landing)
        before: dict[str, Path] = {}
        undisturbed: dict[str, pl.DataFrame] = {}
        for location in LOCATIONS:
            before[location] = folder / f"before_{location}"
            shutil.copytree(state, before[location])
            platform.run(location, tags=DAY if location == "orders" else {})
            undisturbed.update(content(platform, location))
        yield Base(platform, state, before, undisturbed)


def writer(platform: Platform, table: str) -> str:
    """Which run wrote the table's current snapshot."""
    found = platform.iceberg.catalog().load_table(table)
    snapshot = found.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return snapshot.summary.additional_properties["forge.run-id"]


def materialised(platform: Platform, run: dg.DagsterRun) -> set[str]:
    """The assets that the run has reported."""
    entries = platform.instance.all_logs(
        run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    events = [entry.get_dagster_event() for entry in entries]
    return {event.asset_key.to_user_string() for event in events if event.asset_key}


def retry(platform: Platform, run: dg.DagsterRun, location: str) -> None:
    """What the daemon does: it notices that the run is dead, and resumes it where it was."""
    platform.instance.report_run_failed(run)
    dg.execute_job(
        dg.reconstructable(JOBS[location]),
        platform.instance,
        tags={**run.tags, "dagster/is_resume_retry": "true"},
        reexecution_options=dg.ReexecutionOptions.from_failure(run.run_id, platform.instance),
        raise_on_error=True,
    )


@pytest.mark.parametrize(
    ("location", "moment", "table", "then"),
    [
        ("ingestion", "before", "ingestion.raw_customers", "retry"),
        ("ingestion", "after", "ingestion.raw_customers", "retry"),
        ("ingestion", "after", "ingestion.incremental_orders", "next run"),
        # rejected_rows is written, raw_customer_files not yet
        ("ingestion", "before", "ingestion.raw_customer_files", "next run"),
        # raw_customer_files is written, the ledger not yet
        ("ingestion", "before", "ingestion.loaded_files", "retry"),
        ("ingestion", "after", "ingestion.loaded_files", "retry"),
        # rejected_customers is written, clean_customers not yet
        ("customers", "before", "customers.clean_customers", "retry"),
        ("customers", "after", "customers.clean_customers", "next run"),
        ("orders", "after", "orders.enriched_orders", "retry"),
    ],
)
def test_killed_and_continued(
    base: Base, location: str, moment: Moment, table: str, then: str
) -> None:
    with base.restored(location) as platform:
        assert kill(moment, table, location, DAY, platform.variables) == -signal.SIGKILL
        [run] = platform.instance.get_runs(limit=1)
        assert run.status == dg.DagsterRunStatus.STARTED
        assert (writer(platform, table) == run.run_id) == (moment == "after")
        assert table.partition(".")[2] not in materialised(platform, run)
        if then == "retry":
            retry(platform, run, location)
        else:
            platform.run(location, tags=DAY)
        for name, rows in content(platform, location).items():
            assert_frame_equal(rows, base.undisturbed[name])


def test_a_plain_append_is_done_once_by_a_run_and_its_retry(base: Base) -> None:
    with base.restored("ingestion") as platform:
        platform.run("log")
        assert kill("after", "log.lines", "log", {}, platform.variables) == -signal.SIGKILL
        [run] = platform.instance.get_runs(limit=1)
        assert platform.rows("log.lines").height == 3 + 3
        retry(platform, run, "log")
        assert platform.rows("log.lines").height == 3 + 3
        platform.run("log")
        assert platform.rows("log.lines").height == 3 + 3 + 3
