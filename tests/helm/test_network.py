"""Who may talk with whom, where policies are enforced: what must talk is allowed at both ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from charts import (
    CODE_LOCATION,
    DEV,
    PLATFORM,
    PRODUCTION,
    ROOT,
    Object,
    location_values,
    platform,
    template,
)
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job

WEBSERVER, GRPC, POSTGRES, HTTPS, DNS, API_SERVER = 3000, 4000, 5432, 443, 53, 6443
DEV_S3, DEV_RATES = 7070, 8000
CONTROLLER = {"app": "ingress-controller"}
UI = {
    "networkPolicy": {"webserverFrom": [{"podSelector": {"matchLabels": CONTROLLER}}]},
    "dagster": {"dagsterWebserver": {"enableReadOnly": True}},
}


def run_labels(component: str = "run_worker") -> Mapping[str, str]:
    """The labels of a run's pod or a step's, as Dagster makes them."""
    config = DagsterK8sJobConfig(job_image="image", dagster_home="/home")
    labels = {"dagster/run-id": "1", "dagster/code-location": "orders"}
    job = construct_dagster_k8s_job(config, [], "run", component=component, labels=labels)
    return dict(job.spec.template.metadata.labels)


@dataclass(frozen=True)
class Network:
    """The policies of all releases in a namespace, and the labels of its pods by name."""

    objects: Sequence[Object]

    @property
    def pods(self) -> Mapping[str, Mapping[str, str]]:
        """By the name of what makes them."""
        made = {
            item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
            for item in self.objects
            if item["kind"] in {"Deployment", "StatefulSet", "Job"}
        }
        runs = {"run": run_labels(), "step": run_labels("step_worker")}
        return {**made, **runs, "ingress-controller": CONTROLLER, "stranger": {}}

    def rules(self, name: str, direction: str) -> Iterator[Any]:
        """The rules that a pod is under; none at all forbid everything."""
        for item in self.objects:
            if item["kind"] == "NetworkPolicy" and is_selected(
                self.pods[name], item["spec"]["podSelector"]
            ):
                yield from item["spec"].get(direction, ())

    def may_leave(self, one: str, other: str | None, port: int) -> bool:
        """Whether a pod may talk to another, or to the world outside if there is no other."""
        to = self.pods[other] if other else None
        return any(allows(rule, "to", to, port) for rule in self.rules(one, "egress"))

    def may_arrive(self, one: str, other: str, port: int) -> bool:
        """Whether a pod may be talked to by another."""
        return any(
            allows(rule, "from", self.pods[one], port) for rule in self.rules(other, "ingress")
        )


def is_selected(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    wanted = selector.get("matchLabels", {})
    return wanted.items() <= labels.items() and all(
        {
            "In": labels.get(expression["key"]) in expression.get("values", ()),
            "DoesNotExist": expression["key"] not in labels,
        }[expression["operator"]]
        for expression in selector.get("matchExpressions", ())
    )


def allows(rule: Mapping[str, Any], peers: str, other: Mapping[str, str] | None, port: int) -> bool:
    ports = rule.get("ports")
    if ports and port not in [found["port"] for found in ports]:
        return False
    if peers not in rule:
        return True
    return other is not None and any(
        is_selected(other, peer["podSelector"]) for peer in rule[peers] if "podSelector" in peer
    )


@pytest.fixture(scope="module")
def production() -> Network:
    location = template(CODE_LOCATION, values=location_values(), release="orders")
    return Network([*platform(UI), *location])


@pytest.fixture(scope="module")
def development() -> Network:
    demo = yaml.safe_load((ROOT / "code_locations/orders/deploy/demo.yaml").read_text())
    location = template(CODE_LOCATION, values=location_values(demo), release="orders")
    return Network([*platform(UI, *DEV), *location])


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        ("orders-validation", "forge-dagster-webserver", WEBSERVER),
        ("forge-registrar", "forge-dagster-webserver", WEBSERVER),
        ("forge-registrar", "forge-dagster-webserver-read-only", WEBSERVER),
        ("forge-registrar", "orders-orders", GRPC),
        ("dagster-daemon", "orders-orders", GRPC),
        ("forge-dagster-webserver", "orders-orders", GRPC),
        ("forge-dagster-webserver-read-only", "orders-orders", GRPC),
    ],
)
def test_what_must_talk_may(production: Network, one: str, other: str, port: int) -> None:
    assert production.may_leave(one, other, port)
    assert production.may_arrive(one, other, port)


@pytest.mark.parametrize("port", [POSTGRES, HTTPS, DNS])
@pytest.mark.parametrize(
    "one",
    [
        "orders-validation",
        "orders-orders",
        "run",
        "step",
        "forge-registrar",
        "dagster-daemon",
        "forge-dagster-webserver",
        "forge-dagster-webserver-read-only",
    ],
)
def test_everybody_reaches_database_store_and_names(
    production: Network, one: str, port: int
) -> None:
    assert production.may_leave(one, None, port)


@pytest.mark.parametrize(
    ("one", "may"),
    [
        ("forge-registrar", True),
        ("dagster-daemon", True),
        ("forge-dagster-webserver", True),
        ("run", False),
        ("orders-orders", False),
    ],
)
def test_the_control_plane_alone_reaches_the_api_server(
    production: Network, one: str, may: bool
) -> None:
    assert production.may_leave(one, None, API_SERVER) is may


@pytest.mark.parametrize("other", ["forge-dagster-webserver", "forge-dagster-webserver-read-only"])
def test_the_ui_is_opened_through_the_ingress_only(production: Network, other: str) -> None:
    assert production.may_arrive("ingress-controller", other, WEBSERVER)
    for one in ("stranger", "run", "orders-orders"):
        assert not production.may_arrive(one, other, WEBSERVER)


@pytest.mark.parametrize("one", ["orders-validation", "run", "dagster-daemon", "forge-registrar"])
def test_what_need_not_be_reached_is_not(production: Network, one: str) -> None:
    assert list(production.rules(one, "ingress")) == []


@pytest.mark.parametrize(
    ("other", "port"), [("dev-postgres", POSTGRES), ("dev-s3", DEV_S3), ("dev-rates", DEV_RATES)]
)
def test_servers_for_development_are_reached_by_whom_they_are_for(
    development: Network, other: str, port: int
) -> None:
    for one in ("run", "orders-orders", "orders-validation", "dev-seed", "dagster-daemon"):
        assert development.may_leave(one, other, port), one
        assert development.may_arrive(one, other, port), one


def test_a_run_is_not_of_a_platform_that_is_called_as_dagster_calls_it() -> None:
    assert run_labels()["app.kubernetes.io/instance"] == "dagster"
    network = Network(template(PLATFORM, values=PRODUCTION, release="dagster"))
    assert network.may_leave("dagster-daemon", None, HTTPS)
    assert not network.may_leave("run", None, HTTPS)
