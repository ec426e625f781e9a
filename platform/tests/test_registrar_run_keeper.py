"""The run keeper, on a Dagster instance and an API server that says what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    deleted: list[str] = field(default_factory=list)

    def list_namespaced_job(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(items=self.jobs)

    def list_namespaced_pod(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(items=self.pods)

    def list_namespaced_event(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(items=[])

    def delete_namespaced_job(self, name: str, *_: object, **__: object) -> None:
        self.deleted.append(name)

    def add(self, run_id: str, phase: str, annotations: Mapping[str, str] | None = None) -> None:
        """A run's Job, with one pod."""
        metadata = client.V1ObjectMeta(
            name="job", uid="job", labels={RUN_ID: run_id}, annotations=dict(annotations or {})
        )
        self.jobs.append(client.V1Job(metadata=metadata, status=client.V1JobStatus()))
        created = datetime.now(UTC)
        metadata = client.V1ObjectMeta(
            name="pod", uid="pod", labels={RUN_ID: run_id}, creation_timestamp=created
        )
        status = client.V1PodStatus(phase=phase)
        self.pods.append(client.V1Pod(metadata=metadata, status=status))


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
    made: Any = RunKeeper(lambda: instance, "data", Patience(), RETENTION, clock)
    made._core = made._batch = api
    return made  # type: ignore[no-any-return]


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
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
    clock.now += timedelta(seconds=20)
    keeper.step()
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
    said = [str(record.event_log_entry) for record in instance.get_records_for_run(run_id).records]
    assert any("Its Kubernetes Job does not exist" in text for text in said)


def test_a_run_with_a_job_goes_on(
    keeper: RunKeeper, instance: dg.DagsterInstance, api: ApiServer, clock: Clock
) -> None:
    run_id = begin_run(instance)
    api.add(run_id, "Running")
    assert keeper.step()
    clock.now += timedelta(hours=1)
    assert keeper.step()
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
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
    assert api.deleted == ([] if annotations else ["job"])


@pytest.mark.parametrize("annotations", [{}, OWN_TTL], ids=["", "kept by its own TTL"])
def test_the_job_of_a_pod_that_never_started_is_removed_at_once(
    keeper: RunKeeper,
    instance: dg.DagsterInstance,
    api: ApiServer,
    annotations: Mapping[str, str],
) -> None:
    add_ended_run(instance, api, "Pending", annotations)
    keeper.step()
    assert api.deleted == ["job"]


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
