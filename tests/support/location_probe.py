"""Watches a code location the way somebody does who never stops looking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dagster_client import Dagster
from kubernetes import client

PAUSE = 0.05
UNREACHABLE = "PythonError"


@dataclass(frozen=True)
class Answer:
    """One answer, and when it was there."""

    at: float
    text: str
    seconds: float


@dataclass
class Probe:
    """What was answered since it began.

    Attributes:
        loaded: the location's assets, or why there are none.
        planned: what its server answered when it was asked for a plan.
        ready: the pods that its Service sends new connections to.
    """

    loaded: list[Answer] = field(default_factory=list)
    planned: list[Answer] = field(default_factory=list)
    ready: list[Answer] = field(default_factory=list)

    @property
    def unloaded(self) -> Sequence[Answer]:
        """Answers in which the location was not loaded."""
        return [answer for answer in self.loaded if answer.text.startswith("!")]

    @property
    def unreachable(self) -> Sequence[Answer]:
        """Answers that could not be had of its server."""
        return [answer for answer in self.planned if not answer.text.startswith("ExecutionPlan")]

    @property
    def slowest(self) -> float:
        """Seconds of the slowest answer."""
        return max(answer.seconds for answer in (*self.loaded, *self.planned))

    def first(self, answers: Sequence[Answer], text: str) -> float:
        """When a text was first in an answer."""
        return next(answer.at for answer in answers if text in answer.text)

    def shows(self, text: str) -> bool:
        """Whether the location's assets had a text in an answer."""
        return any(text in answer.text for answer in self.loaded)

    def seconds_out(self, answers: Sequence[Answer]) -> float:
        """From the first to the last of some answers."""
        return answers[-1].at - answers[0].at if answers else 0

    def summary(self) -> str:
        """The numbers, as one line."""
        return (
            f"{len(self.loaded)} looks, unloaded in {len(self.unloaded)}; "
            f"{len(self.planned)} plans, {len(self.unreachable)} of them failed within "
            f"{self.seconds_out(self.unreachable):.1f} s; slowest answer {self.slowest:.1f} s"
        )


@contextmanager
def probing(dagster: Dagster, namespace: str, location: str, job: str) -> Iterator[Probe]:
    """Asks as often as it can while the block runs."""
    probe, over = Probe(), threading.Event()
    slices = client.DiscoveryV1Api()

    def loaded() -> str:
        found = dagster.locations().get(location)
        if found is None:
            return "absent"
        if "message" in found:
            return f"! {found['message']}"
        nodes = [node for part in found["repositories"] for node in part["assetNodes"]]
        return " ".join(sorted(node["assetKey"]["path"][-1] for node in nodes))

    def ready() -> str:
        listed = slices.list_namespaced_endpoint_slice(
            namespace, label_selector=f"kubernetes.io/service-name={location}"
        )
        points = [point for part in listed.items for point in part.endpoints or ()]
        return " ".join(sorted(p.target_ref.name for p in points if p.conditions.ready))

    asked = [(loaded, probe.loaded), (ready, probe.ready)]
    if job:
        asked.append((lambda: dagster.plan(location, job), probe.planned))
    threads = [threading.Thread(target=_ask, args=(over, *pair)) for pair in asked]
    for thread in threads:
        thread.start()
    try:
        yield probe
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(over: threading.Event, ask: Callable[[], str], answers: list[Answer]) -> None:
    while not over.is_set():
        begin = time.time()
        try:
            text = ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            text = f"! {type(error).__name__}"
        answers.append(Answer(time.time(), text, time.time() - begin))
        over.wait(PAUSE)
