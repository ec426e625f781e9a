"""The Dagster webserver's GraphQL API, as far as a backfill needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from forge_platform.errors import ConfigurationError, PermanentError, SourceUnavailable

TIMEOUT_SECONDS = 60

_ASSETS = """
{ assetNodes {
    assetKey { path } isMaterializable isPartitioned jobNames opNames
    repository { name location { name } }
} }
"""
_PARTITIONS = """
query Partitions($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionKeys } }
}
"""
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""
_RUN = """
mutation Run($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}
"""
_BACKFILL_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status
      assetBackfillData {
        assetBackfillStatuses {
          ... on AssetPartitionsStatusCounts {
            numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
          }
        }
      }
    }
    ... on Error { message }
  }
}
"""
_RUN_STATUS = """
query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } ... on Error { message } } }
"""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """An asset as the webserver knows it."""

    name: str
    location: str
    repository: str
    jobs: Sequence[str]
    op: str
    is_partitioned: bool


@dataclass(frozen=True)
class Webserver:
    """A webserver; its URL is where its UI is."""

    url: str

    def asset(self, name: str) -> Asset:
        """The asset with this name.

        Raises:
            ConfigurationError: no code location has it.
        """
        nodes = [node for node in self._ask(_ASSETS)["assetNodes"] if node["isMaterializable"]]
        by_name = {node["assetKey"]["path"][-1]: node for node in nodes}
        if name not in by_name:
            known = ", ".join(sorted(by_name))
            raise ConfigurationError(
                f"There is no asset {name!r} at {self.url}. There are: {known}."
            )
        node = by_name[name]
        return Asset(
            name=name,
            location=node["repository"]["location"]["name"],
            repository=node["repository"]["name"],
            jobs=node["jobNames"],
            op=node["opNames"][-1],
            is_partitioned=node["isPartitioned"],
        )

    def partitions(self, asset: Asset) -> list[str]:
        """All keys of the asset's partitions, in order."""
        answer = self._ask(_PARTITIONS, key={"path": [asset.name]})
        return list(answer["assetNodeOrError"]["partitionKeys"])

    def backfill(self, asset: Asset, partitions: Sequence[str], tags: Mapping[str, str]) -> str:
        """Launches a backfill and returns its id."""
        params = {
            "assetSelection": [{"path": [asset.name]}],
            "partitionNames": list(partitions),
            "tags": _tags(tags),
        }
        answer = self._ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        return str(_wanted(answer, "backfillId"))

    def run(self, asset: Asset, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Launches a run of the asset with its own configuration and returns its id."""
        own = [job for job in asset.jobs if not job.startswith("__")]
        params = {
            "selector": {
                "repositoryLocationName": asset.location,
                "repositoryName": asset.repository,
                "jobName": (own or list(asset.jobs))[0],
                "assetSelection": [{"path": [asset.name]}],
            },
            "runConfigData": {"ops": {asset.op: {"config": config}}},
            "executionMetadata": {"tags": _tags(tags)},
        }
        answer = self._ask(_RUN, params=params)["launchRun"]
        return str(_wanted(answer, "run")["runId"])

    def backfill_status(self, backfill: str) -> tuple[str, int, int]:
        """Its state, how many partitions are done, and of how many."""
        answer = self._ask(_BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]
        status = str(_wanted(answer, "status"))
        data = answer["assetBackfillData"] or {"assetBackfillStatuses": []}
        counts = data["assetBackfillStatuses"]
        done = sum(
            count.get("numPartitionsMaterialized", 0) + count.get("numPartitionsFailed", 0)
            for count in counts
        )
        return status, done, sum(count.get("numPartitionsTargeted", 0) for count in counts)

    def run_status(self, run: str) -> str:
        """The state of a run."""
        return str(_wanted(self._ask(_RUN_STATUS, id=run)["runOrError"], "status"))

    def _ask(self, document: str, **variables: object) -> dict[str, Any]:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"The webserver's URL is {self.url!r}: it must start with http:// or https://."
            )
        request = Request(  # noqa: S310 - the scheme was checked
            f"{self.url.rstrip('/')}/graphql",
            data=json.dumps({"query": document, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                answer = json.load(response)
        except HTTPError as error:
            raise PermanentError(
                f"The Dagster webserver at {self.url} refuses a query: {error.code} {error.reason}."
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise SourceUnavailable(
                f"The Dagster webserver at {self.url} does not answer ({error}). "
                "Check the URL, and that the port is forwarded."
            ) from error
        if answer.get("errors"):
            raise PermanentError(f"The Dagster webserver refuses a query: {answer['errors']}")
        data: dict[str, Any] = answer["data"]
        return data


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _wanted(answer: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - a part of JSON
    if name in answer:
        return answer[name]
    said = [error["message"] for error in answer.get("errors", ())] or [answer.get("message")]
    raise PermanentError(f"Dagster refuses: {'; '.join(map(str, said))}")
