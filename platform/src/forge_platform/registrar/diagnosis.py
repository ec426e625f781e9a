"""What Kubernetes says about a run's Job and pods, as one sentence. No input or output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from kubernetes import client

_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_STARTING = frozenset({None, "ContainerCreating", "PodInitializing"})
"""Why a container waits with which nothing is wrong; with all others something is."""
_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
"""Those of the others that stay while the kubelet pulls again."""
_PULL_GOES_ON, _PULL_ENDED = frozenset({"Pulling", "Pulled"}), frozenset({"Failed", "BackOff"})
"""Reasons of events, of which the newest says whether it does."""
_NODE_NOT_READY = frozenset({"FailedAttachVolume", "FailedCreatePodSandBox"})
_HOLDING_BACK = _NODE_NOT_READY | {"FailedMount"}
"""Reasons of events of a pod whose containers are not even created."""
_NO_DRIVER = "list of registered CSI drivers"
"""In the text of a mount that only waits for a driver to start on its node."""
_GOES_ON = frozenset({"Pulling", "Pulled", "Created", "Started", "SuccessfulAttachVolume"})
"""Reasons of events after which what held a pod back is over."""
_NOT_CREATED = "FailedCreate"
_LAST_WORDS = 1000
_LAUNCHED = "dagster"  # the container that Dagster's launcher makes
"""Characters of a process's output that are shown: the end of a traceback."""

Condition: TypeAlias = client.V1PodCondition | client.V1JobCondition


class Stage(Enum):
    """How sure it is that nothing comes of a run's Job."""

    HOPELESS = "hopeless"
    """It cannot get better by itself."""
    STUCK = "stuck"
    """It may get better within seconds."""
    PULLING = "pulling"
    """It was stuck, and its image is being pulled again."""
    NODE = "node"
    """Its node is not ready for it: a new one gets its network and its volumes within a minute."""
    MISSING = "missing"
    """Its Job is not there: not yet, or no longer."""
    UNSCHEDULABLE = "unschedulable"
    """It gets better when other pods end or nodes are added."""
    ENDED = "ended"
    """Its process is gone."""
    LOST = "lost"
    """Its pod should be gone, and its node does not say that it is."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run's Job or pod.

    Attributes:
        stage: how sure that is.
        reason: in the words of Kubernetes.
        since: when it begins to count, as far as Kubernetes says so.
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
        events: about the Job and its pods, oldest first.
    """
    newest = max(pods, key=lambda pod: pod.metadata.creation_timestamp, default=None)
    if newest is None:
        return _without_pod(job, events)
    if (ended := _ended(newest)) is not None:
        return ended
    return (
        _waiting(newest, events)
        or _held_back(newest, events)
        or _unschedulable(newest)
        or _lost(newest)
    )


def killed(pod: client.V1Pod) -> str | None:
    """Why Kubernetes ended a pod, None when it ended by itself or goes on."""
    return _evicted(pod) or _out_of_memory(pod)


def _evicted(pod: client.V1Pod) -> str | None:
    if pod.status.reason == "Evicted":
        return f"Evicted: {pod.status.message}"
    condition = _condition(pod.status.conditions, "DisruptionTarget")
    return f"{condition.reason}: {condition.message}" if condition else None


def _out_of_memory(pod: client.V1Pod) -> str | None:
    for name, state in _terminated(pod):
        if state.reason == "OOMKilled":
            return (
                f"OOMKilled: it used more memory than its limit of {memory_limit(pod, name)}. "
                "Raise the memory limit of the location's run pods, or have it keep less in memory."
            )
    return None


def _without_pod(
    job: client.V1Job | None, events: Sequence[client.CoreV1Event]
) -> Diagnosis | None:
    if job is None:
        return Diagnosis(Stage.MISSING, "Its Kubernetes Job does not exist.")
    failed = _condition(job.status.conditions, "Failed")
    if failed:
        reason = f"Its pod no longer exists. The Job says {failed.reason}: {failed.message}"
        return Diagnosis(Stage.ENDED, reason)
    refused = _last(events, {_NOT_CREATED}, job.metadata.uid)
    return Diagnosis(Stage.STUCK, f"{_NOT_CREATED}: {refused.message}") if refused else None


def _ended(pod: client.V1Pod) -> Diagnosis | None:
    if pod.status.phase not in {"Failed", "Succeeded"} and not _run_failed(pod):
        return None
    return Diagnosis(Stage.ENDED, killed(pod) or _exit(pod))


def _run_failed(pod: client.V1Pod) -> bool:
    """Whether the run's own container failed: one that was injected may live on."""
    own = _own_state(pod)
    return bool(own and own.terminated and own.terminated.exit_code)


def _own(pod: client.V1Pod) -> str:
    """The name of the run's own container: others may have been injected, also before it."""
    names = [container.name for container in pod.spec.containers]
    return _LAUNCHED if _LAUNCHED in names else names[0]


def _own_state(pod: client.V1Pod) -> client.V1ContainerState | None:
    """The state of the run's own container; None before it is known."""
    statuses = pod.status.container_statuses or ()
    return next((status.state for status in statuses if status.name == _own(pod)), None)


def _exit(pod: client.V1Pod) -> str:
    for name, state in _terminated(pod):
        if state.exit_code:
            ended = f"{state.reason}: container {name} ended with exit code {state.exit_code}."
            return f"{ended}{_last_words(state.message)}"
    if pod.status.phase == "Failed":
        return f"{pod.status.reason or 'Failed'}: {pod.status.message or 'no reason is given'}"
    return "Its process ended without saying how the run went."


def _last_words(message: str | None) -> str:
    """The end of what a process said before it ended, when Kubernetes keeps it."""
    text = (message or "").strip()
    return f" It said:\n{text[-_LAST_WORDS:]}" if text else ""


def _terminated(pod: client.V1Pod) -> Sequence[tuple[str, client.V1ContainerStateTerminated]]:
    """What has ended; only the run's own container, if that has failed: it says why."""
    states = [(status.name, status.state and status.state.terminated) for status in _statuses(pod)]
    failed = _run_failed(pod)
    return [(name, state) for name, state in states if state and (name == _own(pod) or not failed)]


def memory_limit(pod: client.V1Pod, container: str) -> str:
    """A container's memory limit, as it was written."""
    for found in pod.spec.containers:
        if found.name == container:
            limits = (found.resources.limits if found.resources else None) or {}
            return str(limits.get("memory", "the node's memory, it has none of its own"))
    return "unknown"


def _waiting(pod: client.V1Pod, events: Sequence[client.CoreV1Event]) -> Diagnosis | None:
    own = _own_state(pod)
    if own and (own.running or own.terminated):
        return None  # a sidecar that waits to be started again holds up nothing
    for status in _statuses(pod):
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason not in _STARTING:
            stage = _stage_of(waiting.reason, pod, events)
            return Diagnosis(stage, f"{waiting.reason}: {waiting.message or status.image}")
    return None


def _stage_of(reason: str, pod: client.V1Pod, events: Sequence[client.CoreV1Event]) -> Stage:
    if reason in _HOPELESS:
        return Stage.HOPELESS
    # A pull that failed is tried again, and the reason stays until the last byte is there.
    last = _last(events, _PULL_GOES_ON | _PULL_ENDED, pod.metadata.uid)
    if reason in _PULLS and last and last.reason in _PULL_GOES_ON:
        return Stage.PULLING
    return Stage.STUCK


def _held_back(pod: client.V1Pod, events: Sequence[client.CoreV1Event]) -> Diagnosis | None:
    if pod.status.phase != "Pending":
        return None
    last = _last(events, _HOLDING_BACK | _GOES_ON, pod.metadata.uid)
    if last is None or last.reason in _GOES_ON:
        return None
    waits_for_node = last.reason in _NODE_NOT_READY or _NO_DRIVER in (last.message or "")
    stage = Stage.NODE if waits_for_node else Stage.STUCK
    return Diagnosis(stage, f"{last.reason}: {last.message}")


def _unschedulable(pod: client.V1Pod) -> Diagnosis | None:
    condition = _condition(pod.status.conditions, "PodScheduled", status="False")
    if condition is None or condition.reason != "Unschedulable":
        return None
    since = pod.metadata.creation_timestamp
    return Diagnosis(Stage.UNSCHEDULABLE, f"Unschedulable: {condition.message}", since)


def _lost(pod: client.V1Pod) -> Diagnosis | None:
    """A pod that is asked to end stays as it was when its node is dead."""
    until = pod.metadata.deletion_timestamp
    if until is None:
        return None
    reason = (
        f"It was to end by {until}, and its node {pod.spec.node_name} does not say that it has."
    )
    return Diagnosis(Stage.LOST, reason, until)


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
        missing: from when it was first seen; the daemon reports a run before it makes the Job.
        unschedulable: from the pod's creation; a new node takes minutes. For what else may take
            minutes it counts from when that was first seen.
        lost: from when the pod must have ended.
    """

    stuck: timedelta = timedelta(seconds=15)
    missing: timedelta = timedelta(seconds=30)
    unschedulable: timedelta = timedelta(minutes=5)
    lost: timedelta = timedelta(seconds=60)

    def is_over(self, found: Diagnosis, first_seen: datetime, now: datetime) -> bool:
        """Whether a run with this diagnosis is to be failed now."""
        allowed = {
            Stage.HOPELESS: timedelta(0),
            Stage.STUCK: self.stuck,
            Stage.PULLING: self.unschedulable,
            Stage.NODE: self.unschedulable,
            Stage.MISSING: self.missing,
            Stage.UNSCHEDULABLE: self.unschedulable,
            Stage.ENDED: timedelta(0),
            Stage.LOST: self.lost,
        }
        return now - (found.since or first_seen) >= allowed[found.stage]
