"""Runs a location's job in a process of its own, where worse may happen than in the tests'."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Literal
from unittest.mock import patch

import dagster as dg
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse, Table
from whole_platform import run_job

Moment = Literal["before", "after"]

# A process that has imported these is forked for every run, which saves two thirds of its time.
_CONTEXT = get_context("forkserver")
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
    """Runs a job in a process that kills itself at a commit.

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
    return _exit_code(_run_until_killed, moment, table, location, tags, variables)


def run_with_small_files(
    largest: int, location: str, variables: Mapping[str, str]
) -> Sequence[str]:
    """Runs a job in a process that may not write a larger file, as if the disk were full.

    Args:
        largest: the limit in bytes.
        location: the code location.
        variables: databases and catalog.

    Returns:
        What failed, step by step.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    assert _exit_code(_run_with_limit, largest, location, variables, sender) == 0
    failures: Sequence[str] = receiver.recv()
    return failures


def _exit_code(target: Callable[..., None], *arguments: object) -> int:
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run_with_limit(
    largest: int, location: str, variables: Mapping[str, str], sender: Connection
) -> None:
    os.environ.update(variables)
    with dg.DagsterInstance.ephemeral() as instance:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        result = run_job(instance, location, raise_on_error=False)
    failed = result.get_step_failure_events()
    sender.send([event.step_failure_data.error_display_string for event in failed])


def _run_until_killed(
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
