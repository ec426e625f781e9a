"""What the variables of the environment name: the catalog, the source, a location's assets."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import dagster as dg

from forge_platform.environment import (
    CATALOG_VARIABLES,
    ENVIRONMENTS,
    current_environment,
    database_variables,
    require,
)
from forge_platform.errors import ConfigurationError
from forge_platform.resources.database import DatabaseResource
from forge_platform.resources.iceberg import IcebergResource

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forge_platform.environment import Variable


def open_iceberg() -> IcebergResource:
    """The catalog, with the environment's prefix."""
    prefix = current_environment().namespace_prefix
    return IcebergResource(**_read(CATALOG_VARIABLES), namespace_prefix=prefix)


def open_database(prefix: str) -> DatabaseResource:
    """The database of the variables ``<prefix>_HOST`` and so on."""
    return DatabaseResource(**_read(database_variables(prefix)))


def _read(variables: Mapping[str, Variable]) -> dict[str, Any]:
    require(variables.values())
    return {field: os.environ[variable.name] for field, variable in variables.items()}


def table_names(iceberg: IcebergResource) -> list[str]:
    """Every table of the environment as ``namespace.asset``, without its prefix."""
    with iceberg.failures():
        catalog = iceberg.catalog()
        found = [
            ".".join(identifier)
            for namespace in catalog.list_namespaces()
            for identifier in catalog.list_tables(namespace)
        ]
    prefix = iceberg.namespace_prefix
    return sorted(name.removeprefix(prefix) for name in found if _prefix(name) == prefix)


def _prefix(name: str) -> str | None:
    """The prefix of the environment that a table belongs to: the longest one that fits."""
    prefixes = {environment.namespace_prefix for environment in ENVIRONMENTS.values()}
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


def full_name(iceberg: IcebergResource, table: str) -> str:
    """The table's ``namespace.asset``, where the asset's name is enough.

    Raises:
        ConfigurationError: there is no such table, or more than one.
    """
    known = table_names(iceberg)
    found = [name for name in known if table in (name, name.rpartition(".")[2])]
    if len(found) == 1:
        return found[0]
    choice = ", ".join(found or known) or "none: materialise an asset first"
    raise ConfigurationError(
        f"{table!r} names {'no' if not found else 'more than one'} table of the environment "
        f"{current_environment().name}. There are: {choice}."
    )


def asset_metadata(table: str) -> Mapping[str, Any]:
    """The metadata of the asset that makes a table, if its code location is installed here."""
    location, _, name = table.partition(".")
    try:
        module = importlib.import_module(f"{location}.definitions")
    except ModuleNotFoundError:
        return {}
    definitions: dg.Definitions = module.defs
    specs = (
        spec
        for asset in definitions.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
    )
    return next((spec.metadata for spec in specs if spec.key == dg.AssetKey(name)), {})
