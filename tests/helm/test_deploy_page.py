"""The values that docs/deploy.md shows are accepted by the charts."""

from __future__ import annotations

import re

import yaml
from charts import CODE_LOCATION, PLATFORM, ROOT, location_values, one, pod_specs, template

from forge_platform.helm_values import merge

BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)


def block(start: str) -> dict[str, object]:
    (found,) = [yaml.safe_load(text) for text in BLOCKS if text.startswith(start)]
    return dict(found)


def test_the_platforms_values_are_all_that_must_be_set() -> None:
    objects = template(PLATFORM, values=block("dagster:"))
    assert one(objects, "Deployment", "dagster-daemon")


def test_the_webserver_and_the_runs_get_a_secret_for_s3() -> None:
    values = merge(block("dagster:"), block("# platform.yaml, with a Secret for S3"))
    webserver = one(template(PLATFORM, values=values), "Deployment", "forge-dagster-webserver")
    (container,) = webserver["spec"]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "s3"}} in container["envFrom"]


def test_a_teams_values_are_accepted() -> None:
    values = location_values(block("# code_locations/orders/deploy/prod.yaml"))
    assert one(template(CODE_LOCATION, values=values), "Deployment")


def test_the_authorities_of_the_platform_reach_all_its_pods_at_one_place() -> None:
    values = merge(block("dagster:"), block("# platform.yaml, further"))
    pods = [*pod_specs(template(PLATFORM, values=values)).values()]
    pods += pod_specs(template(CODE_LOCATION, values=location_values(block("caBundle:")))).values()
    assert len(pods) == 5
    for pod in pods:
        (container,) = pod["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        (volume,) = [found for found in pod["volumes"] if found["name"] == "authorities"]
        assert volume["configMap"]["name"] == "authorities"
        assert env["PGSSLROOTCERT"] == env["AWS_CA_BUNDLE"] == f"{mounts['authorities']}/ca.crt"
