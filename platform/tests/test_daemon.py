from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.launcher.base import WorkerStatus
from dagster_k8s import K8sRunLauncher

from forge_platform.daemon import check_run_worker_health


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
