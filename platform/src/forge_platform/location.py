"""Builds a code location's definitions: resources, policy and links, the same everywhere."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg

from forge_platform.automation import automation_sensor, location_tags
from forge_platform.contracts import CONTRACTS, IO_MANAGER_KEY, NAMESPACE, TableContract
from forge_platform.environment import (
    CATALOG_VARIABLES,
    api_variable,
    current_environment,
    database_variables,
    store_variable,
)
from forge_platform.errors import ConfigurationError
from forge_platform.iceberg.failures import translating
from forge_platform.io_manager import IcebergIOManager
from forge_platform.logs import LOGGERS
from forge_platform.maintenance import table_care
from forge_platform.metadata import DOCUMENTATION, documentation
from forge_platform.resources.api import ApiResource
from forge_platform.resources.database import DatabaseResource
from forge_platform.resources.from_environment import FromEnvironment
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.resources.object_store import S3Resource


def build_definitions(  # noqa: PLR0913 - the sections of a table of contents
    location: str,
    *,
    assets: Sequence[dg.AssetsDefinition],
    reads: Sequence[TableContract] = (),
    checks: Sequence[dg.AssetChecksDefinition] = (),
    jobs: Sequence[Any] = (),
    schedules: Sequence[dg.ScheduleDefinition] = (),
    sensors: Sequence[dg.SensorDefinition] = (),
    resources: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """The definitions of one code location.

    Args:
        location: its name; also its asset group's and its Iceberg namespace.
        assets: what it produces. The care of their tables is added, with its job and schedule.
        reads: contracts of the tables of other locations that it reads.
        checks: asset checks.
        jobs: jobs.
        schedules: schedules; off in dev.
        sensors: sensors; off in dev. The automation sensor is added.
        resources: resources beside Iceberg and its IO manager.
    """
    care = table_care(location, assets)
    linked = _with_links(location, assets)
    for asset in (*linked, *checks):
        _translate_failures(asset)
    return dg.Definitions(
        assets=[
            *linked,
            *care.assets,
            *(contract.spec() for contract in reads),
        ],
        asset_checks=checks,
        jobs=[*jobs, *care.jobs],
        schedules=[*schedules, *care.schedules],
        sensors=[*sensors, automation_sensor(location)],
        resources=_resources(location, resources or {}),
        loggers=LOGGERS,
        # One process a run: a step costs no second start of the interpreter and its imports.
        executor=dg.in_process_executor,
    )


def _resources(location: str, others: Mapping[str, Any]) -> dict[str, Any]:
    """A location's resources, with the catalog and the IO manager that all locations have.

    Each one made from the environment checks the variables of all of them.
    """
    environment = current_environment()
    prefix = {"namespace_prefix": environment.namespace_prefix}
    iceberg = FromEnvironment(IcebergResource, CATALOG_VARIABLES, prefix)
    found = {"iceberg": iceberg, **others}
    waiting = {key: made for key, made in found.items() if isinstance(made, FromEnvironment)}
    required = [variable for made in waiting.values() for variable in made.variables.values()]
    resources = {**found, **{key: made.definition(required) for key, made in waiting.items()}}
    io_manager = IcebergIOManager(
        iceberg=resources["iceberg"], namespace=location, write_mode=environment.write_mode
    )
    return {**resources, IO_MANAGER_KEY: io_manager, "io_manager": io_manager}


def _translate_failures(asset: dg.AssetsDefinition) -> None:
    """Has the failures of table files, which an asset meets where it reads lazily, be ours."""
    if isinstance(asset.node_def, dg.OpDefinition):
        # Dagster has no public way to put something around the function of an asset.
        function: Any = asset.op.compute_fn
        asset.op._compute_fn = function._replace(  # noqa: SLF001
            decorated_fn=translating(function.decorated_fn)
        )


def _with_links(
    location: str, assets: Sequence[dg.AssetsDefinition]
) -> Sequence[dg.AssetsDefinition]:
    """Adds namespace, documentation and source links to every asset."""
    linked = dg.map_asset_specs(lambda spec: _described(location, spec), assets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # code references are in beta
        referenced = _with_code_references(location, linked)
    return [asset for asset in referenced if isinstance(asset, dg.AssetsDefinition)]


def _with_code_references(location: str, assets: Sequence[dg.AssetsDefinition]) -> Sequence[object]:
    """Links to the local file, or to the repository that ``FORGE_SOURCE_URL`` names."""
    referenced = dg.with_source_code_references(assets)
    if source := os.environ.get("FORGE_SOURCE_URL"):
        referenced = dg.link_code_references_to_git(
            referenced,
            git_url=source,
            git_branch=os.environ.get("FORGE_REVISION") or "main",
            file_path_mapping=dg.AnchorBasedFilePathMapping(
                local_file_anchor=_package_folder(location),
                file_anchor_path_in_repository=f"code_locations/{location}/src/{location}",
            ),
        )
    return referenced


def _package_folder(location: str) -> Path:
    spec = find_spec(location)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"The code location {location} is not an installed package.")
    return Path(spec.origin).parent


def _described(location: str, spec: dg.AssetSpec) -> dg.AssetSpec:
    link = documentation(f"assets.md#{spec.key.path[-1]}")
    described = spec.merge_attributes(
        metadata={NAMESPACE: location, DOCUMENTATION: link}, tags=location_tags(location)
    )
    owned = described.replace_attributes(group_name=location, owners=[f"team:{location}"])
    contract = next((found for found in CONTRACTS if found.asset_key == spec.key), None)
    if contract is None:
        return owned
    # The daemon watches the age also while nothing runs, and so no check does.
    fresh = dg.FreshnessPolicy.time_window(fail_window=contract.max_age)
    return owned.replace_attributes(freshness_policy=fresh)


def database_resource(prefix: str) -> FromEnvironment:
    """A PostgreSQL database from the variables ``<prefix>_HOST``, ``<prefix>_PORT`` and so on."""
    return FromEnvironment(DatabaseResource, database_variables(prefix))


def store_resource(variable: str) -> FromEnvironment:
    """An S3 prefix or a local folder, from the variable that holds its URI."""
    return FromEnvironment(S3Resource, {"uri": store_variable(variable)})


def api_resource(variable: str) -> FromEnvironment:
    """An HTTP API, from the variable that holds its URL."""
    return FromEnvironment(ApiResource, {"base_url": api_variable(variable)})
