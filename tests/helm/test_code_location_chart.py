"""The chart of a code location: what reaches the server, what reaches a run, what is refused."""

from __future__ import annotations

import json
from typing import Any

import kubernetes
import pytest
import yaml
from charts import (
    CODE_LOCATION,
    ROOT,
    TEAM,
    Object,
    Refused,
    code_location,
    location_values,
    one,
    platform,
    template,
)
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job

LOCATIONS = sorted(path.parent.name for path in (ROOT / "code_locations").glob("*/pyproject.toml"))
RUN = {
    "env": {"FOR_RUNS": "1"},
    "secrets": ["for-runs"],
    "resources": {"limits": {"memory": "4Gi"}, "requests": {"cpu": "2"}},
    "labels": {"cost": "runs"},
    "annotations": {"note": "runs"},
    "nodeSelector": {"pool": "batch"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "ttlSecondsAfterFinished": 60,
}
SERVER = {
    "env": {"FOR_SERVER": "1"},
    "secrets": ["for-server"],
    "resources": {"limits": {"memory": "1Gi"}},
    "nodeSelector": {"pool": "small"},
}


def server(objects: Any) -> Object:
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def run_pod(objects: Any) -> Any:
    """The Job that the platform's launcher makes for a run of the location."""
    text = one(platform(), "ConfigMap", "dagster-instance")["data"]["dagster.yaml"]
    launcher = yaml.safe_load(text)["run_launcher"]["config"]
    own = {key: launcher[key] for key in ("resources", "security_context", "run_k8s_config")}
    volumes = {key: launcher[key] for key in ("volumes", "volume_mounts")}
    defaults = K8sContainerContext.create_from_config({"k8s": {**own, **volumes}})
    env = {entry["name"]: entry.get("value") for entry in server(objects)["env"]}
    context = json.loads(env["DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT"])
    merged = defaults.merge(K8sContainerContext.create_from_config(context))
    config = DagsterK8sJobConfig(
        job_image="image", dagster_home="/home", postgres_password_secret="pg"
    )
    return construct_dagster_k8s_job(
        config, ["dagster"], "run", user_defined_k8s_config=merged.run_k8s_config
    )


def test_a_run_pod_gets_what_is_under_run_and_nothing_of_the_server() -> None:
    job = run_pod(code_location({"run": RUN, "server": SERVER}))
    pod = job.spec.template
    container = pod.spec.containers[0]
    assert {"FOR_RUNS"} <= {entry.name for entry in container.env}
    assert "FOR_SERVER" not in {entry.name for entry in container.env}
    assert [source.secret_ref.name for source in container.env_from] == ["for-runs"]
    assert container.resources.limits == {"memory": "4Gi"}
    assert pod.spec.node_selector == {"pool": "batch"}
    assert [found.key for found in pod.spec.tolerations] == ["batch"]
    assert pod.metadata.labels["cost"] == "runs"
    assert pod.metadata.annotations["note"] == "runs"
    assert pod.spec.service_account_name == "orders"
    assert job.spec.ttl_seconds_after_finished == 60


def test_a_run_pod_keeps_what_the_platform_says_and_the_team_does_not() -> None:
    job = run_pod(code_location())
    spec = job.spec.template.spec
    assert spec.containers[0].resources.limits == {"memory": "2Gi"}
    assert spec.containers[0].security_context.read_only_root_filesystem
    assert spec.security_context.run_as_user == 10_001
    assert spec.priority_class_name == "open-forge-runs"
    assert spec.containers[0].termination_message_policy == "FallbackToLogsOnError"
    assert job.spec.ttl_seconds_after_finished == 3600
    assert isinstance(job, kubernetes.client.V1Job)


def test_a_server_gets_what_is_under_server_and_nothing_of_the_runs() -> None:
    objects = code_location({"run": RUN, "server": SERVER})
    container = server(objects)
    names = {entry["name"] for entry in container["env"]}
    assert "FOR_SERVER" in names
    assert "FOR_RUNS" not in names
    secrets = [
        source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source
    ]
    assert "for-server" in secrets
    assert "for-runs" not in secrets
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    pod = one(objects, "Deployment")["spec"]["template"]
    assert pod["spec"]["nodeSelector"] == {"pool": "small"}
    assert "cost" not in pod["metadata"]["labels"]


def test_a_change_of_a_runs_settings_rolls_the_server_that_hands_them_out() -> None:
    def checksum(values: dict[str, Any]) -> str:
        pod = one(code_location(values), "Deployment")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/dagster-user-deployment"])

    assert checksum({}) == checksum({})
    assert checksum({}) != checksum({"run": {"env": {"NEW": "1"}}})
    assert checksum({}) != checksum({"server": {"env": {"NEW": "1"}}})


def test_the_old_server_goes_only_when_the_new_one_is_ready() -> None:
    strategy = one(code_location(), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_domain_has_an_identity_of_its_own() -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/orders"}
    account = one(code_location({"serviceAccount": {"annotations": role}}), "ServiceAccount")
    assert account["metadata"]["name"] == "orders"
    assert account["metadata"]["annotations"] == role
    assert [item for item in code_location() if item["kind"] in {"Role", "RoleBinding"}] == []


def test_the_hook_looks_at_the_image_before_it_is_rolled_out() -> None:
    hook = one(code_location(), "Job")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    container = hook["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == server(code_location())["image"]
    assert "--module=orders.definitions" in container["args"]
    off = code_location({"validation": {"enabled": False}})
    assert [item for item in off if item["kind"] == "Job"] == []


def test_the_hook_runs_where_and_with_what_the_server_does() -> None:
    taint = [{"key": "team", "operator": "Exists"}]
    affinity = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": list[str]()}}
    objects = code_location({"server": {**SERVER, "tolerations": taint, "affinity": affinity}})
    pod = one(objects, "Job")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "small"}
    assert pod["tolerations"] == taint
    assert pod["affinity"] == affinity
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}
    more = code_location({"validation": {"resources": {"limits": {"memory": "3Gi"}}}})
    (container,) = one(more, "Job")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "3Gi"}


def test_a_teams_authorities_are_trusted_by_server_runs_and_hook() -> None:
    objects = code_location({"caBundle": {"configMap": "company", "key": "roots.pem"}})
    pods = [one(objects, kind)["spec"]["template"]["spec"] for kind in ("Deployment", "Job")]
    job = run_pod(objects).spec.template.spec
    pods.append(kubernetes.client.ApiClient().sanitize_for_serialization(job))
    for pod in pods:
        (container,) = pod["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        (volume,) = [found for found in pod["volumes"] if "company" in str(found)]
        (item,) = volume["configMap"]["items"]
        assert item["key"] == "roots.pem"
        for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PGSSLROOTCERT"):
            assert env[name] == f"{mounts[volume['name']]}/{item['path']}"
        assert {"tmp", "authorities"} <= mounts.keys()


def test_the_service_is_what_the_registrar_looks_for() -> None:
    service = one(code_location(), "Service")
    assert service["metadata"]["labels"]["component"] == "user-deployments"
    assert service["metadata"]["labels"]["deployment"] == "orders"
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc"]


@pytest.mark.parametrize(
    "values",
    [
        {"resources": {}},
        {"server": {"replicas": 2}},
        {"run": {"enviroment": {}}},
        {"image": {"name": "x"}},
        {"location": "Not_A_Name"},
        {"location": "a" * 27},
        {"run": {"ttlSecondsAfterFinished": "1h"}},
        {"env": {"LIST": [1]}},
        {"secrets": {"a": 1}},
        {"validation": {"enabled": "no"}},
        {"server": {"tolerations": [{"kye": "a"}]}},
        {"server": {"affinity": {"nodeAffinty": {}}}},
        {"run": {"resources": {"limits": {"memroy": "1Gi"}}}},
        {"run": {"resources": {"limits": {"memory": "8GB"}}}},
        {"server": {"resources": {"requests": {"memory": "512m"}}}},
        {"networkPolicy": {"egress": [{"port": [{"port": 80}]}]}},
        {"networkPolicy": {"egress": [{"to": [{"podSelectr": {}}]}]}},
        {"networkPolicy": {"egress": [{"to": [{"ipBlock": {"cdir": "10.0.0.0/8"}}]}]}},
        {"caBundle": {"secret": "company"}},
        {"global": {"fullnameOverride": "x"}},
        {"run": {"labels": {"dagster/run-id": "x"}}},
        {"run": {"labels": {"app.kubernetes.io/component": "mine"}}},
        {"server": {"labels": {"component": "x"}}},
        {"server": {"annotations": {"checksum/dagster-user-deployment": "z"}}},
        {"server": {"env": {"A": {"secretKeyRef": {"name": "s"}}}}},
        {"run": {"labels": {"team": "x y"}}},
        {"run": {"labels": {"team": "a" * 64}}},
        {"run": {"labels": {"team name": "x"}}},
        {"run": {"annotations": {"team name": "x"}}},
        {"run": {"nodeSelector": {"pool": "a b"}}},
        {"run": {"nodeSelector": {"Pool/of/nodes": "a"}}},
        {"run": {"tolerations": [{"key": "a b", "operator": "Exists"}]}},
        {"run": {"secrets": ["My_Secret"]}},
        {"configMaps": ["my config"]},
        {"image": {"pullSecrets": [{"name": "My_Secret"}]}},
        {"caBundle": {"configMap": "My_Map"}},
        {"run": {"env": {"A": {"secretKeyRef": {"name": "My_Secret", "key": "k"}}}}},
        {"run": {"env": {"A": {"secretKeyRef": {"name": "s", "key": "a key"}}}}},
        {"run": {"env": {"A": {"fieldRef": {"fieldPath": "nonsense"}}}}},
        {"run": {"env": {"A": {"resourceFieldRef": {"resource": "memory"}}}}},
    ],
)
def test_what_is_unknown_or_of_the_wrong_kind_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="values don't meet the specifications of the schema"):
        template(CODE_LOCATION, values={**location_values(), **values})


def test_every_form_that_kubernetes_takes_is_accepted() -> None:
    run = {
        "labels": {"team.example/cost_center": "", "Team": "A_b.c-1"},
        "annotations": {"team.example/note": "in words, of any length: " + "a" * 64},
        "nodeSelector": {"node.kubernetes.io/instance-type": "m5.large"},
        "tolerations": [{"operator": "Exists"}, {"key": "team.example/batch", "value": "yes"}],
        "secrets": ["team.orders-1"],
        "env": {
            "SECRET": {"secretKeyRef": {"name": "s3", "key": "tls.crt_1"}},
            "NODE": {"fieldRef": {"fieldPath": "spec.nodeName"}},
            "TEAM": {"fieldRef": {"fieldPath": "metadata.labels['team.example/name']"}},
            "MEMORY": {"resourceFieldRef": {"resource": "limits.memory"}},
        },
    }
    assert run_pod(code_location({"run": run}))


def test_values_that_the_generator_did_not_make_are_refused() -> None:
    with pytest.raises(Refused, match="not made by forge-values"):
        template(CODE_LOCATION, values=TEAM)


def test_values_and_schema_name_the_same() -> None:
    values = yaml.safe_load((CODE_LOCATION / "values.yaml").read_text())
    schema = json.loads((CODE_LOCATION / "values.schema.json").read_text())
    assert values.keys() | {"global"} == schema["properties"].keys()
    parts = ("image", "server", "run", "serviceAccount", "networkPolicy", "platform", "caBundle")
    for part in parts:
        assert values[part].keys() == schema["properties"][part]["properties"].keys(), part


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_location_of_this_repository_can_be_released(location: str) -> None:
    folder = ROOT / "code_locations" / location / "deploy"
    maps = [yaml.safe_load((folder / name).read_text()) for name in ("values.yaml", "demo.yaml")]
    values = location_values({**maps[0], **maps[1], "image": {"repository": "x", "tag": "1"}})
    assert one(template(CODE_LOCATION, values=values), "Deployment")
