"""Keeps the workspace: what is in the ConfigMap, in the pods and in every webserver.

Each look starts from what the cluster says now, so nothing is lost when a look is missed, fails
in between, or the registrar itself starts anew. Only which server a webserver was last made to
load is remembered, and forgetting it costs one reload.

Webservers load locations beside the loop: one that hangs takes a minute, and holds up no other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial

from forge_platform.errors import SourceUnavailable
from forge_platform.logs import event
from forge_platform.registrar.background import in_background
from forge_platform.registrar.cluster import Cluster, ControlPod, version_of
from forge_platform.registrar.code_server import lists_definitions, server_id
from forge_platform.registrar.webserver import Loaded, Webserver
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

_MOMENT = 1.0
"""Seconds that a look waits for what it has begun; what takes longer is seen by a later one."""

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
        self._going: dict[tuple[str, str], Future[bool]] = {}

    def step(self) -> bool:
        """Looks once, and does what is due; returns whether everything is as it should be."""
        listed = self._cluster.code_servers()
        for left_out in duplicates(listed):
            log.warning(
                event("duplicate_location", location=left_out.location, service=left_out.service)
            )
        servers = unique(listed)
        workspace = self._write_workspace(servers)
        waiting = [name for name in servers if name not in workspace and servers[name].serving]
        self._tell_pods(version_of(render(workspace)))
        webservers = [pod for pod in self._cluster.webservers() if pod.ready]
        self._know_only({pod.process for pod in webservers})
        current = [self._update(pod, workspace, servers) for pod in webservers]
        return all(current) and not waiting

    def _write_workspace(self, servers: Mapping[str, CodeServer]) -> Workspace:
        text = self._cluster.workspace_text()
        present = parse(text or "")
        workspace = wanted(servers, present, _answering(servers, present))
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

    def _know_only(self, processes: Set[str]) -> None:
        self._loaded = {key: done for key, done in self._loaded.items() if key[0] in processes}
        self._told = {process: at for process, at in self._told.items() if process in processes}
        self._going = {key: call for key, call in self._going.items() if key[0] in processes}

    def _update(
        self, pod: ControlPod, workspace: Workspace, servers: Mapping[str, CodeServer]
    ) -> bool:
        webserver = Webserver(f"http://{pod.address}:{self._port}{self._prefix}", pod.process)
        try:
            loaded = webserver.locations()
        except SourceUnavailable as error:
            log.warning(event("webserver_unavailable", webserver=pod.name, reason=error))
            return False
        known = {name: found.address for name, found in loaded.items()}
        calls = [
            self._begin(webserver, name, self._location_update(webserver, servers[name], loaded))
            for name, address in workspace.items()
            if known.get(name) == address
        ]
        if self._is_readable(pod, known, workspace):
            calls.append(self._begin(webserver, "", partial(_reload_workspace, webserver, pod)))
        wait(calls, _MOMENT)
        current = [call.done() and call.result() for call in calls]
        return all(current) and known == workspace

    def _begin(self, webserver: Webserver, location: str, call: Callable[[], bool]) -> Future[bool]:
        """Makes a call beside the loop, unless the last one for the same location goes on."""
        key = (webserver.process, location)
        going = self._going.get(key)
        if going is None or going.done():
            going = self._going[key] = in_background(call)
        return going

    def _is_readable(self, pod: ControlPod, known: Workspace, workspace: Workspace) -> bool:
        """Whether a webserver lacks what its workspace file, as far as one can tell, says."""
        if known == workspace:
            return False
        needed = ADDED if known.items() <= workspace.items() else REMOVED
        return time.monotonic() - self._told.get(pod.process, 0) >= needed

    def _location_update(
        self, webserver: Webserver, server: CodeServer, loaded: Mapping[str, Loaded]
    ) -> Callable[[], bool]:
        loading, loaded_from = self._loading(webserver, server), loaded[server.location].server

        def update() -> bool:
            try:
                return _update_location(webserver, server, loading, loaded_from)
            except SourceUnavailable as error:
                log.warning(event("location_unavailable", location=server.location, reason=error))
                return False

        return update

    def _loading(self, webserver: Webserver, server: CodeServer) -> Loading:
        key, serving = (webserver.process, server.location), frozenset(server.serving)
        if key not in self._loaded or self._loaded[key].serving != serving:
            self._loaded[key] = Loading(serving, time.monotonic())
        return self._loaded[key]


def _reload_workspace(webserver: Webserver, pod: ControlPod) -> bool:
    """Has the workspace file read; what is loaded then is for the next look."""
    try:
        webserver.reload_workspace()
    except SourceUnavailable as error:
        log.warning(event("webserver_unavailable", webserver=pod.name, reason=error))
    else:
        log.info(event("reloaded", webserver=pod.name))
    return False


def _update_location(
    webserver: Webserver, server: CodeServer, loading: Loading, loaded_from: str | None
) -> bool:
    """Reloads a location when the pods behind it changed; returns whether it is current."""
    if server.is_between_versions:
        # What the webserver loads now could be half of each. The old one leaves in a moment.
        return False
    ids = {server_id(endpoint.address, server.port) for endpoint in server.serving}
    if not ids or None in ids:
        return not server.serving
    if loaded_from in ids and not loading.is_due:
        return loading.is_over
    webserver.reload_location(server.location)
    loaded = webserver.locations().get(server.location)
    now_from = loaded.server if loaded else None
    log.info(event("reloaded", location=server.location, server=now_from))
    if now_from in ids:
        loading.times = min(loading.times + 1, len(AGAIN))
    return loading.is_over


def _answering(servers: Mapping[str, CodeServer], present: Workspace) -> Set[str]:
    """The new locations whose Service leads to a server that can be loaded.

    Their kube-proxy comes a moment after their pod, and one that hangs would hold up the reload of
    the whole workspace.
    """
    calls = {
        name: in_background(partial(lists_definitions, server.address, server.port))
        for name, server in servers.items()
        if name not in present and server.serving
    }
    wait(calls.values())
    return {name for name, call in calls.items() if call.result()}
