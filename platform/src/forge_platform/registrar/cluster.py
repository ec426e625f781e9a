"""What the registrar reads and writes in Kubernetes, in one namespace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes import client

from forge_platform.registrar.workspace import CodeServer, Endpoint

WORKSPACE_FILE = "workspace.yaml"
SERVICE_NAME = "kubernetes.io/service-name"
WORKSPACE_ANNOTATION = "open-forge/workspace"
_TIMEOUT = (3, 15)
"""Seconds to connect and to read: an API server that is away must not block for long."""

CONFLICT, NOT_FOUND = 409, 404


@dataclass(frozen=True)
class Names:
    """What the registrar looks for.

    Attributes:
        namespace: where everything is.
        workspace: the ConfigMap that holds the workspace file.
        code_locations: label selector of the Services of code locations.
        location_label: label of such a Service that names the location.
        webservers: label selector of the webserver's pods.
        daemons: label selector of the daemon's pods.
    """

    namespace: str
    workspace: str = "open-forge-workspace"
    code_locations: str = "component=user-deployments"
    location_label: str = "deployment"
    webservers: str = "component in (dagster-webserver,dagster-webserver-read-only)"
    daemons: str = "component=dagster-daemon"


@dataclass(frozen=True)
class ControlPod:
    """A pod of the webserver or the daemon.

    Attributes:
        process: names the process in it: a restarted one has another name.
        workspace: the version of the workspace that the pod was told of.
    """

    name: str
    address: str
    ready: bool
    process: str
    workspace: str | None


class Cluster:
    """The namespace of the platform, as the registrar sees it."""

    def __init__(self, names: Names, api: client.ApiClient | None = None) -> None:
        self.names = names
        self._core = client.CoreV1Api(api)
        self._discovery = client.DiscoveryV1Api(api)

    def watches(self) -> Sequence[tuple[Callable[..., Any], Mapping[str, str]]]:
        """The list calls, with their filters, after whose changes to look again."""
        names = self.names
        field = f"metadata.name={names.workspace}"
        return [
            (self._core.list_namespaced_service, {"label_selector": names.code_locations}),
            (self._discovery.list_namespaced_endpoint_slice, {"label_selector": SERVICE_NAME}),
            (self._core.list_namespaced_config_map, {"field_selector": field}),
            (self._core.list_namespaced_pod, {"label_selector": names.webservers}),
            (self._core.list_namespaced_pod, {"label_selector": names.daemons}),
        ]

    def code_servers(self) -> Sequence[CodeServer]:
        """The Services of code locations, with the pods behind them."""
        services = self._list(
            self._core.list_namespaced_service, label_selector=self.names.code_locations
        )
        slices = self._list(
            self._discovery.list_namespaced_endpoint_slice, label_selector=SERVICE_NAME
        )
        endpoints = endpoints_by_service(slices)
        servers = (
            code_server(
                found, self.names.location_label, endpoints.get(found.metadata.name, frozenset())
            )
            for found in services
        )
        return [server for server in servers if server]

    def workspace_text(self) -> str | None:
        """The workspace file, None when its ConfigMap is missing."""
        config_map = self._workspace()
        return None if config_map is None else (config_map.data or {}).get(WORKSPACE_FILE, "")

    def write_workspace(self, text: str) -> None:
        """Replaces the workspace file.

        Raises:
            ApiException: with status 409 when somebody else changed it at the same moment.
        """
        names, config_map = self.names, self._workspace()
        if config_map is None:
            metadata = client.V1ObjectMeta(name=names.workspace)
            body = client.V1ConfigMap(metadata=metadata, data={WORKSPACE_FILE: text})
            self._core.create_namespaced_config_map(
                names.namespace, body, _request_timeout=_TIMEOUT
            )
            return
        config_map.data = {**(config_map.data or {}), WORKSPACE_FILE: text}
        # It carries its resourceVersion: what somebody else wrote meanwhile is not lost.
        self._core.replace_namespaced_config_map(
            names.workspace, names.namespace, config_map, _request_timeout=_TIMEOUT
        )

    def webservers(self) -> Sequence[ControlPod]:
        """The webserver's pods."""
        return self._control_pods(self.names.webservers)

    def daemons(self) -> Sequence[ControlPod]:
        """The daemon's pods."""
        return self._control_pods(self.names.daemons)

    def tell(self, pod: ControlPod, version: str) -> None:
        """Changes a pod's annotation: its kubelet then refreshes the mounted ConfigMap at once."""
        body = {"metadata": {"annotations": {WORKSPACE_ANNOTATION: version}}}
        self._core.patch_namespaced_pod(
            pod.name, self.names.namespace, body, _request_timeout=_TIMEOUT
        )

    def _control_pods(self, selector: str) -> Sequence[ControlPod]:
        pods = self._list(self._core.list_namespaced_pod, label_selector=selector)
        return [control_pod(pod) for pod in pods if not pod.metadata.deletion_timestamp]

    def _workspace(self) -> client.V1ConfigMap | None:
        names = self.names
        try:
            return self._core.read_namespaced_config_map(
                names.workspace, names.namespace, _request_timeout=_TIMEOUT
            )
        except client.ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def _list(self, call: Callable[..., Any], **filters: str) -> Sequence[Any]:
        items: Sequence[Any] = call(
            self.names.namespace, _request_timeout=_TIMEOUT, **filters
        ).items
        return items


def version_of(text: str) -> str:
    """A short name of a workspace file's content."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_server(
    service: client.V1Service, location_label: str, endpoints: frozenset[Endpoint]
) -> CodeServer | None:
    """A Service as a code server, None when it does not say its location or has no port."""
    location = (service.metadata.labels or {}).get(location_label)
    ports = [port.port for port in service.spec.ports or () if port.name == "grpc"]
    if not location or not ports:
        return None
    return CodeServer(
        location=location,
        service=service.metadata.name,
        address=service.spec.cluster_ip,
        port=ports[0],
        created=service.metadata.creation_timestamp,
        endpoints=endpoints,
    )


def endpoints_by_service(
    slices: Iterable[client.V1EndpointSlice],
) -> Mapping[str, frozenset[Endpoint]]:
    """The pods behind each Service."""
    found: dict[str, set[Endpoint]] = {}
    for part in slices:
        service = part.metadata.labels[SERVICE_NAME]
        found.setdefault(service, set()).update(map(_endpoint, part.endpoints or ()))
    return {service: frozenset(endpoints) for service, endpoints in found.items()}


def _endpoint(endpoint: client.V1Endpoint) -> Endpoint:
    pod = endpoint.target_ref.name if endpoint.target_ref else endpoint.addresses[0]
    return Endpoint(
        pod=pod,
        address=endpoint.addresses[0],
        # A Deployment's pod is named after its ReplicaSet, and five letters. Before these there is
        # no hyphen where the name would be too long with one.
        replica_set=pod[:-5].rstrip("-"),
        # Kubernetes: "nil should be interpreted as true".
        ready=endpoint.conditions.ready is not False,
        terminating=bool(endpoint.conditions.terminating),
    )


def control_pod(pod: client.V1Pod) -> ControlPod:
    """A pod of the control plane; its first container is the one that counts."""
    # The kubelet sorts the statuses by name: a sidecar's may come first.
    first = pod.spec.containers[0].name
    statuses = {status.name: status for status in pod.status.container_statuses or ()}
    status = statuses.get(first)
    return ControlPod(
        name=pod.metadata.name,
        address=pod.status.pod_ip or "",
        ready=bool(status and status.ready),
        process=(status and status.container_id) or pod.metadata.uid,
        workspace=(pod.metadata.annotations or {}).get(WORKSPACE_ANNOTATION),
    )
