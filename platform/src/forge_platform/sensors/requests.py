"""Requests a run for what a sensor saw, unless a run that reads the same is on its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

_WAITING = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED)
_RUNNING = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


@dataclass(frozen=True)
class RunTarget:
    """What a sensor runs.

    Attributes:
        job_name: a job of the sensor's location.
        assets: the job's assets to make; none are all.
    """

    job_name: str
    assets: Sequence[str] = ()

    def request(
        self,
        context: dg.SensorEvaluationContext,
        *,
        run_key: str,
        cursor: str,
        tags: Mapping[str, str],
    ) -> dg.SensorResult | dg.SkipReason:
        """One run for the news that a sensor found.

        A run that waits in the queue will read the news itself: the cursor moves on without a
        request. One that is under way may have read before: the cursor stays, and the next
        look decides. So a source that changes faster than it is read never piles up runs.

        Args:
            context: the sensor's.
            run_key: identifies the news.
            cursor: the sensor's position after the news.
            tags: of the run.
        """
        if self._has_run(context.instance, _WAITING):
            reason = f"News, and a run of {self.job_name} that will read them waits in the queue."
            return dg.SensorResult(skip_reason=reason, cursor=cursor)
        if self._has_run(context.instance, _RUNNING):
            return dg.SkipReason(f"News, but {self.job_name} is running: the next look decides.")
        selection = [dg.AssetKey(asset) for asset in self.assets] or None
        request = dg.RunRequest(run_key=run_key, tags=tags, asset_selection=selection)
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    def _has_run(
        self, instance: dg.DagsterInstance, statuses: Sequence[dg.DagsterRunStatus]
    ) -> bool:
        """Whether a run in one of these states makes all of the assets."""
        wanted = {dg.AssetKey(asset) for asset in self.assets}
        job_runs = dg.RunsFilter(job_name=self.job_name, statuses=list(statuses))
        return any(
            not run.asset_selection or wanted <= run.asset_selection
            for run in instance.get_runs(job_runs)
        )
