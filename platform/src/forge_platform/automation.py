"""When assets run by themselves: declarative automation, across code locations too."""

from __future__ import annotations

import os

import dagster as dg

from forge_platform.environment import current_environment

LOCATION = "forge/location"

Condition = dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]


def on_upstream_change() -> Condition:
    """Runs an asset when the data of an upstream asset changed, in whichever location.

    Unlike Dagster's ``eager()`` it looks at data versions, which are Iceberg snapshots here:
    an upstream run that changed nothing starts nothing. It waits until no upstream asset is
    running and every blocking check of theirs has passed. What changes upstream while the asset is
    being made is not forgotten when that ends, as it would be with ``eager()``.
    """
    return (
        dg.AutomationCondition.in_latest_time_window()
        & (
            _unhandled(_newly_missing() | _upstream_changed(together=True))
            | _not_yet_read(_upstream_changed(together=False))
        )
        & _ready()
    ).with_label("on_upstream_change")


def on_missing_partitions() -> Condition:
    """Fills every partition that was never made, as one backfill, once its upstream is there."""
    return (_unhandled(_newly_missing()) & _ready()).with_label("on_missing_partitions")


def automation_sensor(location: str) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates a location's automation conditions, on unless in dev."""
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=current_environment().sensor_status,
        minimum_interval_seconds=int(os.environ.get("FORGE_AUTOMATION_INTERVAL_SECONDS", "30")),
        run_tags=location_tags(location),
        description="Runs this location's assets when what they depend on has changed.",
    )


def location_tags(location: str) -> dict[str, str]:
    """Tags of every run of a location: the instance lets runs with equal ones not overlap.

    Two runs that derive the same table at once would both be right when they began, and the
    slower one would put back what the other has changed.
    """
    return {LOCATION: location}


def _unhandled(news: Condition) -> Condition:
    """News since the asset was last requested or made; like Dagster's ``since_last_handled``.

    Dagster's also forgets what is new at the first evaluation, so a location that is loaded
    after its upstream was made would wait for the next change.
    """
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    return news.since(handled)


def _not_yet_read(news: Condition) -> Condition:
    """News that came after the asset's last run began, which reads its upstream then.

    When both are noticed at once it may have come after; at worst a run finds nothing to do. So
    does one after a job's run, which does not tell what else it makes.
    """
    condition = dg.AutomationCondition
    begun = condition.newly_requested() | condition.in_progress().newly_true()
    return news.since(begun & ~news)


def _newly_missing() -> Condition:
    missing = dg.AutomationCondition.missing()
    # What is missing when the condition is first evaluated never becomes so.
    return missing.newly_true() | (missing & dg.AutomationCondition.initial_evaluation())


def _upstream_changed(*, together: bool) -> Condition:
    """New data upstream, of runs that are to make the asset too, or of all others."""
    condition = dg.AutomationCondition
    changed, own = condition.data_version_changed(), condition.executed_with_root_target()
    if together:
        return condition.any_deps_match(changed & own)
    return condition.any_deps_match((changed & ~own) | condition.will_be_requested())


def _ready() -> Condition:
    return (
        ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    )
