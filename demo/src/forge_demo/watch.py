"""Watches the platform work: which assets are made, by which runs, and when it comes to rest."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from forge_demo.dagster_api import (
    ENDED,
    Asset,
    Check,
    DagsterApi,
    Materialization,
    Run,
    RunDetails,
    Tick,
)

ROW_COUNT = "dagster/row_count"
_BLIND_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class AssetProgress:
    """An asset and what the watched runs did to it.

    Attributes:
        state: waiting, queued, running, done, failed; kept when no watched run touched it.
        numbers: the numbers of its metadata, added up over the runs; the row count is the last.
        steps: how many steps made it.
        seconds: how long they took.
    """

    asset: Asset
    state: str
    numbers: Mapping[str, float]
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class View:
    """The platform at one moment.

    Attributes:
        runs: the watched runs, oldest first.
        is_quiet: nothing runs, and nothing more will unless something new comes in.
        automation_errors: what went wrong where automation conditions were evaluated.
    """

    assets: Sequence[AssetProgress]
    runs: Sequence[Run]
    is_quiet: bool
    automation_errors: Sequence[str]

    @property
    def missing_assets(self) -> list[Asset]:
        """Assets of which something was never made."""
        return [progress.asset for progress in self.assets if not progress.asset.is_made]

    @property
    def run_seconds(self) -> float:
        """For how long at least one run was going on."""
        total, last_end = 0.0, 0.0
        spans = [(run.started, run.ended) for run in self.runs if run.started and run.ended]
        for start, end in sorted(spans):
            total += max(0.0, end - max(start, last_end))
            last_end = max(last_end, end)
        return total


@dataclass
class Watch:
    """Looks at the runs that were created after a moment.

    While runs are going on only they are asked about: every question costs the webserver time
    that the runs could use.
    """

    api: DagsterApi
    since: float
    _assets: Sequence[Asset] = ()
    _ended: dict[str, RunDetails] = field(default_factory=dict)

    def look(self) -> View:
        """The platform now."""
        runs = self.api.runs(self.since)
        is_idle = all(run.is_over for run in runs)
        if is_idle or not self._assets:
            self._assets = sorted(self.api.assets(), key=lambda asset: (asset.location, asset.name))
        ticks = self._automation_ticks() if is_idle else []
        details = {run.id: self._details(run) for run in runs if not run.is_waiting}
        return View(
            assets=[progress_of(asset, runs, details) for asset in self._assets],
            runs=runs,
            is_quiet=is_idle and self._looked_since(runs, ticks) and self._stays_idle(runs),
            automation_errors=[tick.error for tick in ticks if tick and tick.error],
        )

    def checks(self) -> list[Check]:
        """All checks with their newest result."""
        return self.api.checks()

    def _automation_ticks(self) -> list[Tick | None]:
        locations = {asset.location for asset in self._assets if asset.is_automated}
        return [tick for location in locations for tick in self.api.automation_ticks(location)]

    def _looked_since(self, runs: Sequence[Run], ticks: Sequence[Tick | None]) -> bool:
        """Whether automation has looked at everything that the runs did."""
        moment = max([self.since, *(run.ended or 0 for run in runs)])
        if all(tick and tick.is_over and tick.started > moment for tick in ticks):
            return True
        # Where a code server had to change its port, Dagster does not find its evaluations.
        return None in ticks and time.time() - moment > _BLIND_SECONDS

    def _stays_idle(self, runs: Sequence[Run]) -> bool:
        """Whether automation, when it looked, has not started anything."""
        is_filled = all(asset.is_made for asset in self._assets)
        # The daemon needs up to 30 s to notice that a backfill has nothing more to do.
        done = all(
            is_filled and states and ENDED.issuperset(states) for states in self.api.backfills()
        )
        return done and len(self.api.runs(self.since)) == len(runs)

    def _details(self, run: Run) -> RunDetails:
        if run.id in self._ended:
            return self._ended[run.id]
        # A thousand materialisations are too many to ask for every second.
        is_large = any(asset.partitions > 1 and run.makes(asset) for asset in self._assets)
        details = self.api.details(run.id, materializations=run.is_over or not is_large)
        if run.is_over:
            self._ended[run.id] = details
        return details


def progress_of(
    asset: Asset, runs: Sequence[Run], details: Mapping[str, RunDetails]
) -> AssetProgress:
    """What runs, oldest first, did to an asset; runs without details have not begun."""
    numbers: defaultdict[str, float] = defaultdict(float)
    seconds = []
    for run_details in details.values():
        for materialization in _one_per_step(asset, run_details):
            for name, number in materialization.numbers.items():
                numbers[name] = number if name == ROW_COUNT else numbers[name] + number
            seconds.append(run_details.steps[materialization.step].seconds)
    return AssetProgress(
        asset=asset,
        state=_state(asset, runs, details),
        numbers=numbers,
        steps=len(seconds),
        seconds=sum(seconds),
    )


def _one_per_step(asset: Asset, details: RunDetails) -> Iterator[Materialization]:
    """A step that makes many partitions tells the same about each of them."""
    by_step = {
        materialization.step: materialization
        for materialization in details.materializations
        if materialization.asset == asset.name
    }
    yield from by_step.values()


def _state(asset: Asset, runs: Sequence[Run], details: Mapping[str, RunDetails]) -> str:
    for run in reversed(runs):
        if run.makes(asset):
            return _state_in(run, asset, details.get(run.id))
    return "kept" if asset.is_made else "waiting"


def _state_in(run: Run, asset: Asset, details: RunDetails | None) -> str:
    if details is None:
        return "queued"
    if any(_one_per_step(asset, details)):
        return "done"
    if run.is_over:
        return "failed"
    return "running" if asset.step in details.steps else "queued"
