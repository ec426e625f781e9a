"""The demo's pipeline on the cluster: what runs, where the data is, and that it is the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cluster_tables import opened_catalog
from dagster_client import Dagster
from installation import Installation
from on_cluster import Namespace, wait_until
from pyiceberg.catalog import Catalog, load_catalog

from forge_demo.dagster_api import DagsterApi, Run
from forge_demo.state import ROOT, DemoState
from forge_demo.watch import View, Watch

LIMIT_SECONDS = 480
RECENT_SECONDS = 3600
RUN_WORKER = "app.kubernetes.io/component=run_worker"
# What says when, in which run or from where a row was made.
OWN = (
    "_processing_run_id",
    "_processed_at",
    "loaded_at",
    "rejected_at",
    "version",
    "last_modified",
)
FILES = ("source_file", "_source_file")


@dataclass(frozen=True)
class Pipeline:
    """What happened until the platform came to rest.

    Attributes:
        jobs: the Kubernetes Jobs that were seen, by run id.
    """

    view: View
    watch: Watch
    jobs: Mapping[str, Mapping[str, Any]]
    seconds: float


@dataclass(frozen=True)
class Embedding:
    """The embedded demo: that of `make demo` if it was run lately, else one of its own."""

    state: DemoState
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def begin(cls, folder: Path) -> Embedding:
        state = DemoState()
        if state.catalog.exists() and time.time() - state.catalog.stat().st_mtime < RECENT_SECONDS:
            return cls(state)
        state = DemoState(folder / "state")
        command = Path(sys.executable).with_name("forge-demo")
        options = ("run", "--once", "--folder", str(state.folder), "--port", "13100")
        return cls(state, subprocess.Popen([command, *options], cwd=ROOT))

    def result(self) -> Catalog:
        """Its tables, when it has come to its end."""
        assert self.process is None or self.process.wait(LIMIT_SECONDS) == 0
        uri, warehouse = f"sqlite:///{self.state.catalog}", f"file://{self.state.warehouse}"
        return load_catalog(uri=uri, warehouse=warehouse)

    def end(self) -> None:
        """Ends it where nobody waited for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedding]:
    """At work while the cluster is."""
    begun = Embedding.begin(tmp_path_factory.mktemp("demo"))
    yield begun
    begun.end()


@pytest.fixture(scope="module")
def pipeline(
    namespace: Namespace,
    api: DagsterApi,
    ui: Dagster,
    embedding: Embedding,  # noqa: ARG001 - it begins here
) -> Pipeline:
    """The ingestion job, launched by hand, and all that follows from it by itself."""
    wait_until(lambda: len(ui.locations()) >= 3, 30, "the locations")
    began = time.time()
    api.launch("ingestion", "ingestion_job")
    watch, jobs = Watch(api, began), dict[str, Mapping[str, Any]]()
    while True:
        view = watch.look()
        jobs.update({_run_id(job): job for job in namespace.get("job", RUN_WORKER)})
        if view.is_quiet:
            return Pipeline(view, watch, jobs, time.time() - began)
        assert time.time() - began < LIMIT_SECONDS, view.runs
        time.sleep(2)


def _run_id(job: Mapping[str, Any]) -> str:
    return str(job["metadata"]["labels"]["dagster/run-id"])


@pytest.fixture(scope="module")
def catalog(namespace: Namespace) -> Iterator[Catalog]:
    """The tables on the cluster, as somebody opens them who has the variables and pyiceberg."""
    with opened_catalog(namespace) as catalog:
        yield catalog


@pytest.fixture(scope="module")
def embedded(embedding: Embedding) -> Catalog:
    """The tables of the embedded demo."""
    return embedding.result()


def tables(catalog: Catalog) -> Sequence[str]:
    return sorted(
        ".".join(table)
        for namespace in catalog.list_namespaces()
        for table in catalog.list_tables(namespace)
    )


def content(catalog: Catalog, table: str) -> pl.DataFrame:
    """A table's rows in one order, without what differs from run to run."""
    rows = pl.DataFrame(catalog.load_table(table).scan().to_arrow())
    names = [pl.col(name).str.split("/").list.last() for name in FILES if name in rows.columns]
    kept = rows.drop([name for name in OWN if name in rows.columns]).with_columns(names)
    return kept.select(sorted(kept.columns)).sort(by=sorted(kept.columns))


def test_everything_is_made_and_every_check_passed(pipeline: Pipeline) -> None:
    print(f"\nthe whole pipeline took {pipeline.seconds:.0f} s, {len(pipeline.view.runs)} runs")
    assert not pipeline.view.missing_assets
    assert {run.status for run in pipeline.view.runs} == {"SUCCESS"}
    assert not pipeline.view.automation_errors
    assert [check.name for check in pipeline.watch.checks() if not check.passed] == []


@pytest.mark.usefixtures("pipeline")
def test_automation_crosses_the_locations(
    api: DagsterApi, ui: Dagster, locations: Sequence[str]
) -> None:
    """Nothing but the ingestion was launched, though a schedule may have been due meanwhile."""
    runs = [run for run in api.runs() if "dagster/schedule_name" not in ui.run(run.id).tags]
    assert {run.location for run in runs if run.job != "__ASSET_JOB"} == {"ingestion"}
    assert {run.location for run in runs} == set(locations)


def test_runs_are_jobs_of_their_location(pipeline: Pipeline, installation: Installation) -> None:
    runs = [run for run in pipeline.view.runs if run.id in pipeline.jobs]
    assert {run.location for run in runs} == {run.location for run in pipeline.view.runs}
    for run in runs:
        spec = pipeline.jobs[run.id]["spec"]
        pod = spec["template"]["spec"]
        assert pod["serviceAccountName"] == run.location
        assert pod["containers"][0]["image"].startswith(f"{installation.images}/{run.location}:")
        assert pod["priorityClassName"] == "open-forge-runs"
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
        assert spec["ttlSecondsAfterFinished"] == 3600


@pytest.mark.usefixtures("pipeline")
def test_the_data_is_in_s3(catalog: Catalog) -> None:
    for table in tables(catalog):
        assert catalog.load_table(table).location().startswith("s3://warehouse/"), table


@pytest.mark.usefixtures("pipeline")
def test_the_tables_are_those_of_the_embedded_demo_to_the_row(
    catalog: Catalog, embedded: Catalog
) -> None:
    assert tables(catalog) == tables(embedded)
    differing = [
        table
        for table in tables(embedded)
        if not content(catalog, table).equals(content(embedded, table))
    ]
    assert differing == []


def test_the_output_of_a_finished_run_can_be_read(
    pipeline: Pipeline, ui: Dagster, namespace: Namespace
) -> None:
    run = first_ended(pipeline.view.runs)
    namespace.kubectl("delete", "job", "-l", f"dagster/run-id={run.id}", "--ignore-not-found")
    assert "rows table=ingestion.raw_orders" in ui.output(run.id)


def first_ended(runs: Sequence[Run]) -> Run:
    return next(run for run in runs if run.job == "ingestion_job" and run.status == "SUCCESS")
