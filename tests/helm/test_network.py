"""Who may talk with whom, where policies are enforced: what must talk is allowed at both ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from charts import CODE_LOCATION, Object, location_values, platform, template

WEBSERVER, GRPC, POSTGRES, HTTPS, DNS = 3000, 4000, 5432, 443, 53
RUN = {"app.kubernetes.io/component": "run_worker", "dagster/code-location": "orders"}


@pytest.fixture(scope="module")
def objects() -> Sequence[Object]:
    ingress = {"podSelector": {"matchLabels": {"app": "ingress-controller"}}}
    location = template(CODE_LOCATION, values=location_values(), release="orders")
    return [*platform({"networkPolicy": {"webserverFrom": [ingress]}}), *location]


@pytest.fixture(scope="module")
def pods(objects: Sequence[Object]) -> Mapping[str, Mapping[str, str]]:
    """The labels of all pods, by the name of what makes them; those of a run are the launcher's."""
    made = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in objects
        if item["kind"] in {"Deployment", "Job"}
    }
    return {**made, "run": RUN}


def is_selected(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    wanted = selector.get("matchLabels", {})
    return wanted.items() <= labels.items() and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", ())
    )


def rules(objects: Sequence[Object], labels: Mapping[str, str], direction: str) -> Iterator[Any]:
    for item in objects:
        if item["kind"] != "NetworkPolicy":
            continue
        if is_selected(labels, item["spec"]["podSelector"]):
            yield from item["spec"].get(direction, ())


def allows(rule: Mapping[str, Any], peers: str, other: Mapping[str, str] | None, port: int) -> bool:
    """Whether a rule lets pods talk with others, or with the world outside if there is no other."""
    ports = rule.get("ports")
    if ports and port not in [found["port"] for found in ports]:
        return False
    if peers not in rule:
        return True
    return other is not None and any(
        is_selected(other, peer["podSelector"]) for peer in rule[peers] if "podSelector" in peer
    )


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        ("orders-validation", "forge-dagster-webserver", WEBSERVER),
        ("forge-registrar", "forge-dagster-webserver", WEBSERVER),
        ("forge-registrar", "orders-orders", GRPC),
        ("dagster-daemon", "orders-orders", GRPC),
        ("forge-dagster-webserver", "orders-orders", GRPC),
    ],
)
def test_what_must_talk_may(
    objects: Sequence[Object],
    pods: Mapping[str, Mapping[str, str]],
    one: str,
    other: str,
    port: int,
) -> None:
    leaving = rules(objects, pods[one], "egress")
    arriving = rules(objects, pods[other], "ingress")
    assert any(allows(rule, "to", pods[other], port) for rule in leaving)
    assert any(allows(rule, "from", pods[one], port) for rule in arriving)


@pytest.mark.parametrize("port", [POSTGRES, HTTPS, DNS])
@pytest.mark.parametrize(
    "one",
    [
        "orders-validation",
        "orders-orders",
        "run",
        "forge-registrar",
        "dagster-daemon",
        "forge-dagster-webserver",
    ],
)
def test_everybody_reaches_database_store_and_names(
    objects: Sequence[Object], pods: Mapping[str, Mapping[str, str]], one: str, port: int
) -> None:
    assert any(allows(rule, "to", None, port) for rule in rules(objects, pods[one], "egress"))


@pytest.mark.parametrize("one", ["orders-validation", "run"])
def test_what_need_not_be_reached_is_not(
    objects: Sequence[Object], pods: Mapping[str, Mapping[str, str]], one: str
) -> None:
    assert list(rules(objects, pods[one], "ingress")) == []
