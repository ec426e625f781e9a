"""What the tests on a cluster ask the webserver, over GraphQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from on_cluster import wait_until

REPOSITORY = "__repository__"
ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

_LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries {
        name
        displayMetadata { key value }
        locationOrLoadError {
          ... on RepositoryLocation {
            serverId
            repositories { assetNodes { assetKey { path } } }
          }
          ... on PythonError { message }
        }
      }
    }
  }
}
"""

_PLAN = """
query Plan($selector: PipelineSelector!) {
  executionPlanOrError(pipeline: $selector, mode: "default", runConfigData: {}) {
    __typename
    ... on PythonError { message }
  }
}
"""

_LAUNCH = """
mutation Launch(
  $selector: JobOrPipelineSelector!, $config: RunConfigData!, $tags: [ExecutionTag!]
) {
  launchRun(
    executionParams: {
      selector: $selector, runConfigData: $config, executionMetadata: {tags: $tags}
    }
  ) {
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""

_STATES = """
query States($selector: RepositorySelector!) {
  schedulesOrError(repositorySelector: $selector) {
    ... on Schedules { results { name scheduleState { ...State } } }
  }
  sensorsOrError(repositorySelector: $selector) {
    ... on Sensors { results { name sensorState { ...State } } }
  }
}
fragment State on InstigationState {
  status
  ticks(limit: 5) { status timestamp error { message } runIds }
}
"""

_RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { status tags { key value } }
  }
  runGroupOrError(runId: $id) {
    ... on RunGroup { runs { runId status } }
  }
  logsForRun(runId: $id) {
    ... on EventConnection {
      events { __typename ... on MessageEvent { message timestamp } }
    }
  }
}
"""

_CAPTURED = """
query Captured($id: ID!) {
  logsForRun(runId: $id) {
    ... on EventConnection { events { ... on LogsCapturedEvent { fileKey } } }
  }
}
"""

_OUTPUT = """
query Output($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }
"""


@dataclass(frozen=True)
class Event:
    """An event of a run; ``at`` in seconds since the epoch."""

    kind: str
    message: str
    at: float


@dataclass(frozen=True)
class RunState:
    """A run as it is now, with the runs that repeat it."""

    id: str
    status: str
    tags: Mapping[str, str]
    group: Mapping[str, str]
    events: Sequence[Event]

    def seconds_until(self, kind: str) -> float:
        """Seconds from the first event to the first one of a kind."""
        first = next(event for event in self.events if event.kind == kind)
        return first.at - self.events[0].at

    @property
    def text(self) -> str:
        """All messages, one a line."""
        return "\n".join(event.message for event in self.events)


@dataclass(frozen=True)
class Dagster:
    """The webserver at a URL."""

    url: str

    def ask(self, document: str, **variables: object) -> dict[str, Any]:
        """Sends a document and returns its data."""
        body = {"query": document, "variables": variables}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=60).json()
        if not answer.get("data"):
            raise ValueError(f"{document}: {answer}")
        data: dict[str, Any] = answer["data"]
        return data

    def locations(self) -> Mapping[str, Mapping[str, Any]]:
        """Every location's server id, image and assets, or the message of its error."""
        entries = self.ask(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        return {
            entry["name"]: {
                **entry["locationOrLoadError"],
                **{item["key"]: item["value"] for item in entry["displayMetadata"]},
            }
            for entry in entries
        }

    def assets(self, location: str) -> frozenset[str]:
        """The assets of a location; none when it is not loaded or not there."""
        found = self.locations().get(location, {})
        nodes = [node for part in found.get("repositories", ()) for node in part["assetNodes"]]
        return frozenset(node["assetKey"]["path"][-1] for node in nodes)

    def image(self, location: str) -> str | None:
        """The image that new runs of a location get."""
        return self.locations().get(location, {}).get("image")

    def plan(self, location: str, job: str) -> str:
        """What comes of asking a location's server for a job's plan."""
        selector = {**_repository(location), "pipelineName": job}
        result = self.ask(_PLAN, selector=selector)["executionPlanOrError"]
        return f"{result['__typename']} {result.get('message', '')}".strip()

    def schedules(self, location: str) -> Mapping[str, Mapping[str, Any]]:
        """The state of each schedule of a location, with its last ticks, by name."""
        return self._states(location, "schedule")

    def sensors(self, location: str) -> Mapping[str, Mapping[str, Any]]:
        """The state of each sensor of a location, with its last ticks, by name."""
        return self._states(location, "sensor")

    def _states(self, location: str, kind: str) -> Mapping[str, Mapping[str, Any]]:
        found = self.ask(_STATES, selector=_repository(location))[f"{kind}sOrError"]["results"]
        return {item["name"]: item[f"{kind}State"] for item in found}

    def launch(
        self,
        location: str,
        job: str,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> str:
        """Launches a job and returns the run's id; a tag that is no text is written as JSON."""
        given = [{"key": key, "value": _tag(value)} for key, value in (tags or {}).items()]
        selector = {**_repository(location), "pipelineName": job}
        result = self.ask(_LAUNCH, selector=selector, config=config or {}, tags=given)["launchRun"]
        assert "run" in result, result
        return str(result["run"]["runId"])

    def run(self, run_id: str) -> RunState:
        """A run as it is now."""
        answer = self.ask(_RUN, id=run_id)
        run = answer["runOrError"]
        group = answer["runGroupOrError"]
        return RunState(
            id=run_id,
            status=run["status"],
            tags={tag["key"]: tag["value"] for tag in run["tags"]},
            group={found["runId"]: found["status"] for found in group["runs"]},
            events=[
                Event(event["__typename"], event["message"], float(event["timestamp"]) / 1000)
                for event in answer["logsForRun"]["events"]
                if "message" in event
            ],
        )

    def wait_for_end(self, run_id: str, limit: float = 120) -> RunState:
        """Waits until a run has ended."""
        wait_until(lambda: self.run(run_id).status in ENDED, limit, f"run {run_id}")
        return self.run(run_id)

    def output(self, run_id: str) -> str:
        """What a run's process has written, from where it is kept."""
        events = self.ask(_CAPTURED, id=run_id)["logsForRun"]["events"]
        (file,) = [event["fileKey"] for event in events if event.get("fileKey")]
        found = self.ask(_OUTPUT, key=[run_id, "compute_logs", file])["capturedLogs"]
        return f"{found['stdout']}{found['stderr']}"


def _repository(location: str) -> Mapping[str, str]:
    return {"repositoryLocationName": location, "repositoryName": REPOSITORY}


def _tag(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
