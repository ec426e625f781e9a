"""The platform's chart: what is deployed, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import (
    CODE_LOCATION,
    DEV,
    PLATFORM,
    PRODUCTION,
    Refused,
    location_values,
    one,
    platform,
    pod_specs,
    template,
)

from forge_platform.helm_values import merge, render


def instance(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``dagster.yaml`` of the platform."""
    text = one(platform(values), "ConfigMap", "dagster-instance")["data"]["dagster.yaml"]
    return dict(yaml.safe_load(text))


def test_what_has_no_default_is_asked_for_in_one_message() -> None:
    with pytest.raises(Refused) as refused:
        template(PLATFORM, values={})
    for name in ("postgresqlHost", "s3ComputeLogManager.bucket", "dagsterWebserver.image.tag"):
        assert name in str(refused.value)


NOBODY_READS = (
    "networkPolicies",
    "global.fullnameOverrides",
    "dev.postgres.tag",
    "networkPolicy.webserverFrom.0.podSelectors",
    "dagster.dagsterWebsever",
    "dagster.dagsterWebserver.enableReadonly",
    "dagster.dagsterWebserver.readinessProbe.httpGet.url",
    "dagster.dagsterWebserver.service.nodePort",
    "dagster.dagsterDaemon.runRetry",
    "dagster.dagsterDaemon.runMonitoring.startTimeout",
    "dagster.dagsterDaemon.runRetries.maxRetry",
    "dagster.dagsterDaemon.runCoordinator.config.queuedRunCoordinator.maxConcurentRuns",
    "dagster.runLauncher.config.k8sRunLauncher.nodeSelector",
    "dagster.runLauncher.config.k8sRunLauncher.runK8sConfig.containerSpec",
    "dagster.ingress.className",
    "dagster.ingress.dagsterWebserver.hosts",
    "dagster.postgresql.postgresqlParameters",
    "dagster.computeLogManager.config.s3ComputeLogManager.endpoint",
    "dagster.retention.sensors",
    "dagster.retention.sensor.purgeAfterDays.skip",
)


def test_names_that_nobody_reads_are_refused_with_their_place() -> None:
    values: Mapping[str, Any] = {}
    for name in NOBODY_READS:
        one_more: Any = {}
        for key in reversed(name.split(".")):
            one_more = [one_more] if key == "0" else {key: one_more}
        values = merge(values, one_more)
    with pytest.raises(Refused) as refused:
        platform(values)
    for name in NOBODY_READS:
        place, _, last = name.rpartition(".")
        path = "/" + place.replace(".", "/") if place else ""
        assert f"at '{path}': additional properties '{last}' not allowed" in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dev": {"enabled": "yes"}}, "/dev/enabled': got string, want boolean"),
        ({"priorityClass": {"value": 10}}, "/priorityClass/value': maximum: got 10"),
        ({"priorityClass": {"value": -11}}, "/priorityClass/value': minimum: got -11"),
        ({"registrar": {"unschedulableSeconds": "soon"}}, "got string, want integer"),
        ({"dagster": {"dagsterWebserver": {"image": {"tag": 1.10}}}}, "got number, want string"),
        ({"registrar": {"resources": {"limits": {"memory": "8GB"}}}}, "memory': '8GB' does not"),
        ({"registrar": {"resources": {"limits": {"memory": "512m"}}}}, "'512m' does not match"),
        ({"dagster": {"postgresql": {"enabled": True}}}, "enabled': value must be false"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        platform(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"registrar": {"unschedulableSeconds": 900}}, "startTimeoutSeconds must be more than"),
        (
            {"dagster": {"dagsterDaemon": {"image": {"tag": "latest"}}}},
            "dagsterDaemon.image.tag is latest",
        ),
        ({"priorityClass": {"name": "other"}}, 'priorityClassName is "open-forge-runs"'),
        (
            {"dagster": {"dagsterWebserver": {"pathPrefix": "/dagster"}}},
            "readinessProbe.httpGet.path must be /dagster/server_info",
        ),
        (
            {"dagster": {"dagsterWebserver": {"service": {"port": 8000}}}},
            "dagsterWebserver.livenessProbe.httpGet.port is 3000, and service.port is 8000",
        ),
        (
            {"dagster": {"postgresql": {"service": {"port": 6432}}}},
            "networkPolicy.egressPorts must have 6432",
        ),
        (
            {"dagster": {"dagsterWebserver": {"workspace": {"externalConfigmap": ""}}}},
            "workspace must be enabled and name an externalConfigmap",
        ),
        (
            {"dagster": {"dagsterWebserver": {"workspace": {"enabled": False}}}},
            "workspace must be enabled and name an externalConfigmap",
        ),
        ({"dagster": {"dagsterDaemon": {"enabled": False}}}, "dagsterDaemon.enabled must be true"),
        (
            {"dagster": {"dagsterDaemon": {"runMonitoring": {"maxResumeRunAttempts": 3}}}},
            "maxResumeRunAttempts is 3, and the registrar fails a run",
        ),
        ({"dagster": {"migrate": {"enabled": True}}}, "migrate by hand, see Upgrading the"),
        ({"dagster": {"runLauncher": {"type": "CustomRunLauncher"}}}, "keeps the Jobs of K8s"),
        (
            {"dagster": {"runLauncher": {"config": {"k8sRunLauncher": {"jobNamespace": "other"}}}}},
            'jobNamespace is "other", and the registrar looks in "data"',
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        platform(values)


def test_a_workspace_of_no_name_is_refused() -> None:
    option = "dagster.dagsterWebserver.workspace.externalConfigmap=null"
    with pytest.raises(Refused, match="name an externalConfigmap"):
        platform({}, "--set", option)


def test_a_daemon_without_volumes_leaves_the_registrar_its_own() -> None:
    nothing: list[object] = []
    daemon = {"volumes": nothing, "volumeMounts": nothing}
    pod = pod_specs(platform({"dagster": {"dagsterDaemon": daemon}}))["forge-registrar"]
    assert [volume["name"] for volume in pod["volumes"]] == ["instance"]
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["instance"]


@pytest.mark.parametrize(
    ("chart", "values"),
    [(PLATFORM, PRODUCTION), (CODE_LOCATION, location_values())],
    ids=["platform", "code-location"],
)
def test_helm_has_nothing_to_complain_of(chart: Path, values: Mapping[str, Any]) -> None:
    command = ["helm", "lint", "--strict", str(chart), "--values", "-"]
    done = subprocess.run(
        command, input=render(values), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_instance_is_backed_by_postgresql_and_launches_jobs() -> None:
    found = instance()
    assert found["run_storage"]["class"] == "PostgresRunStorage"
    database = found["run_storage"]["config"]["postgres_db"]
    assert database["password"] == {"env": "DAGSTER_PG_PASSWORD"}
    assert database["hostname"] == "db.example"
    assert found["run_launcher"]["class"] == "K8sRunLauncher"
    assert found["run_launcher"]["config"]["instance_config_map"] == "dagster-instance"
    assert found["run_launcher"]["config"]["job_namespace"] == "data"
    assert found["compute_logs"]["class"] == "S3ComputeLogManager"
    assert found["telemetry"] == {"enabled": False}


def test_runs_are_queued_limited_watched_and_retried() -> None:
    found = instance()
    queue = found["run_coordinator"]["config"]
    assert queue["max_concurrent_runs"] == 10
    assert queue["tag_concurrency_limits"][0]["key"] == "forge/location"
    assert found["run_monitoring"]["enabled"]
    assert found["run_retries"] == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }
    assert found["retention"]["sensor"]["purge_after_days"]["skipped"] == 7


def test_run_pods_have_safe_defaults() -> None:
    launcher = instance()["run_launcher"]["config"]
    assert launcher["security_context"]["readOnlyRootFilesystem"]
    assert launcher["resources"]["limits"] == {"memory": "2Gi"}
    raw = launcher["run_k8s_config"]
    assert raw["pod_spec_config"]["priorityClassName"] == "open-forge-runs"
    assert raw["pod_spec_config"]["securityContext"]["runAsNonRoot"]
    assert raw["job_spec_config"]["ttlSecondsAfterFinished"] == 3600


@pytest.mark.parametrize("options", [(), DEV])
def test_every_pod_is_restricted_and_limited(options: tuple[str, ...]) -> None:
    for name, pod in pod_specs(platform({}, *options)).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*pod["containers"], *(pod.get("initContainers") or ())]:
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert not container["image"].endswith((":latest", ":")), name


def test_development_servers_are_not_part_of_production() -> None:
    names = {item["metadata"]["name"] for item in platform()}
    assert not {name for name in names if name.startswith("dev-")}
    dev = {item["metadata"]["name"] for item in platform({}, *DEV)}
    assert {"dev-postgres", "dev-s3", "dev-rates", "dev-seed", "dev-data"} <= dev


def test_no_secret_is_written_into_production() -> None:
    assert [item for item in platform() if item["kind"] == "Secret"] == []


def test_the_development_data_can_outlive_its_pod() -> None:
    persistent = platform({"dev": {"persistence": {"enabled": True}}}, *DEV)
    (claim,) = one(persistent, "StatefulSet", "dev-postgres")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"


def test_the_password_outlives_the_release_as_the_data_does() -> None:
    def kept(**persistence: bool) -> object:
        secret = one(
            platform({"dev": {"persistence": persistence}}, *DEV), "Secret", "dagster-postgresql"
        )
        return (secret["metadata"].get("annotations") or {}).get("helm.sh/resource-policy")

    assert kept(enabled=True) == "keep"
    assert kept() is None


def test_the_development_database_is_made_over_the_socket_that_its_image_expects() -> None:
    found = one(platform({}, *DEV), "StatefulSet", "dev-postgres")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert not [argument for argument in container["args"] if "socket" in argument]
    writable = {
        mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
    }
    assert {"/var/run/postgresql", "/data"} <= writable


@pytest.mark.parametrize(("age", "alive"), [(None, False), (2, True), (120, False)])
def test_a_daemon_that_is_silent_is_not_alive(
    tmp_path: Path, age: float | None, alive: bool
) -> None:
    (container,) = pod_specs(platform())["dagster-daemon"]["containers"]
    probes = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    (command,) = {tuple(probe["exec"]["command"]) for probe in probes}
    file = tmp_path / "alive"
    if age is not None:
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    done = subprocess.run(
        [argument.replace("/tmp/alive", str(file)) for argument in command],  # noqa: S108
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) is alive


def test_of_several_webservers_one_at_a_time_is_evicted() -> None:
    assert [item for item in platform() if item["kind"] == "PodDisruptionBudget"] == []
    several = {"dagster": {"dagsterWebserver": {"replicaCount": 2, "enableReadOnly": True}}}
    found = platform(several)
    budgets = [item["spec"] for item in found if item["kind"] == "PodDisruptionBudget"]
    assert [budget["maxUnavailable"] for budget in budgets] == [1, 1]
    covered = [
        item["metadata"]["name"]
        for budget in budgets
        for item in found
        if item["kind"] == "Deployment"
        and budget["selector"]["matchLabels"].items()
        <= item["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert covered == ["forge-dagster-webserver", "forge-dagster-webserver-read-only"]
    off = platform({**several, "podDisruptionBudget": {"enabled": False}})
    assert [item for item in off if item["kind"] == "PodDisruptionBudget"] == []


def test_nothing_may_talk_but_what_is_allowed() -> None:
    denied = one(platform(), "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    off = platform({"networkPolicy": {"enabled": False}})
    assert [item for item in off if item["kind"] == "NetworkPolicy"] == []


def test_what_is_optional_is_there_when_it_is_wanted() -> None:
    tls = {"enabled": True, "secretName": "certificate"}
    ingress = {"enabled": True, "dagsterWebserver": {"host": "data.example", "tls": tls}}
    more = {"dagster": {"ingress": ingress, "dagsterWebserver": {"enableReadOnly": True}}}
    options = ("--api-versions", "networking.k8s.io/v1/Ingress")
    found = platform(more, *options)
    spec = one(found, "Ingress")["spec"]
    assert spec["tls"] == [{"hosts": ["data.example"], "secretName": "certificate"}]
    rules = spec["rules"]
    assert rules[0]["host"] == "data.example"
    paths = [path for rule in rules for path in rule["http"]["paths"]]
    assert {(path["path"], path["pathType"]) for path in paths} == {("/", "Prefix")}
    command = one(found, "Deployment", "forge-dagster-webserver-read-only")["spec"]["template"][
        "spec"
    ]["containers"][0]["command"]
    assert "--read-only" in command[-1]


def test_metrics_are_scraped_behind_a_flag() -> None:
    assert not {"ServiceMonitor"} & {item["kind"] for item in platform()}
    found = platform({"serviceMonitor": {"enabled": True, "labels": {"team": "ops"}}})
    monitor = one(found, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["team"] == "ops"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= one(found, "Service", "forge-registrar")["metadata"]["labels"].items()


def test_the_webserver_listens_where_its_probes_look() -> None:
    pod = pod_specs(platform())["forge-dagster-webserver"]["containers"][0]
    port = pod["ports"][0]["containerPort"]
    assert port > 1024
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod[probe]["httpGet"]["port"] == port


def test_values_and_schema_name_the_same() -> None:
    values = yaml.safe_load((PLATFORM / "values.yaml").read_text())
    schema = json.loads((PLATFORM / "values.schema.json").read_text())
    assert values.keys() == schema["properties"].keys()
    assert Path(PLATFORM / "values-dev.yaml").exists()
