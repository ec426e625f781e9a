"""The run keeper, on a Dagster instance and an API server that says what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import create_run_for_test
from kubernetes import client

from forge_platform.helm_values import KEPT
from forge_platform.registrar.diagnosis import Patience
from forge_platform.registrar.run_keeper import RUN_ID, RunKeeper

RETENTION = timedelta(seconds=60)
OWN_TTL = {KEPT: "true"}


@dataclass
class ApiServer:
    """The Jobs and pods of a namespace, and which Jobs were deleted."""

    jobs: list[client.V1Job] = field(default_factory=list)
    pods: list[client.V1Pod] = field(default_factory=list)
    events: list[client.CoreV1Event] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def list_namespaced_job(self, *_: object, label_selector: str, **__: object) -> Any:
        return SimpleNamespace(items=selected(self.jobs, label_selector))

    def list_namespaced_pod(self, *_: object, label_selector: str, **__: object) -> Any:
        return SimpleNamespace(items=selected(self.pods, label_selector))

    def list_namespaced_event(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(items=self.events)

    def delete_namespaced_job(self, name: str, *_: object, **__: object) -> None:
        self.deleted.append(name)

    def add(
        self,
        run_id: str,
        phase: str,
        annotations: Mapping[str, str] | None = None,
        component: str = "run_worker",
    ) -> None:
        """A Job of a run, with one pod, made after those before."""
        labels = {RUN_ID: run_id, "app.kubernetes.io/component": component}
        metadata = client.V1ObjectMeta(
            name=f"job-{len(self.jobs)}",
            uid=f"job-{len(self.jobs)}",
            labels=labels,
            annotations=dict(annotations or {}),
            creation_timestamp=datetime.now(UTC),
        )
        ended = {"Succeeded": "Complete", "Failed": "Failed"}.get(phase)
        conditions = [client.V1JobCondition(type=ended, status="True")] if ended else []
        status = client.V1JobStatus(conditions=conditions)
        self.jobs.append(client.V1Job(metadata=metadata, status=status))
        uid = f"pod-{len(self.pods)}"
        metadata = client.V1ObjectMeta(
            name=uid, uid=uid, labels=labels, creation_timestamp=datetime.now(UTC)
        )
        status = client.V1PodStatus(phase=phase)
        spec = client.V1PodSpec(containers=[client.V1Container(name="dagster")])
        self.pods.append(client.V1Pod(metadata=metadata, spec=spec, status=status))


def selected(objects: Sequence[Any], selector: str) -> Sequence[Any]:
    """The objects that a label selector with ``name`` and ``name=value`` names."""
    terms = [term.partition("=") for term in selector.split(",")]
    return [
        found
        for found in objects
        if all(
            found.metadata.labels.get(name) == value if is_given else name in found.metadata.labels
            for name, is_given, value in terms
        )
    ]


class Clock:
    """Tells the time that the test has reached."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(instance: dg.DagsterInstance, api: ApiServer, clock: Clock) -> RunKeeper:
    return made_keeper(instance, api, clock)


def made_keeper(instance: dg.DagsterInstance, api: ApiServer, clock: Clock) -> RunKeeper:
    made: Any = RunKeeper(lambda: instance, "data", Patience(), RETENTION, clock)
    made._core = made._batch = api
    return made  # type: ignore[no-any-return]


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def said(instance: dg.DagsterInstance, run_id: str) -> Sequence[str]:
    """The texts of a run's log."""
    return [str(record.event_log_entry) for record in instance.get_records_for_run(run_id).records]


def begin_run(instance: dg.DagsterInstance) -> str:
    return str(create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED).run_id)


def add_ended_run(
    instance: dg.DagsterInstance, api: ApiServer, phase: str, annotations: Mapping[str, str]
) -> None:
    """A run that has succeeded, its Job and pod still there."""
    run_id = begin_run(instance)
    api.add(run_id, phase, annotations)
    ended = DagsterEvent(DagsterEventType.PIPELINE_SUCCESS.value, "any")
    instance.report_dagster_event(ended, run_id)


def test_a_run_without_a_job_is_failed_when_it_has_been_so_for_a_while(
    keeper: RunKeeper, instance: dg.DagsterInstance, clock: Clock
) -> None:
    run_id = begin_run(instance)
    assert not keeper.step()
    clock.now += timedelta(seconds=20)
    keeper.step()
    assert status_of(instance, run_id) is dg.DagsterRunStatus.STARTED
    clock.now += timedelta(seconds=20)
    keeper.step()
    assert status_of(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert any("Its Kubernetes Job does not exist" in text for text in said(instance, run_id))


def test_a_run_with_a_job_goes_on(
    keeper: RunKeeper, instance: dg.DagsterInstance, api: ApiServer, clock: Clock
) -> None:
    run_id = begin_run(instance)
    api.add(run_id, "Running")
    assert keeper.step()
    clock.now += timedelta(hours=1)
    assert keeper.step()
    assert status_of(instance, run_id) is dg.DagsterRunStatus.STARTED
    assert api.deleted == []


@pytest.mark.parametrize("annotations", [{}, OWN_TTL], ids=["", "kept by its own TTL"])
def test_the_job_of_a_run_that_ended_is_removed_when_nobody_looks_any_more(
    keeper: RunKeeper,
    instance: dg.DagsterInstance,
    api: ApiServer,
    clock: Clock,
    annotations: Mapping[str, str],
) -> None:
    add_ended_run(instance, api, "Succeeded", annotations)
    keeper.step()
    assert api.deleted == []
    clock.now += RETENTION + timedelta(seconds=1)
    keeper.step()
    assert api.deleted == ([] if annotations else ["job-0"])


@pytest.mark.parametrize("annotations", [{}, OWN_TTL], ids=["", "kept by its own TTL"])
def test_the_job_of_a_pod_that_never_started_is_removed_at_once(
    keeper: RunKeeper,
    instance: dg.DagsterInstance,
    api: ApiServer,
    annotations: Mapping[str, str],
) -> None:
    add_ended_run(instance, api, "Pending", annotations)
    keeper.step()
    assert api.deleted == ["job-0"]


def test_a_step_that_ended_in_a_job_of_its_own_is_not_its_run(
    keeper: RunKeeper, instance: dg.DagsterInstance, api: ApiServer
) -> None:
    run_id = begin_run(instance)
    api.add(run_id, "Running")
    api.add(run_id, "Succeeded", component="step_worker")
    assert keeper.step()
    assert status_of(instance, run_id) is dg.DagsterRunStatus.STARTED


def test_the_jobs_of_the_steps_are_removed_with_that_of_their_run(
    keeper: RunKeeper, instance: dg.DagsterInstance, api: ApiServer, clock: Clock
) -> None:
    add_ended_run(instance, api, "Failed", {})
    api.add(api.pods[0].metadata.labels[RUN_ID], "Running", component="step_worker")
    keeper.step()
    assert api.deleted == []
    clock.now += RETENTION + timedelta(seconds=1)
    keeper.step()
    assert api.deleted == ["job-0", "job-1"]


def test_a_job_whose_process_hangs_does_not_wait_for_its_own_ttl(
    keeper: RunKeeper, instance: dg.DagsterInstance, api: ApiServer, clock: Clock
) -> None:
    add_ended_run(instance, api, "Running", OWN_TTL)
    keeper.step()
    assert api.deleted == []
    clock.now += RETENTION + timedelta(seconds=1)
    keeper.step()
    assert api.deleted == ["job-0"]


def test_an_image_that_is_pulled_again_in_vain_is_not_given_its_time_twice(
    keeper: RunKeeper, instance: dg.DagsterInstance, api: ApiServer, clock: Clock
) -> None:
    run_id = begin_run(instance)
    api.add(run_id, "Pending")
    waiting = client.V1ContainerStateWaiting(reason="ErrImagePull", message="no such tag")
    api.pods[0].status.container_statuses = [
        client.V1ContainerStatus(
            name="dagster",
            image="orders:2",
            image_id="",
            ready=False,
            restart_count=0,
            state=client.V1ContainerState(waiting=waiting),
        )
    ]
    begin = clock.now
    for second, happened in ((0, "Failed"), (12, "Pulling"), (13, "Failed"), (16, "BackOff")):
        assert status_of(instance, run_id) is dg.DagsterRunStatus.STARTED
        clock.now = begin + timedelta(seconds=second)
        api.events.append(
            client.CoreV1Event(
                metadata=client.V1ObjectMeta(creation_timestamp=clock.now),
                involved_object=client.V1ObjectReference(uid="pod-0"),
                reason=happened,
            )
        )
        keeper.step()
    assert status_of(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_what_kubernetes_did_is_said_once(
    instance: dg.DagsterInstance, api: ApiServer, clock: Clock
) -> None:
    run_id = begin_run(instance)
    api.add(run_id, "Failed")
    api.pods[0].status.reason, api.pods[0].status.message = "Evicted", "The node was low on memory."
    failed = DagsterEvent(DagsterEventType.PIPELINE_FAILURE.value, "any", message="terminated")
    instance.report_dagster_event(failed, run_id)
    for _ in range(2):
        # The second has just been started.
        made_keeper(instance, api, clock).step()
    assert len([text for text in said(instance, run_id) if "low on memory" in text]) == 1


def test_a_database_that_is_away_at_the_start_is_waited_for(
    instance: dg.DagsterInstance, api: ApiServer
) -> None:
    away = [ConnectionError("away")]

    def connect() -> dg.DagsterInstance:
        for error in away:
            raise error
        return instance

    keeper: Any = RunKeeper(connect, "data", Patience(), RETENTION)
    keeper._core = keeper._batch = api
    with pytest.raises(ConnectionError):
        keeper.step()
    away.clear()
    assert keeper.step()
