"""Runs a location's job in a process that kills itself at a commit."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from multiprocessing import get_context
from typing import Any, Literal
from unittest.mock import patch

import dagster as dg
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse, Table
from whole_platform import run_job

Moment = Literal["before", "after"]

# A process that has imported these is forked for every run, which saves two thirds of its time.
_PRELOADED = [
    "customers.definitions",
    "duckdb",
    "httpx",
    "ingestion.definitions",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "orders.definitions",
    "polars",
    "pyarrow.parquet",
    "pyiceberg.catalog.sql",
    "tenacity",
]


def kill(
    moment: Moment, table: str, location: str, tags: Mapping[str, str], variables: Mapping[str, str]
) -> int:
    """Runs a job in another process that is killed meanwhile.

    Args:
        moment: ``before`` the catalog is asked to commit, when the data files are written; or
            ``after`` it has accepted the commit, when nobody knows yet.
        table: the table that is committed.
        location: the code location.
        tags: tags of the run.
        variables: databases, catalog and Dagster's home.

    Returns:
        The process's exit code.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_run, args=(moment, table, location, tags, variables))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(
    moment: Moment, table: str, location: str, tags: Mapping[str, str], variables: Mapping[str, str]
) -> None:
    os.environ.update(variables)
    commit = SqlCatalog.commit_table

    def killed_commit(catalog: SqlCatalog, found: Table, *change: Any) -> CommitTableResponse:
        is_meant = ".".join(found.name()) == table
        if is_meant and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        response = commit(catalog, found, *change)
        if is_meant:
            os.kill(os.getpid(), signal.SIGKILL)
        return response

    with (
        patch.object(SqlCatalog, "commit_table", killed_commit),
        dg.DagsterInstance.get() as instance,
    ):
        run_job(instance, location, tags=tags)
