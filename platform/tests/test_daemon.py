from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.launcher.base import WorkerStatus
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import RETRY_STRATEGY_TAG, WILL_RETRY_TAG
from dagster._core.test_utils import create_run_for_test, instance_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.daemon import DaemonIterator, DagsterDaemon
from dagster_k8s import K8sRunLauncher
from dagster_servers import HOST, code_server
from on_cluster import wait_until

from forge_platform import daemon as daemon_module
from forge_platform.daemon import WatchedController, check_run_worker_health, retry_runs
from forge_platform.registrar.background import in_background
from forge_platform.testing import free_port


def test_a_run_goes_on_while_the_api_server_is_away(tmp_path: Path) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = {"name": "away", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "away", "context": {"cluster": "away", "user": "away"}}
    config = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "away", "user": {}}],
        "current-context": "away",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    launcher = K8sRunLauncher(
        service_account_name="runs",
        instance_config_map="instance",
        dagster_home="/opt/dagster/dagster_home",
        postgres_password_secret="password",
        load_incluster_config=False,
        kubeconfig_file=str(file),
    )
    run = dg.DagsterRun(job_name="a_job", run_id="1", status=dg.DagsterRunStatus.STARTED)
    with dg.DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        assert launcher.check_run_worker_health(run).status is WorkerStatus.UNKNOWN
        found = check_run_worker_health(launcher, run)
    assert found.status is WorkerStatus.RUNNING
    assert "Connection refused" in str(found.msg)


TOLERANCE = 0.15


class Hanging(DagsterDaemon[Any]):
    """A daemon that turns, or fails, until it is told to hang."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hangs, self.released = threading.Event(), threading.Event()

    @classmethod
    def daemon_type(cls) -> str:
        return "HANGING"

    def core_loop(self, *_: object) -> DaemonIterator:
        while not self.hangs.wait(0.01):
            yield None
        self.released.wait()


@contextmanager
def watched(instance: dg.DagsterInstance, daemon: Hanging) -> Iterator[WatchedController]:
    context: Any = SimpleNamespace(instance=instance)
    with WatchedController(context, [daemon], heartbeat_tolerance_seconds=0) as controller:
        try:
            yield controller
        finally:
            daemon.released.set()


def is_touched(file: Path) -> bool:
    """Whether a file is made anew."""
    file.unlink(missing_ok=True)
    end = time.monotonic() + 5
    while time.monotonic() < end and not file.exists():
        time.sleep(0.01)
    return file.exists()


def test_a_thread_that_hangs_ends_the_process_when_the_database_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def away() -> None:
        raise ConnectionError

    def end(status: int) -> None:
        raise ProcessLookupError(status)

    monkeypatch.setattr("forge_platform.daemon._LEAST_TOLERANCE", TOLERANCE)
    daemon, alive = Hanging(), tmp_path / "alive"
    with (
        dg.DagsterInstance.ephemeral() as instance,
        watched(instance, daemon) as controller,
    ):
        watching = in_background(partial(controller.watch, alive, 0.02, end))
        time.sleep(2 * TOLERANCE)
        assert is_touched(alive)
        with monkeypatch.context() as patched:
            patched.setattr(instance, "get_daemon_heartbeats", away)
            daemon.hangs.set()
            time.sleep(2 * TOLERANCE)
            assert is_touched(alive)
        with pytest.raises(ProcessLookupError, match="1"):
            watching.result(5)
    assert "core_loop" in capfd.readouterr().err


@pytest.mark.parametrize("is_lost", [False, True], ids=["away", "lost while it is asked"])
@pytest.mark.filterwarnings("ignore:Error loading repository location")
def test_a_failed_run_is_retried_once_its_code_server_is_back(
    tmp_path: Path, *, is_lost: bool
) -> None:
    port = free_port()
    location = GrpcServerCodeLocationOrigin(host=HOST, port=port, location_name="orders")
    target = GrpcServerTarget(host=HOST, port=port, socket=None, location_name="orders")
    queued = {"module": "dagster", "class": "QueuedRunCoordinator"}
    with (
        instance_for_test({"run_coordinator": queued}, temp_dir=str(tmp_path)) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        run = create_run_for_test(
            instance,
            job_name="a_job",
            status=dg.DagsterRunStatus.FAILURE,
            tags={WILL_RETRY_TAG: "true", RETRY_STRATEGY_TAG: "ALL_STEPS"},
            remote_job_origin=RemoteJobOrigin(
                RemoteRepositoryOrigin(location, "__repository__"), "a_job"
            ),
        )
        retrying = retry_runs(context, instance.get_run_records(), logging.getLogger())
        if is_lost:
            with code_server(tmp_path, port):
                wait_until(lambda: daemon_module._answers(context, "orders"), 60, "the code server")
                next(retrying)  # it is about to be asked
        next(retrying)
        next(retrying)
        assert instance.get_runs_count() == 1
        with code_server(tmp_path, port):
            for _ in retrying:
                pass
        retried = [found for found in instance.get_runs() if found.parent_run_id == run.run_id]
    assert [found.status for found in retried] == [dg.DagsterRunStatus.QUEUED]
