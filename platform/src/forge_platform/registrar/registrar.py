"""Keeps the workspace: what is in the ConfigMap, in the pods and in every webserver.

Each look starts from what the cluster says now, so nothing is lost when a look is missed, fails
in between, or the registrar itself starts anew. Only which server a webserver was last made to
load is remembered, and forgetting it costs one reload.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass

from forge_platform.errors import SourceUnavailable
from forge_platform.logs import event
from forge_platform.registrar.cluster import Cluster, ControlPod, version_of
from forge_platform.registrar.code_server import server_id
from forge_platform.registrar.webserver import Webserver
from forge_platform.registrar.workspace import (
    CodeServer,
    Endpoint,
    Workspace,
    duplicates,
    parse,
    render,
    unique,
    wanted,
)

log = logging.getLogger(__name__)

ADDED, REMOVED = 0.5, 2.0
"""Seconds that a pod's kubelet is given to refresh the workspace file before it is read again.

Reading it too early costs one more reload, or, when a location was removed, 20 s in which the
webserver tries to reach it.
"""


AGAIN = (0.0, 2.0, 10.0)
"""Seconds after a change of a location's pods at which it is loaded.

At once, so that it is seen; and again, because kube-proxy may still lead a part of the webserver's
questions to the old pod, which answers them: the new server's id is then beside old definitions.
"""


@dataclass
class Loading:
    """What a webserver process was made to load of a location.

    Attributes:
        serving: the pods that answered for it.
        since: when they were first seen.
        times: how often it was loaded from them.
    """

    serving: frozenset[Endpoint]
    since: float
    times: int = 0

    @property
    def is_due(self) -> bool:
        """Whether it is to be loaded now."""
        return not self.is_over and time.monotonic() - self.since >= AGAIN[self.times]

    @property
    def is_over(self) -> bool:
        """Whether it was loaded often enough."""
        return self.times == len(AGAIN)


class Registrar:
    """Brings workspace and webservers to what the cluster's Services say.

    Args:
        cluster: where they are.
        webserver_port: port of the webserver's pods.
        path_prefix: the webserver's path prefix, if it has one.
    """

    def __init__(self, cluster: Cluster, webserver_port: int, path_prefix: str = "") -> None:
        self._cluster = cluster
        self._port = webserver_port
        self._prefix = path_prefix
        self._loaded: dict[tuple[str, str], Loading] = {}
        self._told: dict[str, float] = {}
        self._read: dict[str, str] = {}

    def step(self) -> bool:
        """Looks once, and does what is due; returns whether everything is as it should be."""
        listed = self._cluster.code_servers()
        for left_out in duplicates(listed):
            log.warning(
                event("duplicate_location", location=left_out.location, service=left_out.service)
            )
        servers = unique(listed)
        workspace = self._write_workspace(servers)
        version = version_of(render(workspace))
        waiting = [name for name in servers if name not in workspace and servers[name].serving]
        self._tell_pods(version)
        webservers = [pod for pod in self._cluster.webservers() if pod.ready]
        self._know_only({pod.process for pod in webservers}, version)
        current = [self._update(pod, workspace, version, servers) for pod in webservers]
        return all(current) and not waiting

    def _write_workspace(self, servers: Mapping[str, CodeServer]) -> Workspace:
        text = self._cluster.workspace_text()
        present = parse(text or "")
        workspace = wanted(servers, present, _answers)
        if text != render(workspace):
            self._cluster.write_workspace(render(workspace))
            added, removed = workspace.keys() - present.keys(), present.keys() - workspace.keys()
            log.info(
                event("workspace", added=",".join(sorted(added)), removed=",".join(sorted(removed)))
            )
        return workspace

    def _tell_pods(self, version: str) -> None:
        for pod in (*self._cluster.webservers(), *self._cluster.daemons()):
            if pod.workspace != version:
                self._cluster.tell(pod, version)
                self._told[pod.process] = time.monotonic()

    def _know_only(self, processes: Set[str], version: str) -> None:
        self._loaded = {key: done for key, done in self._loaded.items() if key[0] in processes}
        self._told = {process: at for process, at in self._told.items() if process in processes}
        # A process that is new here has just read its file, or lacks names, which is seen.
        self._read = {process: self._read.get(process, version) for process in processes}

    def _update(
        self,
        pod: ControlPod,
        workspace: Workspace,
        version: str,
        servers: Mapping[str, CodeServer],
    ) -> bool:
        webserver = Webserver(f"http://{pod.address}:{self._port}{self._prefix}", pod.process)
        try:
            loaded = webserver.locations()
            if self._is_readable(pod, loaded.keys(), workspace, version):
                webserver.reload_workspace()
                self._read[pod.process] = version
                loaded = webserver.locations()
                log.info(event("reloaded", webserver=pod.name, locations=",".join(loaded)))
            current = [
                self._try_location(webserver, servers[name], loaded.get(name))
                for name in workspace
                if name in loaded
            ]
        except SourceUnavailable as error:
            log.warning(event("webserver_unavailable", webserver=pod.name, reason=error))
            return False
        return all(current) and loaded.keys() == workspace.keys()

    def _is_readable(
        self, pod: ControlPod, loaded: Set[str], workspace: Workspace, version: str
    ) -> bool:
        """Whether a webserver lacks what its workspace file, as far as one can tell, says."""
        if loaded == workspace.keys() and self._read[pod.process] == version:
            return False
        # Where the names are the same, the address of one has changed.
        needed = ADDED if loaded < workspace.keys() else REMOVED
        return time.monotonic() - self._told.get(pod.process, 0) >= needed

    def _try_location(
        self, webserver: Webserver, server: CodeServer, loaded_from: str | None
    ) -> bool:
        """One location that hangs does not hold up the others."""
        try:
            return self._update_location(webserver, server, loaded_from)
        except SourceUnavailable as error:
            log.warning(event("location_unavailable", location=server.location, reason=error))
            return False

    def _update_location(
        self, webserver: Webserver, server: CodeServer, loaded_from: str | None
    ) -> bool:
        """Reloads a location when the pods behind it changed; returns whether it is current."""
        if server.is_between_versions:
            # What the webserver loads now could be half of each. The old one leaves in a moment.
            return False
        ids = {server_id(endpoint.address, server.port) for endpoint in server.serving}
        if not ids or None in ids:
            return not server.serving
        loading = self._loading(webserver, server)
        if loaded_from in ids and not loading.is_due:
            return loading.is_over
        webserver.reload_location(server.location)
        now_from = webserver.locations().get(server.location)
        log.info(event("reloaded", location=server.location, server=now_from))
        if now_from in ids:
            loading.times = min(loading.times + 1, len(AGAIN))
        return loading.is_over

    def _loading(self, webserver: Webserver, server: CodeServer) -> Loading:
        key, serving = (webserver.process, server.location), frozenset(server.serving)
        if key not in self._loaded or self._loaded[key].serving != serving:
            self._loaded[key] = Loading(serving, time.monotonic())
        return self._loaded[key]


def _answers(server: CodeServer) -> bool:
    """Whether the Service leads to the pod already: its kube-proxy comes a moment later."""
    return server_id(server.address, server.port) is not None
