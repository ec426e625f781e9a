"""The care of a location's tables: an asset for each table, one job, one nightly schedule."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import dagster as dg

from forge_platform.automation import location_tags
from forge_platform.environment import current_environment
from forge_platform.errors import RETRY_TRANSIENT, ConfigurationError
from forge_platform.io_manager import KEY, WRITE_MODE
from forge_platform.metadata import DOCUMENTATION, documentation
from forge_platform.resources.iceberg import IcebergResource

CARE = "forge/care"
GROUP = "table_care"
JOB = "table_care"
SCHEDULE = "table_care_schedule"


@dataclass(frozen=True, kw_only=True)
class CareOptions:
    """When a table is cared for, and how much of its past it keeps.

    Attributes:
        small_bytes: files below this size are put together.
        group_bytes: as many bytes of files are put together at once, in memory if sorted.
        min_files: as many small files of a partition make it worthwhile.
        deleted_fraction: share of deleted rows from which a file is written anew.
        most_delete_files: a data file with more files of deletes than this is written anew.
        sort: whether rows that are put together are sorted by the table's key.
        keep_days: snapshots younger than this stay.
        keep_snapshots: as many of the newest snapshots stay, however old.
        metadata_versions: as many earlier metadata files stay.
        orphan_days: files that nothing refers to stay for so long: one of them may belong to a
            commit in progress.
    """

    small_bytes: int = 8 * 1024 * 1024
    group_bytes: int = 32 * 1024 * 1024
    min_files: int = 5
    deleted_fraction: float = 0.1
    most_delete_files: int = 10
    sort: bool = True
    keep_days: float = 7
    keep_snapshots: int = 20
    metadata_versions: int = 50
    orphan_days: float = 3

    def __post_init__(self) -> None:
        lowest = {"min_files": 2, "keep_snapshots": 1, "metadata_versions": 1, "orphan_days": 1}
        for field in fields(self):
            value, least = getattr(self, field.name), lowest.get(field.name, 0)
            if value < least:
                raise ConfigurationError(f"{field.name} is {value}: it must be at least {least}.")

    def metadata(self) -> dict[str, Any]:
        """Asset metadata that gives the asset's table these thresholds."""
        return {CARE: asdict(self)}


@dataclass(frozen=True)
class TableCare:
    """What a location gets for the care of its tables."""

    assets: list[dg.AssetsDefinition]
    jobs: list[Any]
    schedules: list[dg.ScheduleDefinition]


def table_care(location: str, assets: Iterable[dg.AssetsDefinition]) -> TableCare:
    """Care for every table that a location's assets write, each night.

    Args:
        location: the code location; also the tables' namespace.
        assets: its assets; those that say how their table is written get an asset
            ``<asset>_care``.
    """
    specs = [spec for asset in assets for spec in asset.specs if WRITE_MODE in spec.metadata]
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.groups(GROUP),
        description="Compacts tables, expires snapshots, removes files that nothing refers to.",
    )
    schedule = dg.ScheduleDefinition(
        name=SCHEDULE,
        job=job,
        cron_schedule="30 3 * * *",
        default_status=current_environment().schedule_status,
        description="The nightly care of this location's tables.",
    )
    return TableCare([_care_of(location, spec) for spec in specs], [job], [schedule])


def _care_of(location: str, spec: dg.AssetSpec) -> dg.AssetsDefinition:
    name = spec.key.path[-1]
    table = f"{location}.{name}"
    options = options_of(spec.metadata)
    key = tuple(filter(None, str(spec.metadata.get(KEY, "")).split(",")))

    @dg.asset(
        name=f"{name}_care",
        group_name=GROUP,
        owners=[f"team:{location}"],
        tags=location_tags(location),
        kinds={"iceberg"},
        metadata={**asdict(options), DOCUMENTATION: documentation("table-care.md")},
        description=f"Keeps the table {table} small and quick to read; its rows stay as they are.",
        retry_policy=RETRY_TRANSIENT,
    )
    def care_asset(iceberg: IcebergResource) -> dg.MaterializeResult[None]:
        from forge_platform.iceberg.maintenance.care import Neighbours, care

        found = iceberg.find(table)
        if found is None:
            return dg.MaterializeResult(metadata={"note": f"{table} does not exist yet."})
        with iceberg.failures():
            neighbours = Neighbours.of(iceberg.catalog())
            done = care(found, table, options, neighbours=neighbours, key=key)
        return dg.MaterializeResult(metadata=done)

    return care_asset


def options_of(metadata: Mapping[str, Any]) -> CareOptions:
    """The thresholds that an asset's metadata gives its table."""
    told = metadata.get(CARE, {})
    given: Any = told.value if isinstance(told, dg.JsonMetadataValue) else told
    return CareOptions(**given)
