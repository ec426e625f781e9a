"""Something is killed while a run works: it ends as policy says, and no row is lost or doubled.

The run reads all customers and orders anew, so that it has work to do and nothing may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import polars as pl
import pytest
from cluster_tables import opened_catalog, rows
from dagster_client import ENDED, Dagster
from on_cluster import Namespace, start_times, wait_until

# The process itself, if it had the time; else the registrar.
# Of the process, of the registrar, and of the daemon: who comes first.
LAST_WORDS = (
    "Execution was interrupted unexpectedly",
    "ended before the run did",
    "K8s job has no active pods",
)
TABLES = ("ingestion.raw_customers", "ingestion.raw_orders", "ingestion.incremental_orders")
FULL = {
    "ops": {name: {"config": {"mode": "full"}} for name in ("raw_customers", "raw_orders")},
}


def kill(selector: str) -> Callable[[Namespace, str], None]:
    def killing(namespace: Namespace, _: str) -> None:
        namespace.delete_pods(selector)

    return killing


def kill_run_pod(namespace: Namespace, run_id: str) -> None:
    namespace.delete_pods(f"dagster/run-id={run_id}")


def crash_postgres(namespace: Namespace, _: str) -> None:
    """Ends it at once, as a crash does: what was not committed is gone."""
    namespace.kubectl("exec", "dev-postgres-0", "--", "sh", "-c", "kill -QUIT 1")


SURVIVED = {
    "the code server": kill("component=user-deployments,deployment=ingestion"),
    "the daemon": kill("component=dagster-daemon"),
    "the webserver": kill("component=dagster-webserver"),
    "the registrar": kill("app.kubernetes.io/component=registrar"),
}


@pytest.fixture(scope="module")
def before(namespace: Namespace) -> Mapping[str, pl.DataFrame]:
    return contents(namespace)


def contents(namespace: Namespace) -> Mapping[str, pl.DataFrame]:
    with opened_catalog(namespace) as catalog:
        return {table: rows(catalog, table) for table in TABLES}


@pytest.fixture
def fresh_ui(namespace: Namespace) -> Iterator[Callable[[], Dagster]]:
    """The UI through a forward that is opened anew: one ends with what it leads to."""
    opened = []

    def dagster() -> Dagster:
        forward = namespace.forward("service/forge-dagster-webserver", 3000)
        opened.append(forward)
        return Dagster(forward.__enter__())

    yield dagster
    for forward in opened:
        forward.__exit__(None, None, None)


def launched(ui: Dagster) -> str:
    """A run that has begun to write; its code server may have been killed a moment ago."""
    planned = partial(ui.plan, "ingestion", "ingestion_job")
    wait_until(lambda: planned().startswith("ExecutionPlan"), 30, "the code server")
    run_id = ui.launch("ingestion", "ingestion_job", FULL)
    wait_until(lambda: 'step "raw_orders"' in ui.run(run_id).text, 90, "the run's work", pause=0.1)
    return run_id


def group_of(ui: Dagster, run_id: str) -> Mapping[str, str]:
    """The status of a run and of what repeats it."""
    return ui.run(run_id).group or {run_id: ui.run(run_id).status}


def settled(ui: Dagster, run_id: str) -> Mapping[str, str]:
    """The run and what repeats it, once all of them have ended and the last one well."""

    def over() -> bool:
        statuses = set(group_of(ui, run_id).values())
        return statuses <= ENDED and "SUCCESS" in statuses

    wait_until(over, 300, "the run's end", pause=1)
    return group_of(ui, run_id)


@pytest.mark.parametrize("victim", SURVIVED)
def test_a_run_does_not_notice_that_it_is_killed(
    namespace: Namespace,
    before: Mapping[str, pl.DataFrame],
    fresh_ui: Callable[[], Dagster],
    victim: str,
) -> None:
    ui = fresh_ui()
    run_id = launched(ui)
    SURVIVED[victim](namespace, run_id)
    namespace.kubectl("rollout", "status", "deployment/forge-dagster-webserver", "--timeout=120s")
    ui = fresh_ui()
    assert settled(ui, run_id) == {run_id: "SUCCESS"}
    wait_until(lambda: len(ui.assets("ingestion")) > 5, 60, "ingestion in the UI")
    assert_unchanged(namespace, before)


def test_a_run_whose_pod_is_killed_is_repeated(
    namespace: Namespace,
    before: Mapping[str, pl.DataFrame],
    fresh_ui: Callable[[], Dagster],
    figure: Callable[[str], None],
) -> None:
    ui = fresh_ui()
    run_id = launched(ui)
    kill_run_pod(namespace, run_id)
    group = settled(ui, run_id)
    assert group[run_id] == "FAILURE"
    assert len(group) == 2
    failed = next(e for e in ui.run(run_id).events if e.kind == "RunFailureEvent")
    assert any(words in failed.message for words in LAST_WORDS), failed.message
    last_word = max(e.at for e in ui.run(run_id).events if e.at < failed.at)
    figure(
        f"a run whose pod was killed is failed {failed.at - last_word:.1f} s after its last word"
    )
    assert_unchanged(namespace, before)


def test_a_crash_of_the_database_costs_no_row(
    namespace: Namespace,
    before: Mapping[str, pl.DataFrame],
    fresh_ui: Callable[[], Dagster],
) -> None:
    """Assets are retried inside the run; a run that could not write an event fails and says so."""
    ui, running = fresh_ui(), start_times(namespace)
    run_id = launched(ui)
    crash_postgres(namespace, run_id)
    ended = ui.wait_for_end(run_id, 300)
    if ended.status != "SUCCESS":
        assert ended.status == "FAILURE"
        kinds = {event.kind for event in ended.events}
        assert "ExecutionStepFailureEvent" in kinds or "RunFailureEvent" in kinds, ended.text
        wait_until(lambda: set(group_of(ui, run_id).values()) <= ENDED, 180, "what repeats it")
    # Webserver, daemon and registrar go on by themselves, in the processes that they were.
    assert start_times(namespace) == running
    again = ui.launch("ingestion", "ingestion_job", FULL)
    assert ui.wait_for_end(again, 180).status == "SUCCESS"
    assert_unchanged(namespace, before)


def assert_unchanged(namespace: Namespace, before: Mapping[str, pl.DataFrame]) -> None:
    now = contents(namespace)
    assert {table: found.height for table, found in now.items()} == {
        table: found.height for table, found in before.items()
    }
    assert [table for table in TABLES if not now[table].equals(before[table])] == []
