"""The command ``forge-values``: from what a team writes to the values of ``helm/code-location``.

A team writes small maps, one for all environments and one for each. Helm cannot compute the values
of a subchart, and in those of Dagster's ``deployments`` is a list, which Helm replaces instead of
merging. So the maps are merged here, and the list is made from the result.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from forge_platform.errors import ConfigurationError

Values = Mapping[str, Any]

SUBCHART = "dagster-user-deployments"
GRPC_PORT = 4000
USER = 10001
KEPT = "open-forge/kept-by-ttl"
CONTAINER_CONTEXT = "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT"
# What the Dagster chart and its launcher give to code servers and run pods.
_GENERATED = frozenset(
    {
        CONTAINER_CONTEXT,
        "DAGSTER_CURRENT_IMAGE",
        "DAGSTER_HOME",
        "DAGSTER_K8S_PIPELINE_RUN_ENV_CONFIGMAP",
        "DAGSTER_K8S_PIPELINE_RUN_NAMESPACE",
        "DAGSTER_PG_PASSWORD",
        "DAGSTER_RUN_JOB_NAME",
    }
)
_AUTHORITIES = "/etc/open-forge/ca.crt"
# Read by OpenSSL, httpx and PyArrow; boto3; requests (pyiceberg); libpq, which DuckDB brings too.
_TRUSTING = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PGSSLROOTCERT")
_READ_BY_TEMPLATES = ("image", "networkPolicy", "validation", "platform", "caBundle")
_LISTENS = {"exec": {"command": ["bash", "-c", f"</dev/tcp/127.0.0.1/{GRPC_PORT}"]}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the values."""
    options = _parser().parse_args(arguments)
    try:
        given = [_read(path) for path in options.files]
        image = {name: value for name, value in vars(options).items() if name in _IMAGE and value}
        sys.stdout.write(render(release_values([*given, {"image": image}])))
    except ConfigurationError as error:
        sys.exit(f"forge-values: {error}")


_IMAGE = ("repository", "tag", "digest")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forge-values",
        description="Merges the values of a code location, later files winning, and prints the "
        "values of the chart helm/code-location. The first file is the chart's own values.yaml.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    for name in _IMAGE:
        parser.add_argument(f"--{name}", help=f"the image's {name}, wins over the files")
    return parser


def _read(path: Path) -> Values:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(content or {}, Mapping):
        raise ConfigurationError(f"{path} must be a map of values.")
    return content or {}


def render(values: Values) -> str:
    """Values as JSON, which is YAML in which nobody takes a text for a number or a truth value."""
    return json.dumps(values, indent=2, default=str) + "\n"


def release_values(maps: Iterable[Values]) -> Values:
    """The values of one release.

    Args:
        maps: the chart's own values first, then the team's; later ones win.

    Raises:
        ConfigurationError: no location or no definite image is named.
    """
    chart, *given = maps
    merged = chart
    for values in given:
        _refuse_empty(values, chart)
        merged = merge(merged, values)
    merged = _completed(merged, chart)
    _require(merged)
    _refuse_generated(merged)
    _require_launchable(container_context(merged))
    if names := over_limit(merged["run"]["resources"]):
        raise ConfigurationError(f"run.resources requests more {names} than its limit.")
    return {**merged, SUBCHART: _subchart(merged)}


def merge(base: Values, over: Values) -> Values:
    """Merges maps as Helm does: maps key by key, all else is replaced, None removes."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            merged[key] = merge(known, value)
        elif value is None and key in merged:
            del merged[key]
        elif value is not None:
            merged[key] = value
    return merged


def _refuse_empty(values: Values, chart: Values) -> None:
    """A name with nothing below it is more often forgotten than meant."""
    sections = [name for name, known in chart.items() if isinstance(known, Mapping) and known]
    if empty := [name for name in sections if name in values and values[name] is None]:
        raise ConfigurationError(f"{', '.join(empty)} is empty: leave it out, or name its values.")
    removed = [
        f"{section}.{name}"
        for section in _READ_BY_TEMPLATES
        if isinstance(found := values.get(section), Mapping)
        for name, value in found.items()
        if value is None and not isinstance(chart[section].get(name), Mapping | list)
    ]
    if removed:
        raise ConfigurationError(f"{', '.join(removed)} is null: Helm would take the default.")


def _completed(values: Values, chart: Values, path: str = "") -> Values:
    """With an empty map or list for each of the chart's that was removed.

    Raises:
        ConfigurationError: a value is no map or list where the chart has one.
    """
    full = dict(values)
    for name, known in chart.items():
        if isinstance(known, Mapping):
            found = full.get(name, {})
            if not isinstance(found, Mapping):
                raise ConfigurationError(f"{path}{name} must be a map, and is {found!r}.")
            full[name] = _completed(found, known, f"{path}{name}.")
        elif isinstance(known, list):
            found = full.setdefault(name, [])
            if not isinstance(found, list):
                raise ConfigurationError(f"{path}{name} must be a list, and is {found!r}.")
    return full


def _require(values: Values) -> None:
    image = values.get("image", {})
    given = {
        "location": values.get("location"),
        "image.repository": image.get("repository"),
        "image.tag or image.digest": image.get("tag") or image.get("digest"),
    }
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise ConfigurationError(f"Set {', '.join(missing)} in one of the files.")
    if not isinstance(tag := image.get("tag") or "", str):
        raise ConfigurationError(f"image.tag is read as the number {tag}: write it in quotes.")
    if tag == "latest" and not image.get("digest"):
        raise ConfigurationError(
            "The tag `latest` names another image every day: a run could not be repeated, nor a "
            "release rolled back. Give the image a tag of its own."
        )


def _refuse_generated(values: Values) -> None:
    parts = {"env": values, "server.env": values["server"], "run.env": values["run"]}
    found = [
        f"{path}.{name}"
        for path, part in parts.items()
        for name in sorted(_GENERATED & part["env"].keys())
    ]
    if found:
        raise ConfigurationError(f"{', '.join(found)} is set by the platform: leave it out.")


def _require_launchable(context: Values) -> None:
    """What the launcher does not take would fail every run, and no release before them."""
    from dagster import DagsterInvalidConfigError

    try:
        from dagster_k8s.container_context import K8sContainerContext
        from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: install forge-platform[instance]."
        ) from error

    job = DagsterK8sJobConfig(job_image="image", dagster_home="/home", instance_config_map="name")
    try:
        config = K8sContainerContext.create_from_config(context).run_k8s_config
        construct_dagster_k8s_job(job, [], "job", user_defined_k8s_config=config)
    except DagsterInvalidConfigError as error:
        said = "; ".join(found.message for found in error.errors)
        raise ConfigurationError(f"Runs could not be launched with these values: {said}") from error
    except Exception as error:
        raise ConfigurationError(
            f"Runs could not be launched with the values of `run` and `image`: {error}"
        ) from error


def over_limit(resources: Values) -> str:
    """The resources whose request is more than their limit: Kubernetes takes no such pod.

    Raises:
        ConfigurationError: a quantity is none.
    """
    requests, limits = (resources.get(kind) or {} for kind in ("requests", "limits"))
    found = [
        name
        for name in requests.keys() & limits.keys()
        if _amount(requests[name]) > _amount(limits[name])
    ]
    return ", ".join(sorted(found))


_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([numkKMGTPE]?)(i?)")
_POWERS = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def _amount(quantity: object) -> Decimal:
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise ConfigurationError(f"{quantity} is no quantity: write 500m, 2 or 2Gi.")
    number, suffix, binary = found.groups()
    return Decimal(number) * Decimal(1024 if binary else 1000) ** _POWERS[suffix]


def _subchart(values: Values) -> Values:
    location = values["location"]
    return {
        "fullnameOverride": location,
        # Else a server keeps runs and events of its own, and has no place to.
        "includeInstance": True,
        "global": {"dagsterInstanceConfigMap": values["platform"]["instanceConfigMap"]},
        "postgresqlSecretName": values["platform"]["postgresSecret"],
        "imagePullSecrets": values["image"]["pullSecrets"],
        # Runs are one process each: nothing in them asks the API server for anything.
        "rbacEnabled": False,
        "serviceAccount": {
            "create": True,
            "name": location,
            "annotations": values["serviceAccount"]["annotations"],
        },
        "deployments": [_deployment(values)],
    }


def _deployment(values: Values) -> Values:
    server = values["server"]
    # The kubelet would put the server's variables in the place of `$(NAME)`, which a run is to get.
    text = json.dumps(container_context(values), sort_keys=True).replace("$", "$$")
    context = {"name": CONTAINER_CONTEXT, "value": text}
    volumes, mounts = _authorities(values)
    return {
        "name": values["location"],
        "image": _image(values["image"]),
        "port": GRPC_PORT,
        "dagsterApiGrpcArgs": ["-m", definitions_module(values)],
        # What the chart would add to run pods is the server's; theirs is in the variable.
        "includeConfigInLaunchedRuns": {"enabled": False},
        "env": [context, *_variables(values, "server")],
        "envSecrets": _references(values, "secrets", "server"),
        "envConfigMaps": _references(values, "configMaps", "server"),
        "resources": server["resources"],
        "labels": server["labels"],
        "annotations": server["annotations"],
        "nodeSelector": server["nodeSelector"],
        "tolerations": server["tolerations"],
        "affinity": server["affinity"],
        "podSecurityContext": _POD_SECURITY,
        "securityContext": _SECURITY,
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108
        # The server listens once its definitions are loaded. The chart's own probe would start
        # Python every time, which takes longer than the period here.
        "startupProbe": {"enabled": True, **_LISTENS, "periodSeconds": 1, "failureThreshold": 180},
        "readinessProbe": {**_LISTENS, "periodSeconds": 2, "timeoutSeconds": 2},
        "livenessProbe": {**_LISTENS, "periodSeconds": 20, "timeoutSeconds": 5},
        "deploymentStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
    }


_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def container_context(values: Values) -> Values:
    """What Dagster's launcher merges over its own settings for a run of this location."""
    run = values["run"]
    pod = {
        name: run[given]
        for name, given in (
            ("node_selector", "nodeSelector"),
            ("tolerations", "tolerations"),
            ("affinity", "affinity"),
        )
        if run[given]
    }
    ttl = run.get("ttlSecondsAfterFinished")
    raw = {
        "pod_spec_config": pod,
        "pod_template_spec_metadata": {"annotations": run["annotations"]}
        if run["annotations"]
        else {},
        "job_spec_config": {} if ttl is None else {"ttl_seconds_after_finished": ttl},
        # Else the registrar removes the Job before.
        "job_metadata": {} if ttl is None else {"annotations": {KEPT: "true"}},
    }
    volumes, mounts = _authorities(values)
    names = {
        "volumes": volumes,
        "volume_mounts": mounts,
        "env": _variables(values, "run"),
        "env_secrets": [item["name"] for item in _references(values, "secrets", "run")],
        "env_config_maps": [item["name"] for item in _references(values, "configMaps", "run")],
        "image_pull_secrets": values["image"]["pullSecrets"],
        "resources": run["resources"],
        "labels": run["labels"],
        "run_k8s_config": {name: value for name, value in raw.items() if value},
    }
    given = {name: value for name, value in names.items() if value}
    policy = values["image"]["pullPolicy"]
    account = values["location"]
    return {"k8s": {"image_pull_policy": policy, "service_account_name": account, **given}}


def definitions_module(values: Values) -> str:
    """The Python module that the code server loads."""
    return str(values.get("module") or f"{values['location'].replace('-', '_')}.definitions")


def _image(image: Values) -> Values:
    names = ("repository", "tag", "digest", "pullPolicy")
    return {name: image[name] for name in names if image.get(name)}


def _has_authorities(values: Values) -> bool:
    return bool(values.get("caBundle", {}).get("configMap"))


def _authorities(values: Values) -> tuple[list[Values], list[Values]]:
    """Volumes and mounts of the file of trusted authorities, if there is one."""
    if not _has_authorities(values):
        return [], []
    folder, _, file = _AUTHORITIES.rpartition("/")
    given = values["caBundle"]
    items = [{"key": given["key"], "path": file}]
    volume = {"name": "authorities", "configMap": {"name": given["configMap"], "items": items}}
    return [volume], [{"name": "authorities", "mountPath": folder, "readOnly": True}]


def _references(values: Values, kind: str, part: str) -> list[Values]:
    names = dict.fromkeys([*values[kind], *values[part][kind]])
    return [{"name": name} for name in names]


def _variables(values: Values, part: str) -> list[Values]:
    trusting = dict.fromkeys(_TRUSTING if _has_authorities(values) else (), _AUTHORITIES)
    merged = merge(merge(trusting, values["env"]), values[part]["env"])
    # A text may name in `$(NAME)` what comes before it: that is mostly a Secret's entry.
    ordered = sorted(merged.items(), key=lambda item: (not isinstance(item[1], Mapping), item[0]))
    return [_variable(name, value) for name, value in ordered]


def _variable(name: str, value: object) -> Values:
    if isinstance(value, Mapping):
        return {"name": name, "valueFrom": dict(value)}
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return {"name": name, "value": text}
