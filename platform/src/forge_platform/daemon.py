"""Dagster's daemon, to which a run is not dead because the API server is away.

The launcher's health check answers "unknown" when it cannot ask, and the daemon fails every such
run and starts it again, while its pod works on. Runs whose Job is gone or has ended are failed by
the registrar, which sees the Jobs themselves. The chart fixes launcher and command, so the launcher
is changed here, before the command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._daemon.cli import main as dagster_daemon
from dagster_k8s import K8sRunLauncher

if TYPE_CHECKING:
    from dagster import DagsterRun

_ask = K8sRunLauncher.check_run_worker_health


def check_run_worker_health(launcher: K8sRunLauncher, run: DagsterRun) -> CheckRunHealthResult:
    """What the launcher finds; a run of which it finds nothing goes on."""
    found: CheckRunHealthResult = _ask(launcher, run)
    if found.status is WorkerStatus.UNKNOWN:
        return CheckRunHealthResult(WorkerStatus.RUNNING, found.msg)
    return found


def main() -> None:
    """The command ``dagster-daemon``."""
    K8sRunLauncher.check_run_worker_health = check_run_worker_health  # type: ignore[method-assign,assignment]
    dagster_daemon()


if __name__ == "__main__":
    main()
