"""Charts rendered to objects."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from forge_platform.helm_values import merge, release_values, render

ROOT = Path(__file__).parents[2]
PLATFORM = ROOT / "helm" / "platform"
CODE_LOCATION = ROOT / "helm" / "code-location"

Object = Mapping[str, Any]

DEV = ("--values", str(PLATFORM / "values-dev.yaml"))
IMAGE = {"repository": "registry.example/platform", "tag": "1"}
PRODUCTION = {
    "dagster": {
        "postgresql": {"postgresqlHost": "db.example"},
        "dagsterWebserver": {"image": IMAGE},
        "dagsterDaemon": {"image": IMAGE},
        "computeLogManager": {"config": {"s3ComputeLogManager": {"bucket": "logs"}}},
    }
}
TEAM = {"location": "orders", "image": {"repository": "registry.example/orders", "tag": "1"}}


class Refused(Exception):
    """Helm does not render it; the text says why."""


def template(
    chart: Path, *options: str, values: Mapping[str, Any], release: str = "forge"
) -> Sequence[Object]:
    """The objects of a chart, without those of hooks' deletion.

    Raises:
        Refused: helm does not accept the values.
    """
    command = ["helm", "template", release, str(chart), "--namespace", "data", "--values", "-"]
    done = subprocess.run(
        [*command, *options], input=render(values), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(done.stderr)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def platform(values: Mapping[str, Any] | None = None, *options: str) -> Sequence[Object]:
    """The platform with what production must set, and more."""
    return template(PLATFORM, *options, values=merge(PRODUCTION, values or {}))


def location_values(values: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The values of a release, made of a team's map."""
    defaults = yaml.safe_load((CODE_LOCATION / "values.yaml").read_text())
    return release_values([defaults, TEAM, values or {}])


def code_location(values: Mapping[str, Any] | None = None) -> Sequence[Object]:
    """A code location with a team's values."""
    return template(CODE_LOCATION, values=location_values(values))


def one(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or of a kind and a name."""
    found = [
        item
        for item in objects
        if item["kind"] == kind and (not name or item["metadata"]["name"] == name)
    ]
    assert len(found) == 1, [item["metadata"]["name"] for item in found]
    return found[0]


def pod_specs(objects: Sequence[Object]) -> Mapping[str, Object]:
    """The specs of all pods, by the name of what makes them."""
    return {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]
        for item in objects
        if item["kind"] in {"Deployment", "StatefulSet", "Job"}
    }
