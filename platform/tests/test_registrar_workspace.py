from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml
from kubernetes import client

from forge_platform.registrar.cluster import SERVICE_NAME, endpoints_by_service
from forge_platform.registrar.workspace import (
    CodeServer,
    Endpoint,
    duplicates,
    parse,
    render,
    unique,
    wanted,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def endpoint(
    pod: str = "orders-6d5f-abcde", *, ready: bool = True, terminating: bool = False
) -> Endpoint:
    replica_set = pod.rpartition("-")[0]
    return Endpoint(pod, "10.0.0.1", replica_set, ready=ready, terminating=terminating)


def server(
    location: str, *endpoints: Endpoint, service: str | None = None, age: int = 0
) -> CodeServer:
    return CodeServer(
        location=location,
        service=service or location,
        address="10.1.0.1",
        port=4000,
        created=BEGIN - timedelta(days=age),
        endpoints=frozenset(endpoints),
    )


NOBODY: frozenset[str] = frozenset()


def test_a_new_location_appears_once_its_server_answers() -> None:
    waiting = unique([server("orders", endpoint(ready=False))])
    serving = unique([server("orders", endpoint())])
    assert wanted(waiting, {}, {"orders"}) == {}
    assert wanted(serving, {}, NOBODY) == {}
    assert wanted(serving, {}, {"orders"}) == {"orders": ("orders", 4000)}


def test_a_known_location_stays_while_its_server_is_away() -> None:
    servers = unique([server("orders")])
    assert wanted(servers, {"orders": ("orders", 4000)}, NOBODY) == {"orders": ("orders", 4000)}


def test_a_location_whose_service_is_gone_is_removed() -> None:
    assert wanted({}, {"orders": ("orders", 4000)}, {"orders"}) == {}


def test_of_two_services_with_one_name_the_older_one_counts() -> None:
    first = server("orders", endpoint(), service="orders", age=2)
    second = server("orders", endpoint(), service="orders-copy", age=1)
    assert unique([second, first]) == {"orders": first}
    assert duplicates([second, first]) == [second]


def test_the_workspace_file_is_the_one_that_dagster_reads() -> None:
    text = render({"orders": ("orders", 4000), "customers": ("customers", 4001)})
    assert yaml.safe_load(text) == {
        "load_from": [
            {"grpc_server": {"location_name": "customers", "host": "customers", "port": 4001}},
            {"grpc_server": {"location_name": "orders", "host": "orders", "port": 4000}},
        ]
    }
    assert parse(text) == {"customers": ("customers", 4001), "orders": ("orders", 4000)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "load_from: []",
        "[",
        "- a",
        "load_from: [{python_file: a.py}]",
        "load_from: 3",
        "load_from: 2026-13-32",
        "load_from: [{grpc_server: {location_name: orders, host: orders, port: grpc}}]",
        "load_from: [{grpc_server: {location_name: orders, host: orders, port: }}]",
        "load_from: [{grpc_server: {location_name: orders, host: , port: 4000}}]",
        "load_from: [{grpc_server: {location_name: [a], host: orders, port: 4000}}]",
        "load_from: [{grpc_server: {location_name: 1, host: orders, port: 4000}}]",
    ],
)
def test_a_workspace_that_somebody_else_wrote_is_written_anew(text: str) -> None:
    assert parse(text) == {}


def test_a_pod_that_is_leaving_serves_no_more() -> None:
    leaving = endpoint("orders-old-aaaaa", ready=False, terminating=True)
    staying = endpoint("orders-new-bbbbb")
    found = server("orders", leaving, staying)
    assert found.serving == [staying]
    assert not found.is_between_versions


def test_a_pod_that_does_not_answer_yet_does_not_serve() -> None:
    assert server("orders", endpoint(ready=False)).serving == []


def test_two_pods_are_two_versions_only_when_another_replica_set_made_one() -> None:
    same = server("orders", endpoint("orders-new-aaaaa"), endpoint("orders-new-bbbbb"))
    other = server("orders", endpoint("orders-old-aaaaa"), endpoint("orders-new-bbbbb"))
    assert not same.is_between_versions
    assert other.is_between_versions


@pytest.mark.parametrize("length", [6, 22, 23, 26])
def test_the_versions_of_a_location_of_any_length_are_told_apart(length: int) -> None:
    """Kubernetes cuts what comes before a pod's five letters to 58."""
    location = "l" * length
    replica_sets = [f"{location}-{location}-{letter}bcdf12345" for letter in "xy"]
    pods = [f"{name}-"[:58] + end for name in replica_sets for end in ("aaaaa", "bbbbb")]
    endpoints = [
        client.V1Endpoint(
            addresses=["10.0.0.1"],
            conditions=client.V1EndpointConditions(ready=True),
            target_ref=client.V1ObjectReference(name=pod),
        )
        for pod in pods
    ]
    labels = {SERVICE_NAME: location}
    part = client.V1EndpointSlice(
        address_type="IPv4", endpoints=endpoints, metadata=client.V1ObjectMeta(labels=labels)
    )
    found = server(location, *endpoints_by_service([part])[location])
    assert found.is_between_versions
    assert len({endpoint.replica_set for endpoint in found.serving}) == 2
