"""Which code locations there are, and the workspace file that says so. No input or output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

import yaml


@dataclass(frozen=True)
class Endpoint:
    """A pod behind a code location's Service.

    Attributes:
        pod: the pod's name.
        replica_set: what made the pod; another one made the pods of another version.
        ready: the Service sends new connections to it.
        terminating: it was asked to end, and may still answer.
    """

    pod: str
    address: str
    replica_set: str
    ready: bool
    terminating: bool


@dataclass(frozen=True, kw_only=True)
class CodeServer:
    """A Service that is labelled as a code location, with the pods behind it.

    Attributes:
        address: the Service's own, which webservers connect to.
    """

    location: str
    service: str
    address: str
    port: int
    created: datetime
    endpoints: frozenset[Endpoint] = frozenset()

    @property
    def serving(self) -> Sequence[Endpoint]:
        """The pods that new connections go to."""
        return [found for found in self.endpoints if found.ready and not found.terminating]

    @property
    def is_between_versions(self) -> bool:
        """Whether two versions answer, so that a reader may get a bit of each."""
        return len({endpoint.replica_set for endpoint in self.serving}) > 1


Workspace = Mapping[str, tuple[str, int]]
"""Host and port of every code location, by its name."""


def unique(servers: Iterable[CodeServer]) -> Mapping[str, CodeServer]:
    """The servers by location; of two with the same name, the one that was there first."""
    first: dict[str, CodeServer] = {}
    for server in sorted(servers, key=lambda server: (server.created, server.service)):
        first.setdefault(server.location, server)
    return first


def duplicates(servers: Iterable[CodeServer]) -> Sequence[CodeServer]:
    """The servers that are left out, because another one has their location's name."""
    listed = list(servers)
    kept = unique(listed)
    return [server for server in listed if kept[server.location] is not server]


def wanted(servers: Mapping[str, CodeServer], present: Workspace, answering: Set[str]) -> Workspace:
    """The workspace to be: a new location once its server answers, a known one while it exists."""
    return {
        name: (server.service, server.port)
        for name, server in sorted(servers.items())
        if name in present or (server.serving and name in answering)
    }


def render(workspace: Workspace) -> str:
    """The text of ``workspace.yaml``."""
    servers = [
        {"grpc_server": {"location_name": name, "host": host, "port": port}}
        for name, (host, port) in sorted(workspace.items())
    ]
    return yaml.safe_dump({"load_from": servers}, sort_keys=False)


def parse(text: str) -> Workspace:
    """The workspace of a text that ``render`` made; what is not of its form is left out."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # a date that is none
        return {}
    entries = content.get("load_from") if isinstance(content, dict) else None
    return dict(filter(None, map(_server, entries if isinstance(entries, list) else ())))


def _server(entry: object) -> tuple[str, tuple[str, int]] | None:
    match entry:
        case {"grpc_server": {"location_name": str(name), "host": str(host), "port": int(port)}}:
            return name, (host, port)
    return None
