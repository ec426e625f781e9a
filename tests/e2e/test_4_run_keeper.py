"""Runs whose pods cannot start or do not survive, and what is left of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from dagster_client import Dagster, RunState
from kubernetes import client
from on_cluster import Namespace, run, wait_until
from toy_location import MakeToy, ToyLocation, work

NO_RETRY = {"dagster/max_retries": "0"}
ONE_RETRY = {"dagster/max_retries": "1"}
POD = "dagster-k8s/config"
QUOTA = "e2e-without-pods"
RETRIED = 100
"""Seconds until a run is retried: the daemon, which does it, may have to learn of the location."""
AWAY = 15
UNSCHEDULABLE = 60
"""Seconds that a development cluster waits for a node."""
LIMIT = 30
"""Seconds in which a run whose pod cannot start is to be failed."""


@dataclass(frozen=True)
class Case:
    """A run that cannot start: what is wrong with its pod, and what its log is to say."""

    pod: Mapping[str, Any]
    reason: str


ABSENT_VOLUME = {
    "pod_spec_config": {"volumes": [{"name": "absent", "secret": {"secret_name": "absent"}}]},
    "container_config": {"volume_mounts": [{"name": "absent", "mount_path": "/absent"}]},
}
CASES = {
    "an image that is not there": Case(
        {"container_config": {"image": "localhost/absent:1"}}, "localhost/absent:1"
    ),
    "a name that is no image": Case(
        {"container_config": {"image": "No Image"}}, "InvalidImageName"
    ),
    "a secret that is not there": Case(
        {"container_config": {"env_from": [{"secret_ref": {"name": "absent"}}]}},
        'CreateContainerConfigError: secret "absent" not found',
    ),
    "a volume that is not there": Case(ABSENT_VOLUME, "FailedMount: MountVolume.SetUp failed"),
    "a quota that is used up": Case(
        {"pod_spec_config": {"priority_class_name": QUOTA}}, "exceeded quota"
    ),
}


@pytest.fixture(scope="module")
def toy(make_toy: MakeToy, ui: Dagster) -> ToyLocation:
    found = make_toy("gamma")
    found.deploy(found.build("v1"), "--wait")
    wait_until(lambda: ui.assets("gamma"), 30, "gamma in the UI")
    return found


@pytest.fixture(scope="module")
def quota(namespace: Namespace) -> Iterator[None]:
    """No pod of one priority class may be created."""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": [QUOTA]}
    namespace.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": QUOTA},
            "value": -20,
        },
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": QUOTA},
            "spec": {"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [scope]}},
        },
    )
    yield
    namespace.kubectl("delete", "resourcequota", QUOTA)
    run("kubectl", "delete", "priorityclass", QUOTA)


@pytest.fixture(scope="module")
def ended(ui: Dagster, toy: ToyLocation, quota: None) -> Mapping[str, RunState]:
    """All cases at once: most of the time is waiting."""
    del quota  # it only has to be there
    launched = {
        name: ui.launch(toy.location, "work_job", tags={**NO_RETRY, POD: case.pod})
        for name, case in CASES.items()
    }
    return {name: ui.wait_for_end(run_id, 90) for name, run_id in launched.items()}


@dataclass(frozen=True)
class Launched:
    """Runs that were launched together, by id, because what is tested takes its time."""

    trivial: str
    filling_disk: str
    without_node: str


@pytest.fixture(scope="module")
def launched(ui: Dagster, toy: ToyLocation, ended: Mapping[str, RunState]) -> Launched:
    del ended  # what cannot start must be told within a time, so nothing else is at work then
    limits = {"container_config": {"resources": {"limits": {"ephemeral-storage": "20Mi"}}}}
    fills = work(disk_mb=100, seconds=120.0)
    nowhere = {"pod_spec_config": {"node_selector": {"no-node-has": "this"}}}
    return Launched(
        trivial=ui.launch(toy.location, "work_job"),
        filling_disk=ui.launch(toy.location, "work_job", fills, {**NO_RETRY, POD: limits}),
        without_node=ui.launch(toy.location, "work_job", tags={**NO_RETRY, POD: nowhere}),
    )


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_cannot_start_is_failed_with_the_reason(
    namespace: Namespace, ended: Mapping[str, RunState], name: str, figure: Callable[[str], None]
) -> None:
    state = ended[name]
    created = next(e.at for e in state.events if "job created" in e.message)
    failed = next(e for e in state.events if e.kind == "RunFailureEvent")
    figure(f"{name}: failed {failed.at - created:.1f} s after its Job was made")
    assert state.status == "FAILURE"
    assert CASES[name].reason in failed.message
    assert failed.at - created < LIMIT
    selector = f"dagster/run-id={state.id}"
    wait_until(lambda: not namespace.get("job,pod", selector), 45, "removal of its Job")


@pytest.mark.usefixtures("launched")
def test_a_run_out_of_memory_says_its_limit_and_is_retried(ui: Dagster, toy: ToyLocation) -> None:
    limits = {"container_config": {"resources": {"limits": {"memory": "300Mi"}}}}
    run_id = ui.launch(
        toy.location,
        "work_job",
        work(memory_mb=600),
        {**ONE_RETRY, POD: limits},
    )
    state = ui.wait_for_end(run_id)
    assert "OOMKilled" in state.text
    # Where Dagster's own monitor was first to fail the run, it is said right after.
    wait_until(lambda: "limit of 300Mi" in ui.run(run_id).text, 20, "its limit in the run's log")
    wait_until(lambda: len(ui.run(run_id).group) == 2, RETRIED, "the retry")
    again = next(other for other in ui.run(run_id).group if other != run_id)
    assert "OOMKilled" in ui.wait_for_end(again).text


def test_a_run_that_is_evicted_with_its_code_server_says_so_and_is_retried(
    namespace: Namespace, ui: Dagster, toy: ToyLocation
) -> None:
    """As when their node is drained: whoever retries the run finds no server to ask."""
    run_id = ui.launch(toy.location, "work_job", work(seconds=20.0), ONE_RETRY)
    wait_until(lambda: ui.run(run_id).status == "STARTED", 60, "the run's start")
    (pod,) = namespace.get("pod", f"dagster/run-id={run_id}")
    namespace.kubectl("scale", f"deployment/{toy.location}-{toy.location}", "--replicas=0")
    namespace.delete_pods(f"deployment={toy.location}")
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod["metadata"]["name"]))
    client.CoreV1Api().create_namespaced_pod_eviction(
        pod["metadata"]["name"], namespace.name, eviction
    )
    state = ui.wait_for_end(run_id)
    assert state.status == "FAILURE"
    time.sleep(AWAY)
    namespace.scale(f"{toy.location}-{toy.location}", 1)
    wait_until(lambda: "EvictionByEvictionAPI" in ui.run(run_id).text, 10, "the reason")
    wait_until(lambda: len(ui.run(run_id).group) == 2, RETRIED, "the retry")
    again = next(other for other in ui.run(run_id).group if other != run_id)
    assert ui.wait_for_end(again).status == "SUCCESS"


def test_a_run_that_uses_up_its_disk_says_so(ui: Dagster, launched: Launched) -> None:
    state = ui.wait_for_end(launched.filling_disk, 150)
    wait_until(lambda: "Evicted" in ui.run(state.id).text, 10, "the reason")
    assert state.status == "FAILURE"


def test_a_run_that_finds_no_node_is_failed_after_a_limit(ui: Dagster, launched: Launched) -> None:
    state = ui.wait_for_end(launched.without_node, UNSCHEDULABLE + LIMIT)
    failed = next(event for event in state.events if event.kind == "RunFailureEvent")
    assert "Unschedulable" in failed.message
    assert failed.at - state.events[0].at > UNSCHEDULABLE


def test_the_job_of_a_run_that_ended_is_removed(
    namespace: Namespace, ui: Dagster, launched: Launched
) -> None:
    assert ui.wait_for_end(launched.trivial).status == "SUCCESS"
    selector = f"dagster/run-id={launched.trivial}"
    wait_until(lambda: not namespace.get("job,pod", selector), 90, "removal of its Job")


@pytest.mark.parametrize("kind", ["pod", "job"])
def test_a_run_whose_pod_or_job_is_deleted_is_failed(
    namespace: Namespace, ui: Dagster, toy: ToyLocation, kind: str
) -> None:
    run_id = ui.launch(toy.location, "work_job", work(seconds=90.0), NO_RETRY)
    wait_until(lambda: ui.run(run_id).status == "STARTED", 60, "the run's start")
    selector = f"dagster/run-id={run_id}"
    namespace.kubectl("delete", kind, "-l", selector, "--force", "--grace-period=0")
    assert ui.wait_for_end(run_id, 60).status == "FAILURE"
