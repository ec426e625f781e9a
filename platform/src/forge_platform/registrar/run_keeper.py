"""Keeps runs and Kubernetes Jobs in step.

A run whose pod cannot start or has died is failed with the reason that Kubernetes gives; what is
done about a failed run is for the instance's retry policy. The Job of a run that ended is removed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import dagster as dg
from kubernetes import client

from forge_platform.helm_values import KEPT
from forge_platform.logs import event
from forge_platform.registrar.cluster import NOT_FOUND
from forge_platform.registrar.diagnosis import Diagnosis, Patience, Stage, diagnose, killed

log = logging.getLogger(__name__)

RUN_ID = "dagster/run-id"
COMPONENT, WORKER = "app.kubernetes.io/component", "run_worker"
"""Label of the Job and the pod of a run's own process; those of its steps have another value."""
_WORKERS = f"{RUN_ID},{COMPONENT}={WORKER}"
_EVICTED = "type=Warning,reason=Evicted"
_TIMEOUT = (3, 15)
_Status = dg.DagsterRunStatus
_STARTED = (_Status.STARTING, _Status.STARTED, _Status.CANCELING)
_ENDED = frozenset({_Status.SUCCESS, _Status.FAILURE, _Status.CANCELED})


@dataclass
class RunObjects:
    """What Kubernetes has of one run.

    Attributes:
        jobs: of the run's own process.
        pods: of those Jobs.
        steps: Jobs that the run made, for a step or inside one.
    """

    jobs: list[client.V1Job] = field(default_factory=list)
    pods: list[client.V1Pod] = field(default_factory=list)
    steps: list[client.V1Job] = field(default_factory=list)

    @property
    def job(self) -> client.V1Job | None:
        """The newest Job: a run that is resumed has several."""
        return max(self.jobs, key=lambda job: job.metadata.creation_timestamp, default=None)

    @property
    def uids(self) -> frozenset[str]:
        """Identities of what events may be about."""
        return frozenset(found.metadata.uid for found in (*self.jobs, *self.pods))


class RunKeeper:
    """Fails runs that Kubernetes cannot run, and removes the Jobs of those that ended.

    Args:
        connect: opens the instance where the runs are.
        namespace: where their Jobs are.
        patience: how long what is wrong may stay so.
        retention: how long a Job stays after its run has ended, for those who look at its pod.
    """

    def __init__(
        self,
        connect: Callable[[], dg.DagsterInstance],
        namespace: str,
        patience: Patience,
        retention: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connect = connect
        self._namespace = namespace
        self._patience = patience
        self._retention = retention
        self._now = now
        self._core = client.CoreV1Api()
        self._batch = client.BatchV1Api()
        self._first_seen: dict[tuple[str, Stage], datetime] = {}
        self._killed: dict[str, str] = {}
        self._explained: set[str] = set()

    @cached_property
    def _instance(self) -> dg.DagsterInstance:
        """Opened by the first step that can: its database may be away."""
        return self._connect()

    def watches(self) -> Sequence[tuple[Callable[..., Any], Mapping[str, str]]]:
        """The list calls, with their filters, after whose changes to look again."""
        runs = {"label_selector": RUN_ID}
        return [
            (self._core.list_namespaced_pod, runs),
            (self._batch.list_namespaced_job, runs),
        ]

    def step(self) -> bool:
        """Looks once at all runs and Jobs; returns whether there is nothing left to wait for."""
        found = self._objects()
        runs = {record.run_id: record for record in self._runs(found)}
        active = {name: run for name, run in runs.items() if run.status in _STARTED}
        for run_id, objects in found.items():
            self._remember(run_id, objects.pods)
        suspects = self._diagnosed(found, active)
        for run_id, diagnosis in suspects.items():
            if self._judge(active[run_id], diagnosis):
                self._explained.add(run_id)
        self._forget_all_but({*found, *active})
        self._remember_evictions(
            {
                run_id: objects
                for run_id, objects in found.items()
                if run_id in runs and self._is_unexplained(runs[run_id])
            }
        )
        # What was seen before counts again when it comes back: an image that is pulled once more.
        self._first_seen = {key: at for key, at in self._first_seen.items() if key[0] in suspects}
        leaving = [
            self._clear(objects, runs.get(run_id))
            for run_id, objects in found.items()
            if run_id not in active
        ]
        return not suspects and not any(leaving)

    def _forget_all_but(self, run_ids: set[str]) -> None:
        self._killed = {run: reason for run, reason in self._killed.items() if run in run_ids}
        self._explained &= run_ids

    def _objects(self) -> Mapping[str, RunObjects]:
        found: dict[str, RunObjects] = defaultdict(RunObjects)
        for job in self._list(self._batch.list_namespaced_job, label_selector=RUN_ID):
            objects = found[job.metadata.labels[RUN_ID]]
            (objects.jobs if _is_worker(job) else objects.steps).append(job)
        for pod in self._list(self._core.list_namespaced_pod, label_selector=_WORKERS):
            found[pod.metadata.labels[RUN_ID]].pods.append(pod)
        return found

    def _runs(self, found: Iterable[str]) -> Iterable[dg.DagsterRun]:
        yield from self._instance.get_runs(dg.RunsFilter(statuses=list(_STARTED)))
        if ids := list(found):
            yield from self._instance.get_runs(dg.RunsFilter(run_ids=ids))

    def _diagnosed(
        self, found: Mapping[str, RunObjects], active: Iterable[str]
    ) -> Mapping[str, Diagnosis]:
        nothing = RunObjects()
        of_runs = {run_id: found.get(run_id, nothing) for run_id in active}
        pending = [objects for objects in of_runs.values() if _is_pending(objects)]
        events = self._events(pending)
        diagnosed = {
            run_id: diagnose(objects.job, objects.pods, events)
            for run_id, objects in of_runs.items()
        }
        return {run_id: diagnosis for run_id, diagnosis in diagnosed.items() if diagnosis}

    def _events(self, pending: Iterable[RunObjects]) -> Sequence[client.CoreV1Event]:
        uids = {uid for objects in pending for uid in objects.uids}
        if not uids:
            return []
        events = self._list(self._core.list_namespaced_event)
        about = [found for found in events if found.involved_object.uid in uids]
        return sorted(about, key=_last_seen)

    def _judge(self, run: dg.DagsterRun, diagnosis: Diagnosis) -> bool:
        """Ends a run whose time is over; returns whether it did."""
        now = self._now()
        first_seen = self._first_seen.setdefault((run.run_id, diagnosis.stage), now)
        if not self._patience.is_over(diagnosis, first_seen, now):
            return False
        # It may have ended since the look; what is reported last counts.
        current = self._instance.get_run_by_id(run.run_id)
        if current is None or current.status != run.status:
            return False
        if current.status == _Status.CANCELING:
            self._instance.report_run_canceled(current, message=diagnosis.reason)
        else:
            self._instance.report_run_failed(current, message=_message(diagnosis))
        log.warning(event("run_ended", run=run.run_id, reason=diagnosis.reason))
        return True

    def _clear(self, objects: RunObjects, run: dg.DagsterRun | None) -> bool:
        """Removes the Jobs of a run that ended; returns whether some are still kept."""
        if run is None or run.status not in _ENDED:
            return False
        self._explain(run)
        # A pod that never started has nothing to show, and must not start any more.
        pending = _is_pending(objects)
        jobs = [
            job
            for job in (*objects.jobs, *objects.steps)
            if not job.metadata.deletion_timestamp and (pending or not _goes_by_ttl(job))
        ]
        ended = self._ended_at(run) if jobs else None
        if ended and self._now() - ended < self._retention and not pending:
            return True
        for job in jobs:
            self._delete(job)
        return False

    def _ended_at(self, run: dg.DagsterRun) -> datetime | None:
        record = self._instance.get_run_record_by_id(run.run_id)
        return datetime.fromtimestamp(record.end_time, UTC) if record and record.end_time else None

    def _remember(self, run_id: str, pods: Iterable[client.V1Pod]) -> None:
        """Keeps why a pod is taken away: once the run has failed of it, the pod may be gone."""
        for reason in filter(None, map(killed, pods)):
            self._killed.setdefault(run_id, reason)

    def _remember_evictions(self, failed: Mapping[str, RunObjects]) -> None:
        """A pod that ends in time when it is evicted looks as if it had ended by itself."""
        unknown = {run_id: found for run_id, found in failed.items() if run_id not in self._killed}
        if not unknown:
            return
        for eviction in self._list(self._core.list_namespaced_event, field_selector=_EVICTED):
            for run_id, objects in unknown.items():
                if eviction.involved_object.uid in objects.uids:
                    self._killed[run_id] = f"Evicted: {eviction.message}"

    def _is_unexplained(self, run: dg.DagsterRun) -> bool:
        return run.status == _Status.FAILURE and run.run_id not in self._explained

    def _explain(self, run: dg.DagsterRun) -> None:
        """Says in a failed run's log what Kubernetes did: the run itself does not know."""
        reason = self._killed.get(run.run_id)
        if not reason or not self._is_unexplained(run):
            return
        self._explained.add(run.run_id)
        if not self._is_said(run.run_id, reason):
            self._instance.report_engine_event(f"Kubernetes ended the run's pod. {reason}", run)

    def _is_said(self, run_id: str, reason: str) -> bool:
        """Whether the run's log has it: what was said before a restart is not remembered."""
        kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.RUN_FAILURE}
        entries = self._instance.all_logs(run_id, of_type=kinds)
        return any(reason in (entry.get_dagster_event().message or "") for entry in entries)

    def _delete(self, job: client.V1Job) -> None:
        log.info(event("job_removed", job=job.metadata.name))
        try:
            self._batch.delete_namespaced_job(
                job.metadata.name,
                self._namespace,
                propagation_policy="Background",
                _request_timeout=_TIMEOUT,
            )
        except client.ApiException as error:
            if error.status != NOT_FOUND:
                raise

    def _list(self, call: Callable[..., Any], **filters: str) -> Sequence[Any]:
        items: Sequence[Any] = call(self._namespace, _request_timeout=_TIMEOUT, **filters).items
        return items


def _last_seen(found: client.CoreV1Event) -> datetime:
    """Kubernetes counts an event that happens again, and keeps its name."""
    seen: datetime = found.last_timestamp or found.event_time or found.metadata.creation_timestamp
    return seen


def _is_worker(job: client.V1Job) -> bool:
    return bool(job.metadata.labels.get(COMPONENT) == WORKER)


def _goes_by_ttl(job: client.V1Job) -> bool:
    """Whether Kubernetes removes it when a location's values say: its time counts from its end."""
    kept = KEPT in (job.metadata.annotations or {})
    ended = {"Complete", "Failed"}
    return kept and any(c.type in ended and c.status == "True" for c in job.status.conditions or ())


def _is_pending(objects: RunObjects) -> bool:
    """Whether events may say why it does not start."""
    return all(pod.status.phase == "Pending" for pod in objects.pods)


def _message(diagnosis: Diagnosis) -> str:
    if diagnosis.stage is Stage.ENDED:
        return f"The run's pod ended before the run did. {diagnosis.reason}"
    if diagnosis.stage is Stage.LOST:
        return f"The run's pod is lost. {diagnosis.reason}"
    return f"The run's pod cannot start. {diagnosis.reason}"
