"""What the registrar asks a webserver, over its GraphQL API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from forge_platform.errors import SourceUnavailable

_LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries {
        name
        displayMetadata { key value }
        locationOrLoadError { ... on RepositoryLocation { serverId } }
      }
    }
    ... on PythonError { message }
  }
}
"""

_RELOAD_WORKSPACE = """
mutation {
  reloadWorkspace {
    __typename
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""

_RELOAD_LOCATION = """
mutation Reload($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""

_ANSWERS, _LOADS = 10, 600
"""Seconds for what a webserver knows, and for what it asks code servers: each that hangs takes it
one to three minutes, and asking again meanwhile would have it load the same twice.
"""

_RELOADED = frozenset({"Workspace", "WorkspaceLocationEntry", "RepositoryLocationNotFound"})


class ReloadRefused(SourceUnavailable):
    """The webserver does not reload: it failed to, or is read-only and not of this platform."""


@dataclass(frozen=True)
class Loaded:
    """What a webserver has of a location.

    Attributes:
        server: the id of the server that it was loaded from, None when it is not loaded.
        address: host and port that the workspace file said when it was read.
    """

    server: str | None
    address: tuple[str, int]


@dataclass(frozen=True)
class Webserver:
    """One webserver process.

    Attributes:
        url: base address, with its path prefix.
        process: names the process; a restarted one has another name.
    """

    url: str
    process: str

    def locations(self) -> Mapping[str, Loaded]:
        """The locations of its workspace, by name."""
        entries = self._ask(_LOCATIONS)["workspaceOrError"].get("locationEntries", ())
        return {entry["name"]: _loaded(entry) for entry in entries}

    def reload_workspace(self) -> None:
        """Reads the workspace file and loads every location again."""
        _expect_reloaded(self._ask(_RELOAD_WORKSPACE, _LOADS)["reloadWorkspace"])

    def reload_location(self, name: str) -> None:
        """Loads one location again."""
        _expect_reloaded(self._ask(_RELOAD_LOCATION, _LOADS, name=name)["reloadRepositoryLocation"])

    def _ask(self, document: str, timeout: float = _ANSWERS, **variables: object) -> dict[str, Any]:
        body = {"query": document, "variables": variables}
        try:
            response = httpx.post(f"{self.url}/graphql", json=body, timeout=timeout)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            reason = type(error).__name__
            raise SourceUnavailable(f"The webserver at {self.url} says: {reason}.") from error
        if not answer.get("data"):
            raise SourceUnavailable(f"The webserver at {self.url} says: {answer.get('errors')}")
        data: dict[str, Any] = answer["data"]
        return data


def _expect_reloaded(result: Mapping[str, Any]) -> None:
    if result["__typename"] not in _RELOADED:
        raise ReloadRefused(f"{result['__typename']}: {result.get('message')}")


def _loaded(entry: Mapping[str, Any]) -> Loaded:
    shown = {item["key"]: item["value"] for item in entry["displayMetadata"]}
    return Loaded(
        server=(entry["locationOrLoadError"] or {}).get("serverId"),
        address=(shown.get("host", ""), int(shown.get("port", 0))),
    )
