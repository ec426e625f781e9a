"""What Kubernetes says about a run's Job and pods, as one sentence. No input or output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from kubernetes import client

_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_STUCK = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
_HOLDING_BACK = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
"""Reasons of events of a pod whose containers are not even created."""
_NOT_CREATED = "FailedCreate"

Condition: TypeAlias = client.V1PodCondition | client.V1JobCondition


class Stage(Enum):
    """How sure it is that nothing comes of a run's Job."""

    HOPELESS = "hopeless"
    """It cannot get better by itself."""
    STUCK = "stuck"
    """It may get better within seconds."""
    UNSCHEDULABLE = "unschedulable"
    """It gets better when other pods end or nodes are added."""
    ENDED = "ended"
    """Its process is gone."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run's Job or pod.

    Attributes:
        stage: how sure that is.
        reason: in the words of Kubernetes.
        since: when it began, as far as Kubernetes says so.
    """

    stage: Stage
    reason: str
    since: datetime | None = None


def diagnose(
    job: client.V1Job | None, pods: Iterable[client.V1Pod], events: Sequence[client.CoreV1Event]
) -> Diagnosis | None:
    """What is wrong with a run's Job and its newest pod, None when nothing is.

    Args:
        job: the Job, None when it is gone.
        pods: its pods.
        events: warnings about the Job and its pods, oldest first.
    """
    newest = max(pods, key=lambda pod: pod.metadata.creation_timestamp, default=None)
    if newest is None:
        return _without_pod(job, events)
    if (ended := _ended(newest)) is not None:
        return ended
    return _waiting(newest) or _held_back(newest, events) or _unschedulable(newest)


def eviction(pod: client.V1Pod) -> str | None:
    """Why Kubernetes took a pod away, None when it did not."""
    if pod.status.reason == "Evicted":
        return f"Evicted: {pod.status.message}"
    condition = _condition(pod.status.conditions, "DisruptionTarget")
    return f"{condition.reason}: {condition.message}" if condition else None


def _without_pod(
    job: client.V1Job | None, events: Sequence[client.CoreV1Event]
) -> Diagnosis | None:
    if job is None:
        return Diagnosis(Stage.STUCK, "Its Kubernetes Job no longer exists.")
    failed = _condition(job.status.conditions, "Failed")
    if failed:
        reason = f"Its pod no longer exists. The Job says {failed.reason}: {failed.message}"
        return Diagnosis(Stage.ENDED, reason, failed.last_transition_time)
    refused = _last(events, {_NOT_CREATED}, job.metadata.uid)
    return Diagnosis(Stage.STUCK, f"{_NOT_CREATED}: {refused.message}") if refused else None


def _ended(pod: client.V1Pod) -> Diagnosis | None:
    if pod.status.phase not in {"Failed", "Succeeded"}:
        return None
    states = [(status.name, status.state.terminated) for status in _statuses(pod)]
    ended = [(name, state) for name, state in states if state]
    since = max((state.finished_at for _, state in ended if state.finished_at), default=None)
    return Diagnosis(Stage.ENDED, eviction(pod) or _exit(pod, ended), since)


def _exit(pod: client.V1Pod, ended: Sequence[tuple[str, client.V1ContainerStateTerminated]]) -> str:
    for name, state in ended:
        if state.reason == "OOMKilled":
            limit = memory_limit(pod, name)
            return (
                f"OOMKilled: it used more memory than its limit of {limit}. "
                "Raise the memory limit of the location's run pods, or have it keep less in memory."
            )
    for name, state in ended:
        if state.exit_code:
            return f"{state.reason}: container {name} ended with exit code {state.exit_code}."
    if pod.status.phase == "Failed":
        return f"{pod.status.reason or 'Failed'}: {pod.status.message or 'no reason is given'}"
    return "Its process ended without saying how the run went."


def memory_limit(pod: client.V1Pod, container: str) -> str:
    """A container's memory limit, as it was written."""
    for found in pod.spec.containers:
        if found.name == container:
            limits = (found.resources.limits if found.resources else None) or {}
            return str(limits.get("memory", "the node's memory, it has none of its own"))
    return "unknown"


def _waiting(pod: client.V1Pod) -> Diagnosis | None:
    for status in _statuses(pod):
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason in _HOPELESS | _STUCK:
            stage = Stage.HOPELESS if waiting.reason in _HOPELESS else Stage.STUCK
            return Diagnosis(stage, f"{waiting.reason}: {waiting.message or status.image}")
    return None


def _held_back(pod: client.V1Pod, events: Sequence[client.CoreV1Event]) -> Diagnosis | None:
    if pod.status.phase != "Pending":
        return None
    held = _last(events, _HOLDING_BACK, pod.metadata.uid)
    return Diagnosis(Stage.STUCK, f"{held.reason}: {held.message}") if held else None


def _unschedulable(pod: client.V1Pod) -> Diagnosis | None:
    condition = _condition(pod.status.conditions, "PodScheduled", status="False")
    if condition is None or condition.reason != "Unschedulable":
        return None
    since = pod.metadata.creation_timestamp
    return Diagnosis(Stage.UNSCHEDULABLE, f"Unschedulable: {condition.message}", since)


def _statuses(pod: client.V1Pod) -> Sequence[client.V1ContainerStatus]:
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


def _condition(
    conditions: Iterable[Condition] | None, kind: str, status: str = "True"
) -> Condition | None:
    return next((c for c in conditions or () if c.type == kind and c.status == status), None)


def _last(
    events: Sequence[client.CoreV1Event], reasons: Iterable[str], uid: str
) -> client.CoreV1Event | None:
    wanted = frozenset(reasons)
    fitting = (e for e in reversed(events) if e.reason in wanted and e.involved_object.uid == uid)
    return next(fitting, None)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long what is wrong may stay so before its run is failed.

    Attributes:
        stuck: from when it was first seen.
        unschedulable: from the pod's creation; a new node takes minutes.
        ended: for the process's last words to arrive in the database.
    """

    stuck: timedelta = timedelta(seconds=15)
    unschedulable: timedelta = timedelta(minutes=5)
    ended: timedelta = timedelta(seconds=3)

    def is_over(self, found: Diagnosis, first_seen: datetime, now: datetime) -> bool:
        """Whether a run with this diagnosis is to be failed now."""
        began = min(found.since or first_seen, first_seen)
        allowed = {
            Stage.HOPELESS: timedelta(0),
            Stage.STUCK: self.stuck,
            Stage.UNSCHEDULABLE: self.unschedulable,
            Stage.ENDED: self.ended,
        }
        return now - began >= allowed[found.stage]
