"""The library that the code locations share: resources, IO manager, contracts, factories.

Everything public is named here; submodules are the library's own.
"""

from forge_platform.automation import on_missing_partitions, on_upstream_change
from forge_platform.checks import contract_check, row_check
from forge_platform.contracts import CONTRACTS, TableContract
from forge_platform.environment import Environment, check_variables, current_environment
from forge_platform.errors import (
    ApiResponseError,
    AuthenticationFailed,
    CommitConflict,
    ConfigurationError,
    ForgeError,
    PermanentError,
    SchemaMismatch,
    SourceSchemaError,
    SourceUnavailable,
    StorageFull,
    TransientError,
)
from forge_platform.incremental import RunMode, RunModeConfig, Work, keys_of, plan_work
from forge_platform.io_manager import IcebergIOManager, table_options
from forge_platform.location import RETRY_TRANSIENT, build_definitions
from forge_platform.logs import event
from forge_platform.metadata import picture, snapshots
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.tables import Changes, TableView, TableWrite

__all__ = [
    "CONTRACTS",
    "RETRY_TRANSIENT",
    "ApiResponseError",
    "AuthenticationFailed",
    "Changes",
    "CommitConflict",
    "ConfigurationError",
    "Environment",
    "ForgeError",
    "IcebergIOManager",
    "IcebergResource",
    "PermanentError",
    "RunMode",
    "RunModeConfig",
    "SchemaMismatch",
    "SourceSchemaError",
    "SourceUnavailable",
    "StorageFull",
    "TableContract",
    "TableView",
    "TableWrite",
    "TransientError",
    "Work",
    "build_definitions",
    "check_variables",
    "contract_check",
    "current_environment",
    "event",
    "keys_of",
    "on_missing_partitions",
    "on_upstream_change",
    "picture",
    "plan_work",
    "row_check",
    "snapshots",
    "table_options",
]
