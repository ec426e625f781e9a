"""The library that the code locations share: resources, IO manager, contracts, factories.

Everything public is named here, in ``contracts`` and in ``testing``; other submodules are the
library's own.
"""

from forge_platform.automation import (
    location_tags,
    on_missing_partitions,
    on_upstream_change,
)
from forge_platform.checks import contract_check, row_check
from forge_platform.contracts import CONTRACTS, TableContract
from forge_platform.deletes import DeletesConfig, remove_marked, remove_missing_keys
from forge_platform.environment import Environment, check_variables, current_environment
from forge_platform.errors import (
    RETRY_TRANSIENT,
    ApiResponseError,
    AuthenticationFailed,
    CommitConflict,
    ConfigurationError,
    ContractViolation,
    ForgeError,
    PermanentError,
    SchemaMismatch,
    SourceSchemaError,
    SourceUnavailable,
    StorageFull,
    TransientError,
)
from forge_platform.extraction import ExtractConfig, Recent, SourceTable, extract
from forge_platform.incremental import RunMode, RunModeConfig, Work, keys_of, plan_work
from forge_platform.io_manager import IcebergIOManager, table_options
from forge_platform.landing import FileSchema, load_files, not_loaded
from forge_platform.location import (
    api_resource,
    build_definitions,
    database_resource,
    store_resource,
)
from forge_platform.logs import event
from forge_platform.maintenance import CareOptions
from forge_platform.metadata import picture, snapshots, written
from forge_platform.resources.api import ApiResource
from forge_platform.resources.database import DatabaseResource
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.resources.object_store import S3Resource
from forge_platform.sensors.files import file_sensor
from forge_platform.sensors.new_data import new_data_sensor
from forge_platform.serving import sync_table
from forge_platform.sources import WATERMARK_OF, source_metadata
from forge_platform.tables import Changes, TableView, TableWrite

__all__ = [
    "CONTRACTS",
    "RETRY_TRANSIENT",
    "WATERMARK_OF",
    "ApiResource",
    "ApiResponseError",
    "AuthenticationFailed",
    "CareOptions",
    "Changes",
    "CommitConflict",
    "ConfigurationError",
    "ContractViolation",
    "DatabaseResource",
    "DeletesConfig",
    "Environment",
    "ExtractConfig",
    "FileSchema",
    "ForgeError",
    "IcebergIOManager",
    "IcebergResource",
    "PermanentError",
    "Recent",
    "RunMode",
    "RunModeConfig",
    "S3Resource",
    "SchemaMismatch",
    "SourceSchemaError",
    "SourceTable",
    "SourceUnavailable",
    "StorageFull",
    "TableContract",
    "TableView",
    "TableWrite",
    "TransientError",
    "Work",
    "api_resource",
    "build_definitions",
    "check_variables",
    "contract_check",
    "current_environment",
    "database_resource",
    "event",
    "extract",
    "file_sensor",
    "keys_of",
    "load_files",
    "location_tags",
    "new_data_sensor",
    "not_loaded",
    "on_missing_partitions",
    "on_upstream_change",
    "picture",
    "plan_work",
    "remove_marked",
    "remove_missing_keys",
    "row_check",
    "snapshots",
    "source_metadata",
    "store_resource",
    "sync_table",
    "table_options",
    "written",
]
