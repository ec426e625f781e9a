from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes import client

from forge_platform.registrar.diagnosis import Diagnosis, Patience, Stage, diagnose, killed

CREATED = "2026-01-01T00:00:00Z"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def from_api(kind: str, content: dict[str, Any]) -> Any:
    """An object as the client makes it of the API server's answer."""
    return client.ApiClient()._ApiClient__deserialize(content, kind)


def pod(
    name: str = "pod",
    *,
    created: str = CREATED,
    deleted: str | None = None,
    injected: tuple[str, ...] = (),
    **status: Any,
) -> Any:
    limits = {"limits": {"memory": "512Mi"}}
    containers = [{"name": name, "resources": limits} for name in (*injected, "dagster")]
    metadata = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": created}
    spec = {"containers": containers, "nodeName": "node-1"}
    content = {"metadata": {**metadata, "deletionTimestamp": deleted}, "spec": spec}
    return from_api("V1Pod", {**content, "status": status})


def container(**state: Any) -> dict[str, Any]:
    required = {"imageID": "", "ready": False, "restartCount": 0}
    return {"name": "dagster", "image": "orders:1", "state": state, **required}


def ended(reason: str, exit_code: int, message: str | None = None) -> list[dict[str, Any]]:
    return [container(terminated={"reason": reason, "exitCode": exit_code, "message": message})]


def waiting(reason: str | None, message: str | None = None) -> list[dict[str, Any]]:
    return [container(waiting={"reason": reason, "message": message})]


def job(*conditions: dict[str, Any]) -> Any:
    content = {"metadata": {"name": "job", "uid": "uid-of-job"}}
    return from_api("V1Job", {**content, "status": {"conditions": list(conditions)}})


def warning(uid: str, reason: str, message: str) -> Any:
    content = {"involvedObject": {"uid": uid}, "reason": reason, "message": message}
    return from_api("CoreV1Event", {**content, "metadata": {"creationTimestamp": CREATED}})


def reason_of(diagnosis: Diagnosis | None) -> str:
    assert diagnosis is not None
    return diagnosis.reason


def test_nothing_is_wrong_with_a_pod_that_starts_or_runs() -> None:
    for reason in ("ContainerCreating", "PodInitializing", None):
        starting = pod(phase="Pending", containerStatuses=waiting(reason))
        assert diagnose(job(), [starting], []) is None
    running = pod(phase="Running", containerStatuses=[container(running={})])
    assert diagnose(job(), [running], []) is None
    assert diagnose(job(), [], []) is None


def test_a_name_that_is_no_image_is_hopeless() -> None:
    found = diagnose(
        job(), [pod(phase="Pending", containerStatuses=waiting("InvalidImageName", "no name"))], []
    )
    assert found == Diagnosis(Stage.HOPELESS, "InvalidImageName: no name")


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "SignatureValidationFailed"],
)
def test_a_container_that_cannot_be_created_is_stuck(reason: str) -> None:
    found = diagnose(job(), [pod(phase="Pending", containerStatuses=waiting(reason, "why"))], [])
    assert found == Diagnosis(Stage.STUCK, f"{reason}: why")


def test_an_init_container_counts_too() -> None:
    stuck = pod(phase="Pending", initContainerStatuses=waiting("ErrImagePull", "why"))
    assert reason_of(diagnose(job(), [stuck], [])) == "ErrImagePull: why"


def test_a_volume_that_cannot_be_mounted_is_only_in_the_events() -> None:
    creating = pod(phase="Pending", containerStatuses=waiting("ContainerCreating"))
    events = [
        warning("uid-of-other", "FailedMount", "of another pod"),
        warning("uid-of-pod", "FailedMount", 'secret "absent" not found'),
        warning("uid-of-pod", "Unrelated", "something else"),
    ]
    found = diagnose(job(), [creating], events)
    assert found == Diagnosis(Stage.STUCK, 'FailedMount: secret "absent" not found')


def test_what_held_a_pod_back_for_a_moment_is_over_when_its_image_is_pulled() -> None:
    creating = pod(phase="Pending", containerStatuses=waiting("ContainerCreating"))
    failed = warning("uid-of-pod", "FailedCreatePodSandBox", "network is not ready")
    pulling = warning("uid-of-pod", "Pulling", "Pulling image")
    assert diagnose(job(), [creating], [failed, pulling]) is None
    assert diagnose(job(), [creating], [pulling, failed]) is not None


def test_an_image_that_is_pulled_again_is_given_the_time_of_a_pull() -> None:
    refused = pod(phase="Pending", containerStatuses=waiting("ErrImagePull", "why"))
    first, failed, again = (
        warning("uid-of-pod", reason, "") for reason in ("Pulling", "Failed", "Pulling")
    )
    for events, stage in (
        ([first, failed], Stage.STUCK),
        ([first, failed, again], Stage.PULLING),
        ([first, failed, again, failed], Stage.STUCK),
    ):
        assert diagnose(job(), [refused], events) == Diagnosis(stage, "ErrImagePull: why")


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("FailedCreatePodSandBox", "cni plugin not initialized"),
        ("FailedAttachVolume", "Multi-Attach error"),
        (
            "FailedMount",
            "driver name ebs.csi.aws.com not found in the list of registered CSI drivers",
        ),
    ],
)
def test_a_node_that_is_new_is_given_the_time_of_a_node(reason: str, message: str) -> None:
    creating = pod(phase="Pending", containerStatuses=waiting("ContainerCreating"))
    found = diagnose(job(), [creating], [warning("uid-of-pod", reason, message)])
    assert found == Diagnosis(Stage.NODE, f"{reason}: {message}")


def test_a_pod_without_a_node_is_unschedulable_since_it_exists() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "Insufficient cpu",
    }
    found = diagnose(job(), [pod(phase="Pending", conditions=[condition])], [])
    assert found == Diagnosis(Stage.UNSCHEDULABLE, "Unschedulable: Insufficient cpu", NOW)


def test_a_pod_that_may_not_be_created_is_in_the_events_of_its_job() -> None:
    events = [warning("uid-of-job", "FailedCreate", "exceeded quota: pods")]
    found = diagnose(job(), [], events)
    assert found == Diagnosis(Stage.STUCK, "FailedCreate: exceeded quota: pods")


def test_a_pod_that_was_deleted_has_ended() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}
    found = diagnose(job(failed), [], [])
    assert found is not None
    assert found.stage is Stage.ENDED
    assert "BackoffLimitExceeded" in found.reason


def test_a_run_without_job_misses_it() -> None:
    found = diagnose(None, [], [])
    assert found is not None
    assert found.stage is Stage.MISSING


def test_a_process_killed_for_its_memory_says_the_limit() -> None:
    found = pod(phase="Failed", containerStatuses=ended("OOMKilled", 137))
    assert "OOMKilled" in reason_of(diagnose(job(), [found], []))
    assert "512Mi" in reason_of(diagnose(job(), [found], []))
    assert killed(found) == reason_of(diagnose(job(), [found], []))


def test_an_evicted_pod_says_why() -> None:
    found = pod(phase="Failed", reason="Evicted", message="The node was low on memory.")
    assert reason_of(diagnose(job(), [found], [])) == "Evicted: The node was low on memory."


def test_a_pod_that_gave_way_says_to_what() -> None:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "preempted",
    }
    found = pod(phase="Failed", conditions=[condition], containerStatuses=ended("Error", 143))
    assert reason_of(diagnose(job(), [found], [])) == "PreemptionByScheduler: preempted"


def test_a_process_that_ends_by_itself_was_not_killed() -> None:
    failed = pod(phase="Failed", containerStatuses=ended("Error", 2))
    done = pod(phase="Succeeded", containerStatuses=ended("Completed", 0))
    assert "exit code 2" in reason_of(diagnose(job(), [failed], []))
    assert "without saying" in reason_of(diagnose(job(), [done], []))
    assert killed(failed) is None
    assert killed(done) is None


def test_a_process_that_ends_says_its_last_words() -> None:
    output = "begin " + 1000 * "." + " ModuleNotFoundError: orders"
    reason = reason_of(
        diagnose(job(), [pod(phase="Failed", containerStatuses=ended("Error", 1, output))], [])
    )
    assert reason.startswith("Error: container dagster ended with exit code 1. It said:\n")
    assert reason.endswith("ModuleNotFoundError: orders")
    assert "begin" not in reason


@pytest.mark.parametrize(("exit_code", "over"), [(1, True), (0, False)])
def test_a_run_that_fails_beside_a_container_that_lives_has_ended(
    exit_code: int, over: bool
) -> None:
    """One that succeeds says so itself; its last words may be on their way."""
    sidecar = {**container(running={}), "name": "istio-proxy"}
    found = pod(phase="Running", containerStatuses=[sidecar, *ended("Error", exit_code)])
    diagnosis = diagnose(job(), [found], [])
    assert (diagnosis is not None and diagnosis.stage is Stage.ENDED) is over


def test_a_container_beside_a_run_may_fail() -> None:
    (failed,) = ended("Error", 1)
    statuses = [container(running={}), {**failed, "name": "istio-proxy"}]
    assert diagnose(job(), [pod(phase="Running", containerStatuses=statuses)], []) is None


def test_a_container_beside_a_run_may_wait_to_be_started_again() -> None:
    """One that was injected and is always started again is an init container to Kubernetes."""
    sidecar = {**waiting("CrashLoopBackOff")[0], "name": "istio-proxy"}
    own = container(running={})
    for beside in (
        pod(phase="Running", initContainerStatuses=[sidecar], containerStatuses=[own]),
        pod(phase="Running", containerStatuses=[sidecar, own]),
    ):
        assert diagnose(job(), [beside], []) is None
    starts = pod(phase="Pending", initContainerStatuses=[sidecar])
    assert "CrashLoopBackOff" in reason_of(diagnose(job(), [starts], []))


def test_a_container_before_the_run_is_not_its_own() -> None:
    proxy = {**container(running={}), "name": "istio-proxy"}
    statuses = [proxy, *waiting("ImagePullBackOff")]
    found = pod(phase="Pending", injected=("istio-proxy",), containerStatuses=statuses)
    assert "ImagePullBackOff" in reason_of(diagnose(job(), [found], []))


def test_the_container_of_the_run_says_why_it_failed() -> None:
    (killed_beside,) = ended("OOMKilled", 137)
    found = pod(
        phase="Failed",
        initContainerStatuses=[{**killed_beside, "name": "istio-proxy"}],
        containerStatuses=ended("Error", 1, "ModuleNotFoundError"),
    )
    assert "container dagster ended with exit code 1" in reason_of(diagnose(job(), [found], []))
    assert killed(found) is None


def test_a_pod_on_a_dead_node_is_lost_a_minute_after_it_should_have_ended() -> None:
    running = [container(running={})]
    found = diagnose(job(), [pod(deleted=CREATED, phase="Running", containerStatuses=running)], [])
    assert found is not None
    assert (found.stage, found.since) == (Stage.LOST, NOW)
    assert "node-1" in found.reason
    early = NOW - timedelta(minutes=5)
    waits = [
        Patience().is_over(found, first_seen=early, now=NOW + timedelta(seconds=seconds))
        for seconds in (-200, 59, 60)
    ]
    assert waits == [False, False, True]


def test_the_newest_pod_of_a_run_counts() -> None:
    old = pod("old", phase="Failed", containerStatuses=ended("Error", 1))
    new = pod("new", created="2026-01-01T00:01:00Z", phase="Running")
    assert diagnose(job(), [new, old], []) is None


def test_patience_depends_on_what_may_get_better() -> None:
    patience = Patience(
        stuck=timedelta(seconds=15),
        missing=timedelta(seconds=30),
        unschedulable=timedelta(minutes=5),
    )

    def over_after(stage: Stage, seconds: float) -> bool:
        later = NOW + timedelta(seconds=seconds)
        return patience.is_over(Diagnosis(stage, ""), first_seen=NOW, now=later)

    assert over_after(Stage.HOPELESS, 0)
    assert over_after(Stage.ENDED, 0)
    assert [over_after(Stage.STUCK, seconds) for seconds in (14, 15)] == [False, True]
    assert [over_after(Stage.MISSING, seconds) for seconds in (29, 30)] == [False, True]
    for stage in (Stage.UNSCHEDULABLE, Stage.NODE, Stage.PULLING):
        assert [over_after(stage, seconds) for seconds in (299, 300)] == [False, True]


def test_what_kubernetes_dates_counts_from_then() -> None:
    seen_late = NOW + timedelta(minutes=10)
    diagnosis = Diagnosis(Stage.UNSCHEDULABLE, "", since=NOW)
    assert Patience().is_over(diagnosis, first_seen=seen_late, now=seen_late)
