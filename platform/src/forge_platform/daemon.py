"""Dagster's daemon, which outlives what is away for a while, and nothing that hangs.

The chart fixes launcher and command, so what follows is changed before the command runs:

- A run is not dead because the API server is away. The launcher's health check answers "unknown"
  when it cannot ask, and the daemon fails every such run and starts it again, while its pod works
  on. Runs whose Job is gone or has ended are failed by the registrar, which sees the Jobs.
- A failed run is started again when its code server is back. A drained node takes run and code
  server away together, and Dagster asks the server for the job 5 s later: what it cannot reach
  then, it never tries again. Nor what is too new for it to know: it looks once a minute.
- A thread that hangs ends the process. Dagster only logs it, and nothing is scheduled any more.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._daemon import controller as dagster_controller
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import (
    consume_new_runs_for_automatic_reexecution,
)
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon
from dagster._daemon.cli import main as dagster_daemon
from dagster._daemon.controller import DagsterDaemonController
from dagster_k8s import K8sRunLauncher

from forge_platform.logs import event

if TYPE_CHECKING:
    from dagster._core.workspace.context import IWorkspaceProcessContext
    from dagster._daemon.daemon import DaemonIterator, DagsterDaemon

    Context = IWorkspaceProcessContext[Any]
    Daemon = DagsterDaemon[Any]

log = logging.getLogger("dagster.daemon")

ALIVE = Path(os.environ.get("FORGE_ALIVE_FILE") or Path(tempfile.gettempdir(), "alive"))
"""Touched while nothing hangs, for Kubernetes' probes: to ask Dagster costs a Python start."""

_LEAST_TOLERANCE = 120.0
"""Seconds, whatever is set: the scheduler's loop turns once a minute."""
_MAIN, _MAIN_TOLERANCE = "main", 1800.0
"""Seconds for the loop that loads all code locations: each that hangs takes it up to 3 minutes."""
_CODE_SERVER_AWAY = 90.0
"""Seconds: a server on another node has its image, and the daemon has looked for new ones."""

_ask = K8sRunLauncher.check_run_worker_health


def check_run_worker_health(launcher: K8sRunLauncher, run: dg.DagsterRun) -> CheckRunHealthResult:
    """What the launcher finds; a run of which it finds nothing goes on."""
    found: CheckRunHealthResult = _ask(launcher, run)
    if found.status is WorkerStatus.UNKNOWN:
        return CheckRunHealthResult(WorkerStatus.RUNNING, found.msg)
    return found


def retry_runs(
    context: Context, records: Sequence[dg.RunRecord], logger: logging.Logger
) -> Iterator[None]:
    """Retries the runs that are to be, each when its code server answers or has had its time."""
    waiting, end = list(records), time.monotonic() + _CODE_SERVER_AWAY
    while waiting:
        needed = {_needed_location(record.dagster_run) for record in waiting}
        away = {name for name in needed if name and not _answers(context, name)}
        if time.monotonic() >= end:
            away = set()
        ready = [found for found in waiting if _needed_location(found.dagster_run) not in away]
        yield from consume_new_runs_for_automatic_reexecution(context, ready, logger)
        waiting = [found for found in waiting if _needed_location(found.dagster_run) in away]
        if time.monotonic() < end:
            waiting += [found for found in ready if _takes_up_again(context, found.dagster_run)]
        if waiting:
            # Where it yields, the thread writes its heartbeat.
            yield
            time.sleep(1)


def _takes_up_again(context: Context, run: dg.DagsterRun) -> bool:
    """Whether a run is to be retried whose server went away while Dagster asked it.

    Dagster has given it up then, and takes that back here.
    """
    name = _needed_location(run)
    if name is None or run.tags.get(WILL_RETRY_TAG) != "true":
        return False
    found = context.instance.get_run_by_id(run.run_id)
    given_up = found is not None and found.tags.get(WILL_RETRY_TAG) == "false"
    if not given_up or _answers(context, name):
        return False
    context.instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "true"})
    return True


def _needed_location(run: dg.DagsterRun) -> str | None:
    """The code location that a run's retry needs, None when it is not to be retried."""
    fails = run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG) != "false"
    return run.remote_job_origin.location_name if fails and run.remote_job_origin else None


def _answers(context: Context, name: str) -> bool:
    try:
        location = context.create_request_context().get_code_location(name)
        if isinstance(location, GrpcServerCodeLocation):
            location.client.get_server_id(timeout=2)
    except dg.DagsterError:
        return False
    return True


class WatchedController(DagsterDaemonController):
    """Dagster's controller of the daemon's threads, which ends the process when one hangs.

    A thread works as long as its loop turns; a turn that fails is one. The heartbeats say less:
    none is written while the database is away.
    """

    def __init__(self, context: Context, daemons: Sequence[Daemon], **settings: Any) -> None:  # noqa: ANN401
        self._turned = dict.fromkeys([_MAIN, *(d.daemon_type() for d in daemons)], time.monotonic())
        for daemon in daemons:
            self._count_turns(daemon)
        super().__init__(context, daemons, **settings)

    def _count_turns(self, daemon: Daemon) -> None:
        name, core_loop = daemon.daemon_type(), daemon.core_loop

        def counted(workspace_process_context: Context, shutdown_event: Event) -> DaemonIterator:
            self._turned[name] = time.monotonic()
            for result in core_loop(workspace_process_context, shutdown_event):
                self._turned[name] = time.monotonic()
                yield result

        daemon.core_loop = counted  # type: ignore[method-assign]

    def check_daemon_threads(self) -> None:
        """Begins a turn of the main loop."""
        self._turned[_MAIN] = time.monotonic()
        super().check_daemon_threads()

    def check_daemon_loop(self) -> None:
        """Runs the main loop, watched."""
        Thread(target=self.watch, daemon=True).start()
        super().check_daemon_loop()

    def watch(
        self,
        alive: Path = ALIVE,
        period: float = 5,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Touches a file every few seconds, until something hangs: that ends the process.

        It ends at once, for an orderly end waits for all threads. It does not while the database is
        away: a thread may wait for just that, and a new process could not even start.
        """
        while True:
            time.sleep(period)
            hanging = self._hanging()
            if hanging and self._storage_answers():
                log.error(event("daemon_hangs", threads=",".join(hanging)))
                faulthandler.dump_traceback()
                end(1)
            alive.touch()

    def _hanging(self) -> Sequence[str]:
        of_daemons = max(self._heartbeat_tolerance_seconds, _LEAST_TOLERANCE)
        now = time.monotonic()
        return [
            name
            for name, at in self._turned.items()
            if now - at > (_MAIN_TOLERANCE if name == _MAIN else of_daemons)
        ]

    def _storage_answers(self) -> bool:
        try:
            self._instance.get_daemon_heartbeats()
        except Exception:  # noqa: BLE001 - whatever its client raises
            return False
        return True


def main() -> None:
    """The command ``dagster-daemon``."""
    if sys.argv[1:2] == ["run"]:
        # That of the container before.
        ALIVE.unlink(missing_ok=True)
    K8sRunLauncher.check_run_worker_health = check_run_worker_health  # type: ignore[method-assign,assignment]
    EventLogConsumerDaemon.handle_updated_runs_fns = [retry_runs]  # type: ignore[method-assign,assignment]
    dagster_controller.DagsterDaemonController = WatchedController  # type: ignore[misc,assignment]
    dagster_daemon()


if __name__ == "__main__":
    main()
