"""What the tests on a cluster do with it: kubectl, helm, docker, and waiting."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from kubernetes import client

ROOT = Path(__file__).parents[2]


def run(*command: str, text: str | None = None, cwd: Path = ROOT) -> str:
    """Runs a command and returns its output; what it says when it fails is in the error."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_until(reached: Callable[[], object], limit: float, what: str, pause: float = 0.5) -> None:
    """Waits until a condition holds; one that raises does not hold yet."""
    end, reason = time.monotonic() + limit, ""
    while time.monotonic() < end:
        try:
            if reached():
                return
        except (AssertionError, httpx.HTTPError, KeyError, IndexError) as error:
            reason = f": {error}"
        time.sleep(pause)
    raise AssertionError(f"{what} took more than {limit:.0f} s{reason}")


@dataclass(frozen=True)
class Namespace:
    """A namespace of the cluster that ``KUBECONFIG`` names."""

    name: str

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Runs kubectl in the namespace."""
        return run("kubectl", "-n", self.name, *arguments, text=text)

    def get(self, kind: str, selector: str = "") -> Sequence[Mapping[str, Any]]:
        """The objects of a kind."""
        items: Sequence[Mapping[str, Any]] = json.loads(
            self.kubectl("get", kind, "-l", selector, "-o", "json")
        )["items"]
        return items

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Creates or changes objects."""
        self.kubectl("apply", "-f", "-", text="\n---\n".join(map(json.dumps, objects)))

    def delete_pods(self, selector: str, grace_seconds: int = 0) -> None:
        """Deletes pods at once, faster than kubectl starts, without waiting until they are gone."""
        client.CoreV1Api().delete_collection_namespaced_pod(
            self.name, label_selector=selector, grace_period_seconds=grace_seconds
        )

    def scale(self, deployment: str, replicas: int) -> None:
        """Scales a Deployment and waits until it is so, and pods that go are gone."""
        self.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}")
        self.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=120s")
        found = json.loads(self.kubectl("get", "deployment", deployment, "-o", "json"))
        labels = found["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        wait_until(lambda: len(self.get("pod", selector)) == replicas, 60, f"{deployment}'s pods")

    def address(self, service: str) -> str:
        """Where a Service is inside the cluster, and outside where networks are one."""
        return self.kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}")

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """Forwards a local port to a pod or Service and yields its URL.

        A forward ends with the pod that it leads to, and is begun anew.
        """
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            local = found.getsockname()[1]
        command = ["kubectl", "-n", self.name, "port-forward", target, f"{local}:{port}"]
        with _kept_running(command):
            wait_until(
                lambda: listens("127.0.0.1", local), 20, f"port-forward to {target}", pause=0.1
            )
            yield f"http://127.0.0.1:{local}"


@contextmanager
def _kept_running(command: Sequence[str]) -> Iterator[None]:
    """Runs a command, and again whenever it ends, until the block is over."""
    ended = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def run_again() -> None:
        while not ended.wait(0.1):
            running[:] = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)]
            running[0].wait()

    thread = threading.Thread(target=run_again)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        while thread.is_alive():
            for process in running:
                process.terminate()
            thread.join(0.1)


def listens(host: str, port: int) -> bool:
    """Whether a connection is accepted within a second."""
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex((host, port)) == 0


CONTROL_PLANE = (
    "component in (dagster-webserver,dagster-daemon)",
    "app.kubernetes.io/component=registrar",
)


def start_times(namespace: Namespace) -> Mapping[str, object]:
    """When each container of the control plane was started."""
    return {
        status["containerID"]: status["state"]
        for selector in CONTROL_PLANE
        for pod in namespace.get("pod", selector)
        for status in pod["status"]["containerStatuses"]
    }
