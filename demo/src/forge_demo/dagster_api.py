"""What the demo asks the Dagster webserver, over its GraphQL API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from forge_demo import queries
from forge_platform.errors import PermanentError, SourceUnavailable
from forge_platform.maintenance import GROUP

REPOSITORY = "__repository__"
ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_WAITING = frozenset({"NOT_STARTED", "QUEUED", "STARTING"})
_AUTOMATION = frozenset({"AUTOMATION", "AUTO_MATERIALIZE"})
_PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class Asset:
    """An asset that the workspace can make."""

    name: str
    location: str
    step: str
    is_automated: bool
    jobs: frozenset[str]
    partitions: int
    made_partitions: int

    @property
    def is_made(self) -> bool:
        """Whether all of it exists."""
        return self.made_partitions >= self.partitions


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run; ``assets`` is empty when it makes all assets of its job."""

    id: str
    job: str
    location: str
    status: str
    created: float
    started: float | None
    ended: float | None
    assets: frozenset[str]

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens in it."""
        return self.status in ENDED

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has happened in it yet."""
        return self.status in _WAITING

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return (self.ended or 0) - self.started if self.started and self.ended else 0

    def makes(self, asset: Asset) -> bool:
        """Whether the asset is among those that it was started for."""
        if self.assets:
            return asset.name in self.assets
        return asset.location == self.location and self.job in asset.jobs


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a run."""

    key: str
    status: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Materialization:
    """What a step said about an asset that it made: the numbers of its metadata."""

    asset: str
    step: str
    numbers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """What happened in a run."""

    steps: Mapping[str, Step]
    materializations: Sequence[Materialization]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of an asset and how it went on the newest materialisation, if it was done."""

    asset: str
    name: str
    status: str
    severity: str
    description: str
    run_id: str

    @property
    def passed(self) -> bool:
        """Whether it was done and found nothing."""
        return self.status == "SUCCEEDED"

    @property
    def is_warning(self) -> bool:
        """Whether it found what is worth knowing, but no error."""
        return self.status == "FAILED" and self.severity == "WARN"


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One evaluation of automation conditions."""

    started: float
    is_over: bool
    error: str | None


class DagsterApi:
    """A client of one webserver."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=60)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def loaded_locations(self) -> dict[str, str | None]:
        """The code locations that finished loading, and what went wrong where something did."""
        entries = self._ask(queries.LOCATIONS)["workspaceOrError"]["locationEntries"]
        return {
            entry["name"]: entry["locationOrLoadError"].get("message")
            for entry in entries
            if entry["loadStatus"] == "LOADED" and entry["locationOrLoadError"]
        }

    def assets(self) -> list[Asset]:
        """All assets that some code location makes; the nightly care of tables is none."""
        nodes = self._ask(queries.ASSETS)["assetNodes"]
        return [
            _asset(node)
            for node in nodes
            if node["isMaterializable"] and node["groupName"] != GROUP
        ]

    def runs(self, created_after: float = 0) -> list[Run]:
        """The runs, oldest first."""
        answer = self._ask(queries.RUNS, filter={"createdAfter": created_after})
        return [_run(run) for run in reversed(answer["runsOrError"]["results"])]

    def details(self, run_id: str, *, materializations: bool) -> RunDetails:
        """Steps of a run so far, and if asked for its materialisations."""
        query = {"id": run_id, "materializations": materializations}
        run = self._ask(queries.RUN_DETAILS, **query)["runOrError"]
        events = run.get("assetMaterializations", ())
        return RunDetails(
            steps={step["stepKey"]: _step(step) for step in run["stepStats"]},
            materializations=[_materialization(event) for event in events],
        )

    def errors(self, run_id: str) -> list[str]:
        """What went wrong in a run: in its steps, else in the run itself."""
        errors = [error for event in self._events(run_id) if (error := _failure(event))]
        of_steps = [f"{step}: {message}" for step, message in errors if step]
        return list(dict.fromkeys(of_steps or [message for _, message in errors]))

    def checks(self) -> list[Check]:
        """All asset checks with their newest result."""
        return [
            _check(node["assetKey"]["path"][-1], check)
            for node in self._ask(queries.CHECKS)["assetNodes"]
            for check in node["assetChecksOrError"].get("checks", ())
        ]

    def automation_ticks(self, location: str) -> list[Tick | None]:
        """The newest evaluation of each of a location's automation sensors that are on."""
        selector = {"repositoryName": REPOSITORY, "repositoryLocationName": location}
        sensors = self._ask(queries.AUTOMATION, selector=selector)["sensorsOrError"]["results"]
        states = [
            sensor["sensorState"] for sensor in sensors if sensor["sensorType"] in _AUTOMATION
        ]
        return [_tick(state["ticks"]) for state in states if state["status"] == "RUNNING"]

    def backfills(self) -> list[list[str]]:
        """The backfills that are going on, each as the states of its runs."""
        backfills = self._ask(queries.BACKFILLS)["partitionBackfillsOrError"]["results"]
        return [[run["status"] for run in backfill["runs"]] for backfill in backfills]

    def launch(self, location: str, job: str) -> str:
        """Launches a job and returns the run's id.

        Raises:
            PermanentError: Dagster does not want to.
        """
        selector = {
            "repositoryLocationName": location,
            "repositoryName": REPOSITORY,
            "jobName": job,
        }
        return _launched(job, self._ask(queries.LAUNCH, selector=selector)["launchRun"])

    def repeat(self, run: Run) -> str:
        """Launches a run again, with the same assets and partitions, and returns its id.

        Raises:
            PermanentError: Dagster does not want to.
        """
        return _launched(run.job, self._ask(queries.REPEAT, id=run.id)["launchRunReexecution"])

    def cancel(self, run_ids: Sequence[str]) -> None:
        """Writes off runs whose processes are gone."""
        self._ask(queries.CANCEL, ids=list(run_ids))

    def _events(self, run_id: str) -> Iterator[Mapping[str, Any]]:
        page: dict[str, Any] = {"cursor": None, "hasMore": True}
        while page["hasMore"]:
            where = {"id": run_id, "cursor": page["cursor"], "limit": _PAGE}
            page = self._ask(queries.RUN_ERRORS, **where)["logsForRun"]
            yield from page["events"]

    def _ask(self, document: str, **variables: object) -> dict[str, Any]:
        body = {"query": document, "variables": variables}
        try:
            response = self._client.post("/graphql", json=body)
        except httpx.HTTPError as error:
            raise SourceUnavailable(
                f"The Dagster webserver at {self.url} does not answer ({type(error).__name__})."
            ) from error
        answer = response.json()
        if answer.get("errors"):
            raise PermanentError(f"The Dagster webserver refuses a query: {answer['errors']}")
        data: dict[str, Any] = answer["data"]
        return data


def _launched(job: str, result: Mapping[str, Any]) -> str:
    if "run" not in result:
        raise PermanentError(f"{job} could not be launched: {result.get('message', result)}")
    return str(result["run"]["runId"])


def _asset(node: Mapping[str, Any]) -> Asset:
    stats = node["partitionStats"]
    made = 1 if node["assetMaterializations"] else 0
    return Asset(
        name=node["assetKey"]["path"][-1],
        location=node["repository"]["location"]["name"],
        step=node["opNames"][-1],
        is_automated=node["automationCondition"] is not None,
        jobs=frozenset(node["jobNames"]),
        partitions=stats["numPartitions"] if stats else 1,
        made_partitions=stats["numMaterialized"] if stats else made,
    )


def _run(run: Mapping[str, Any]) -> Run:
    origin = run["repositoryOrigin"]
    return Run(
        id=run["runId"],
        job=run["jobName"],
        location=origin["repositoryLocationName"] if origin else "",
        status=run["status"],
        created=run["creationTime"],
        started=run["startTime"],
        ended=run["endTime"],
        assets=frozenset(key["path"][-1] for key in run["assetSelection"] or ()),
    )


def _step(step: Mapping[str, Any]) -> Step:
    start, end = step["startTime"], step["endTime"]
    return Step(
        key=step["stepKey"],
        status=step["status"] or "",
        seconds=end - start if start and end else 0,
    )


def _materialization(event: Mapping[str, Any]) -> Materialization:
    return Materialization(
        asset=event["assetKey"]["path"][-1],
        step=event["stepKey"],
        numbers={
            entry["label"]: float(entry.get("intRepr") or entry.get("floatValue") or 0)
            for entry in event["metadataEntries"]
            if "intRepr" in entry or "floatValue" in entry
        },
    )


def _tick(ticks: Sequence[Mapping[str, Any]]) -> Tick | None:
    for tick in ticks:
        error = tick["error"]
        return Tick(
            started=tick["timestamp"],
            is_over=bool(tick["endTimestamp"]),
            error=error["message"].strip() if error else None,
        )
    return None


def _failure(event: Mapping[str, Any]) -> tuple[str | None, str] | None:
    """The step, if it was one, and the innermost cause."""
    error = event.get("error")
    if error is None:
        return None
    innermost = (error["causes"] or [error])[-1]
    return event.get("stepKey"), innermost["message"].strip()


def _check(asset: str, check: Mapping[str, Any]) -> Check:
    execution = check["executionForLatestMaterialization"] or {}
    evaluation = execution.get("evaluation") or {}
    return Check(
        asset=asset,
        name=check["name"],
        status=execution.get("status", "NOT_RUN"),
        severity=evaluation.get("severity", "ERROR"),
        description=evaluation.get("description") or "",
        run_id=execution.get("runId", ""),
    )
