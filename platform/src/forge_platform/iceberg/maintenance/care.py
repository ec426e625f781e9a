"""Everything that a table needs from time to time, in the order in which it helps."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pyiceberg.exceptions import NoSuchTableError

from forge_platform.iceberg.maintenance.compaction import Compaction, compact
from forge_platform.iceberg.maintenance.expiry import Expired, expire, trim_metadata
from forge_platform.iceberg.maintenance.orphans import Orphans, remove_orphans
from forge_platform.iceberg.maintenance.reachable import may_remove
from forge_platform.iceberg.state import INPUT_PREFIX, state
from forge_platform.iceberg.view import current_snapshot_id, files

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.typedef import Identifier

    from forge_platform.maintenance import CareOptions

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Neighbours:
    """What the care of one table must know of all others.

    Attributes:
        locations: where each table's files are, by its name in the catalog.
        inputs: the snapshots that some table was last made from, by the name of what was read.
        unreadable: the tables of which neither is known.
    """

    locations: Mapping[str, str]
    inputs: Mapping[str, frozenset[int]]
    unreadable: Sequence[str] = ()

    @classmethod
    def of(cls, catalog: Catalog) -> Neighbours:
        """Looks at every table of the catalog."""
        locations: dict[str, str] = {}
        inputs: defaultdict[str, set[int]] = defaultdict(set)
        unreadable: list[str] = []
        for namespace in _namespaces(catalog):
            for identifier in catalog.list_tables(namespace):
                try:
                    table = catalog.load_table(identifier)
                except NoSuchTableError:  # dropped meanwhile
                    continue
                except Exception as error:  # noqa: BLE001 - it stops only what needs to know it
                    logger.warning("%s cannot be read: %s", ".".join(identifier), error)
                    unreadable.append(".".join(identifier))
                    continue
                locations[".".join(identifier)] = table.location()
                for name, value in state(table).items():
                    if name.startswith(INPUT_PREFIX):
                        inputs[name.removeprefix(INPUT_PREFIX)].add(int(value))
        known = {name: frozenset(ids) for name, ids in inputs.items()}
        return cls(locations, known, unreadable)


def _namespaces(catalog: Catalog, within: Identifier = ()) -> Iterator[Identifier]:
    """All namespaces, with those inside of others."""
    for namespace in catalog.list_namespaces(within):
        yield namespace
        yield from _namespaces(catalog, namespace)


def care(
    table: Table,
    name: str,
    options: CareOptions,
    *,
    neighbours: Neighbours,
    key: tuple[str, ...] = (),
    now: dt.datetime | None = None,
) -> dict[str, int | float]:
    """Compacts a table, expires its snapshots, and removes what nothing refers to.

    Where some table of the catalog cannot be read, it is not known what that one needs: then
    nothing is expired or removed.

    Args:
        table: the table; refreshed in place.
        name: the table as others name it among their inputs, ``namespace.asset``.
        options: its thresholds.
        neighbours: the other tables.
        key: columns that identify a row; compaction sorts by them.
        now: the moment that ages are counted from, if it is not this one.

    Returns:
        What was done, in numbers, as metadata of a materialisation.
    """
    others = [location for other, location in neighbours.locations.items() if other != _name(table)]
    now = now or dt.datetime.now(dt.UTC)
    clock = _Clock()
    before = size(table)
    trim_metadata(table, options.metadata_versions)
    compacted = clock.timed("compaction", lambda: compact(table, _rule(options, key)))
    expired, orphans = Expired(), Orphans()
    if not neighbours.unreadable:
        expired = clock.timed(
            "expiry",
            lambda: expire(
                table,
                older_than=now - dt.timedelta(days=options.keep_days),
                keep=options.keep_snapshots,
                needed=neighbours.inputs.get(name, ()),
            ),
        )
        orphans = clock.timed(
            "orphans",
            lambda: remove_orphans(
                table, older_than=now - dt.timedelta(days=options.orphan_days), others=others
            ),
        )
    after = size(table)
    return {
        **{f"{name}_before": value for name, value in before.items()},
        **{f"{name}_after": value for name, value in after.items()},
        "gc_enabled": int(may_remove(table)),
        "unreadable_tables": len(neighbours.unreadable),
        "files_rewritten": compacted.rewritten,
        "files_written": compacted.written,
        "bytes_written": compacted.bytes_written,
        "snapshots_expired": expired.snapshots,
        "expired_files_removed": expired.files,
        "orphans_removed": orphans.files,
        "orphan_bytes": orphans.bytes,
        **clock.seconds,
    }


def size(table: Table) -> dict[str, int]:
    """How much there is of a table: data files, their bytes, delete files, snapshots."""
    tasks = files(table, current_snapshot_id(table)).values()
    return {
        "files": len(tasks),
        "bytes": sum(task.file.file_size_in_bytes for task in tasks),
        "delete_files": len({file.file_path for task in tasks for file in task.delete_files}),
        "snapshots": len(table.metadata.snapshots),
    }


def _rule(options: CareOptions, key: tuple[str, ...]) -> Compaction:
    return Compaction(
        small_bytes=options.small_bytes,
        group_bytes=options.group_bytes,
        min_files=options.min_files,
        deleted_fraction=options.deleted_fraction,
        most_delete_files=options.most_delete_files,
        sort_by=key if options.sort else (),
    )


def _name(table: Table) -> str:
    return ".".join(table.name())


class _Clock:
    """How long each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, action: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            return action()
        finally:
            self.seconds[f"{part}_seconds"] = round(time.monotonic() - started, 3)
