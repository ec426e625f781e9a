"""What a snapshot says of itself: watermark, upstream snapshots, and the run that wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from forge_platform.iceberg.history import ancestors, properties_of
from forge_platform.tables import Position, TableWrite

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

WATERMARK = "forge.watermark"
WINDOW = "forge.window"
INPUT_PREFIX = "forge.input."
RUN_ID = "forge.run-id"
WRITE_ID = "forge.write-id"
COMMIT_ID = "forge.commit-id"
DATA_VERSION = "forge.data-version"


def state(table: Table, snapshot_id: int | None = None) -> Mapping[str, str]:
    """Watermark, data version and upstream snapshots of the newest snapshot that carries any.

    Every commit of this library carries them on; another engine's commit (a compaction for
    instance) does not, so its ancestors are asked. A property that was set to nothing is taken
    back.

    Args:
        table: the table.
        snapshot_id: the newest snapshot to look at; the current one when it is None.
    """
    for snapshot in ancestors(table, snapshot_id or table.metadata.current_snapshot_id):
        found = properties_of(snapshot)
        if COMMIT_ID in found:
            return {name: value for name, value in found.items() if is_lasting(name) and value}
    return {}


def position(table: Table) -> Position:
    """How far the table follows what it is made from."""
    known = state(table)
    inputs = {
        name.removeprefix(INPUT_PREFIX): int(value)
        for name, value in known.items()
        if name.startswith(INPUT_PREFIX)
    }
    return Position(
        watermark=known.get(WATERMARK),
        window=known.get(WINDOW),
        inputs=inputs,
        snapshot_id=table.metadata.current_snapshot_id,
    )


def as_properties(position: Position | TableWrite) -> Mapping[str, str]:
    """A position, or that which a write reaches, as a snapshot has it; empty is taken away."""
    given = {WATERMARK: position.watermark, WINDOW: position.window}
    inputs = {f"{INPUT_PREFIX}{name}": str(id_ or "") for name, id_ in position.inputs.items()}
    return {name: value for name, value in given.items() if value is not None} | inputs


def reaches(watermark: str, other: str) -> bool:
    """Whether a watermark is at another one or after it; False also where nobody can tell."""
    if watermark == other:
        return True
    try:
        return _moment(watermark) >= _moment(other)
    except ValueError:
        return False


def _moment(text: str) -> datetime:
    if text[4:5] != "-":  # a number may pass for a time stamp
        raise ValueError(text)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_lasting(name: str) -> bool:
    """Whether a property says where the table stands, not who wrote one snapshot."""
    return name in (WATERMARK, WINDOW, DATA_VERSION) or name.startswith(INPUT_PREFIX)


def committed(table: Table, name: str, value: str) -> Snapshot | None:
    """The newest snapshot in the current history that has this property, if any."""
    history = ancestors(table, table.metadata.current_snapshot_id)
    return next((s for s in history if properties_of(s).get(name) == value), None)


def other_runs(table: Table, since: int | None, run_id: str | None) -> Sequence[str]:
    """The runs, but one, that committed rows after a snapshot, newest first.

    All that are known, where there was no snapshot or it is kept no more.
    """
    runs: dict[str, None] = {}
    for snapshot in ancestors(table, table.metadata.current_snapshot_id):
        if snapshot.snapshot_id == since:
            break
        run = properties_of(snapshot).get(RUN_ID)
        if run not in (None, run_id):
            runs[run] = None
    return list(runs)


def hides_runs(table: Table, since: int | None, run_id: str | None) -> bool:
    """Whether a run may have committed after a snapshot without being among those that are known.

    Its snapshot is kept no more, under one that no run wrote, as a compaction. What this run has
    committed itself was looked at then.
    """
    oldest = None
    for snapshot in ancestors(table, table.metadata.current_snapshot_id):
        if snapshot.snapshot_id == since:
            return False
        oldest = snapshot
    if oldest is None or run_id == properties_of(oldest).get(RUN_ID, ""):
        return False
    return since is not None or (oldest.sequence_number or 0) > 1


def data_version(table: Table) -> str:
    """Changes with the rows: the same for two snapshots that hold the same rows."""
    snapshot = table.current_snapshot()
    return state(table).get(DATA_VERSION, str(snapshot.snapshot_id if snapshot else None))
