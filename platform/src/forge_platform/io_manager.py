"""The IO manager: what assets return becomes Iceberg tables, what they ask for is read back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from pydantic import Field, PrivateAttr

from forge_platform.contracts import NAMESPACE
from forge_platform.errors import ConfigurationError
from forge_platform.logs import log_rows
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.tables import Frame, Position, TableWrite, WriteMode

if TYPE_CHECKING:
    from forge_platform.iceberg.commit import CommitResult
    from forge_platform.iceberg.pruning import Scope
    from forge_platform.iceberg.view import IcebergView
    from forge_platform.iceberg.write import TableOptions, WriteRequest

KEY = "forge/key"
ORDER_BY = "forge/order_by"
PARTITION_BY = "forge/partition_by"
WRITE_MODE = "forge/write_mode"
MERGE_ON_READ = "forge/merge_on_read"
FIXED_SCHEMA = "forge/fixed_schema"
PINNED_SNAPSHOT = "forge/snapshot/"
"""Beginning of run tags that pin upstream tables: ``forge/snapshot/<namespace>.<asset>``."""

_MODES = ("append", "overwrite", "merge")


def table_options(
    *,
    mode: WriteMode,
    key: tuple[str, ...] = (),
    order_by: str | None = None,
    partition_by: str | None = None,
    merge_on_read: bool = False,
    fixed_schema: bool = False,
) -> dict[str, Any]:
    """Asset metadata that says how the asset's table is written.

    Args:
        mode: ``merge`` by key; ``overwrite`` everything (with a key, only what differs is
            written); ``append``, which with a key inserts only rows whose key is new.
        key: columns that identify a row.
        order_by: column that tells which of two versions of a row is newer.
        partition_by: column that Dagster's partitions are mapped to: by hour or month where the
            partitions are, by day for other windows of time, else by its values.
        merge_on_read: a merge writes which rows are gone and leaves the files that hold them to
            readers and to compaction: for a large table of which every run changes a little
            everywhere.
        fixed_schema: a new column or a wider type in the rows is refused instead of applied.

    Raises:
        ConfigurationError: the name of a key's column has a comma.
    """
    if wrong := [column for column in key if "," in column]:
        raise ConfigurationError(
            f"The key's column {wrong[0]!r} has a comma in its name: rename it in the asset."
        )
    options = {
        WRITE_MODE: mode,
        KEY: ",".join(key),
        ORDER_BY: order_by,
        PARTITION_BY: partition_by,
        MERGE_ON_READ: merge_on_read,
        FIXED_SCHEMA: fixed_schema,
    }
    return {name: value for name, value in options.items() if value}


class IcebergIOManager(dg.ConfigurableIOManager):
    """Writes assets to ``<namespace>.<asset>`` and reads them back, pinned at one snapshot.

    Takes and gives Polars DataFrames and LazyFrames, Arrow tables and record-batch readers,
    and :class:`TableWrite` and :class:`TableView`, which also carry watermarks and changes.
    Watermark, upstream snapshots and the run's identity are properties of the snapshot that
    holds the rows.
    """

    iceberg: dg.ResourceDependency[IcebergResource]
    namespace: str = Field(description="The code location; an asset's table is namespace.asset.")
    write_mode: str | None = Field(
        default=None,
        description="Wins over every asset's own mode: append, overwrite or merge. With "
        "overwrite no watermark is kept, so every run starts from the beginning; a run that was "
        "told to read only a part adds it in the asset's own mode.",
    )

    _pins: dict[tuple[str, str], "IcebergView"] = PrivateAttr(default_factory=dict)
    """What a run has read or written, by run and table: all its steps read these snapshots.

    Their ids would not do: some catalogs show the newest snapshot only.
    """

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Writes an asset's rows and describes the table in the materialisation's metadata."""
        from forge_platform.iceberg.describe import describe
        from forge_platform.iceberg.view import IcebergView

        if obj is None:
            return
        write = obj if isinstance(obj, TableWrite) else TableWrite(rows=cast("Frame", obj))
        table = f"{self.namespace}.{context.asset_key.path[-1]}"
        result = self._write(context, table, write)
        # Downstream automation looks at the data version: a run that changed nothing keeps it.
        version = dg.DataVersion(result.data_version)
        context.step_context.set_data_version(context.asset_key, version)
        view = IcebergView(result.table, table, result.snapshot_id)
        self._pins[context.run_id, table] = view
        rows = _rows(write, result)
        log_rows(context.log, table, **rows)
        with self.iceberg.failures():
            description = describe(view, with_sample=result.committed)
            overlap = _overlap(context, view, write.continues)
        context.add_output_metadata({**rows, **description, **overlap, **write.metadata})

    def load_input(self, context: dg.InputContext) -> object:
        """Reads an upstream table in the type that the asset's parameter is annotated with."""
        from forge_platform.iceberg.read import load

        table = self._table(context)
        pin = (context.step_context.run_id, table)
        wanted = _pinned(context, table)
        known = None if wanted else self._pins.get(pin)
        view = self._renewed(known) if known else self.iceberg.view(table, wanted)
        self._pins[pin] = view
        context.log.debug("reading %s at snapshot %s", view.identifier, view.snapshot_id)
        context.add_input_metadata({"snapshot_id": str(view.snapshot_id)})
        with self.iceberg.failures():
            return load(view, context.dagster_type.typing_type, _input_scope(context))

    def _renewed(self, view: "IcebergView") -> "IcebergView":
        """The same snapshot with the table's later history, if the catalog shows it still.

        What another run has derived since is then known to be derived from a later one.
        """
        from forge_platform.iceberg.view import IcebergView

        found = self.iceberg.find(view.identifier)
        if found is None or view.snapshot_id is None or not found.snapshot_by_id(view.snapshot_id):
            return view
        return IcebergView(found, view.identifier, view.snapshot_id)

    def _write(self, context: dg.OutputContext, table: str, write: TableWrite) -> "CommitResult":
        from forge_platform.iceberg.commit import unchanged
        from forge_platform.iceberg.write import write_table

        if write.rows is None:
            return unchanged(self.iceberg.view(table).table)
        with self.iceberg.failures():
            return write_table(
                self.iceberg.catalog(),
                self.iceberg.identifier(table),
                self._request(context, write, write.rows),
                _options(context),
            )

    def _table(self, context: dg.InputContext) -> str:
        upstream = context.upstream_output
        metadata = (upstream.definition_metadata if upstream else None) or {}
        namespace = metadata.get(NAMESPACE) or self.namespace
        return f"{namespace}.{context.asset_key.path[-1]}"

    def _request(self, context: dg.OutputContext, write: TableWrite, rows: Frame) -> "WriteRequest":
        from forge_platform.iceberg.write import WriteRequest

        managed = self.write_mode != "overwrite"
        return WriteRequest(
            rows=rows,
            mode=self._mode(context, write),
            scope=_scope(context, _options(context).partition_by),
            deleted_keys=write.deleted_keys,
            properties=_properties(context, write, managed=managed),
            carry=managed,
            continues=write.continues if managed else None,
            alone=write.alone and managed,
        )

    def _mode(self, context: dg.OutputContext, write: TableWrite) -> WriteMode:
        own = write.mode or (context.definition_metadata or {}).get(WRITE_MODE, "overwrite")
        adds = write.is_part and self.write_mode == "overwrite"
        mode = own if adds else self.write_mode or own
        if write.is_part and mode == "overwrite":
            raise ConfigurationError(
                f"{context.asset_key.to_user_string()} read only a part of its rows and its write "
                "mode is overwrite, so all others would be lost: read everything, or give the "
                "asset the mode merge or append."
            )
        overlaps = write.window is not None and not context.has_asset_partitions
        if mode == "append" and overlaps and not _options(context).key:
            raise ConfigurationError(
                f"{context.asset_key.to_user_string()} appends and has no key. Every run reads "
                "again what changed shortly before the watermark, so rows would be there several "
                "times: give the asset a key."
            )
        if mode not in _MODES:
            raise ConfigurationError(
                f"The write mode of {context.asset_key.to_user_string()} is {mode!r}: "
                f"use one of {', '.join(_MODES)}."
            )
        return cast(WriteMode, mode)


def _options(context: dg.OutputContext) -> "TableOptions":
    from forge_platform.iceberg.write import TableOptions

    metadata = context.definition_metadata or {}
    return TableOptions(
        key=tuple(filter(None, str(metadata.get(KEY, "")).split(","))),
        order_by=metadata.get(ORDER_BY),
        partition_by=metadata.get(PARTITION_BY),
        granularity=_granularity(context),
        on_read=bool(metadata.get(MERGE_ON_READ)),
        fixed_schema=bool(metadata.get(FIXED_SCHEMA)),
    )


def _granularity(context: dg.OutputContext) -> str:
    if not context.has_asset_partitions:
        return "value"
    match context.asset_partitions_def:
        case dg.HourlyPartitionsDefinition():
            return "hour"
        case dg.MonthlyPartitionsDefinition():
            return "month"
        case dg.TimeWindowPartitionsDefinition():
            return "day"  # weeks and others, for which Iceberg has nothing
    return "value"


def _scope(context: dg.OutputContext | dg.InputContext, column: str | None) -> "Scope | None":
    """The partitions of this run as a part of the table."""
    from forge_platform.iceberg.pruning import Scope

    if not context.has_asset_partitions:
        return None
    if column is None:
        raise ConfigurationError(
            f"{context.asset_key.to_user_string()} is partitioned but does not say by which "
            f"column: add the metadata {PARTITION_BY} to the asset."
        )
    if isinstance(context.asset_partitions_def, dg.TimeWindowPartitionsDefinition):
        window = context.asset_partitions_time_window
        return Scope(column, window=(window.start, window.end))
    return Scope(column, values=tuple(context.asset_partition_keys))


def _pinned(context: dg.InputContext, table: str) -> int | None:
    """The snapshot at which the run is to read a table, if it says so."""
    pinned = context.step_context.dagster_run.tags.get(f"{PINNED_SNAPSHOT}{table}")
    if pinned is not None and not pinned.isdecimal():
        raise ConfigurationError(
            f"The run tag {PINNED_SNAPSHOT}{table} is {pinned!r}: use the snapshot_id that the "
            "run which is repeated has in its metadata."
        )
    return int(pinned) if pinned else None


def _input_scope(context: dg.InputContext) -> "Scope | None":
    upstream = context.upstream_output
    metadata = (upstream.definition_metadata if upstream else None) or {}
    column = metadata.get(PARTITION_BY)
    return _scope(context, column) if column else None


def _properties(
    context: dg.OutputContext, write: TableWrite, *, managed: bool
) -> Mapping[str, str]:
    from forge_platform.iceberg.state import RUN_ID, WRITE_ID, as_properties

    identity = {RUN_ID: context.run_id, WRITE_ID: _write_id(context)}
    return {**identity, **as_properties(write)} if managed else identity


_RETRIES = {"dagster/retry_number", "dagster/is_resume_retry"}


def _write_id(context: dg.OutputContext) -> str:
    """The same for a run and its retries, so that an append is done once."""
    run_id = _first_attempt(context.step_context.dagster_run, context.step_context.instance)
    partition = context.asset_partition_keys if context.has_asset_partitions else ()
    return "/".join([run_id, context.asset_key.to_user_string(), *partition[:1], *partition[-1:]])


def _first_attempt(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """The run that this one, perhaps over several others, is a retry of; else its own id."""
    if run.parent_run_id is None or not _RETRIES & run.tags.keys():
        return run.run_id
    parent = instance.get_run_by_id(run.parent_run_id)
    return run.parent_run_id if parent is None else _first_attempt(parent, instance)


def _overlap(
    context: dg.OutputContext, view: "IcebergView", continues: Position | None
) -> Mapping[str, str]:
    """Runs of the same asset that committed while this one read and wrote."""
    from forge_platform.iceberg.state import other_runs

    since = continues.snapshot_id if continues else None
    others = other_runs(view.table, since, context.run_id) if since is not None else []
    if not others:
        return {}
    context.log.warning(
        "%s was written by other runs while this one was at work: %s. Nothing is lost, but rows "
        "were read twice: limit the asset to one run at a time.",
        view.identifier,
        ", ".join(others),
    )
    return {"overlapping_runs": ", ".join(others)}


def _rows(write: TableWrite, result: "CommitResult") -> dict[str, int]:
    rejected = {} if write.rows_rejected is None else {"rows_rejected": write.rows_rejected}
    return {
        "rows_read": result.received if write.rows_read is None else write.rows_read,
        "rows_inserted": result.inserted,
        "rows_updated": result.updated,
        "rows_deleted": result.deleted,
        "rows_unchanged": result.unchanged,
        **rejected,
        "bytes": result.bytes_written,
    }
