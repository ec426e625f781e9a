"""A sensor that notices changed rows in PostgreSQL tables, in whichever order they commit.

The newest time stamp alone misses a row that is committed late, and one that shares the newest
time stamp. So the sensor compares the rows of a window: from the moment on, less an overlap,
from which rows could still appear when it last looked (the newest time stamp, or the start of
the oldest transaction that was open), by their number and a digest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import dagster as dg

from forge_platform.errors import SourceUnavailable
from forge_platform.extraction import SourceTable
from forge_platform.resources.database import DatabaseResource
from forge_platform.sensors.requests import RunTarget

CHANGED_TABLES = "forge/changed_tables"
"""Run tag: the tables whose change a run was requested for."""


@dataclass(frozen=True)
class _Seen:
    """What the sensor saw of a table; ``start`` is None for an empty one."""

    newest: str | None
    start: str | None
    rows: int
    digest: str


_NOTHING = _Seen(None, None, 0, "0")


def new_data_sensor(
    name: str,
    tables: Sequence[SourceTable],
    *,
    job_name: str,
    assets: Sequence[str] = (),
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    overlap: timedelta | None = None,
) -> dg.SensorDefinition:
    """Requests a run when rows of a source table appeared, changed or disappeared.

    It needs the resource ``database``. The run needs no configuration: extraction knows its own
    watermark. While the source is away nothing is requested and the cursor stays, so that
    what changes meanwhile is noticed afterwards.

    Args:
        name: of the sensor.
        tables: the tables to watch.
        job_name: job of the same location that it runs.
        assets: the job's assets to make; none are all.
        minimum_interval_seconds: time between two looks.
        default_status: whether it runs as soon as the location is loaded.
        overlap: how far behind the newest row late ones are noticed; None is each table's own.
    """
    # What is read again, changed or not, is no news.
    watched = [replace(table, overlap=overlap or table.overlap, also=None) for table in tables]

    @dg.sensor(
        name=name,
        job_name=job_name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=f"Looks for new rows in {', '.join(table.name for table in watched)}.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, database: DatabaseResource
    ) -> dg.SensorResult | dg.SkipReason:
        before = _parse(context.cursor)
        try:
            looks = {table.name: _look(database, table, before) for table in watched}
        except SourceUnavailable as error:
            return dg.SkipReason(str(error))
        after = {table: seen for table, (seen, _) in looks.items()}
        cursor = json.dumps({table: asdict(seen) for table, seen in after.items()})
        changed = [table for table, (_, is_changed) in looks.items() if is_changed]
        if not changed:
            return dg.SensorResult(skip_reason="No new rows in the source.", cursor=cursor)
        return RunTarget(job_name, assets).request(
            context,
            run_key=_run_key(name, context.cursor, cursor),
            cursor=cursor,
            tags={CHANGED_TABLES: ", ".join(changed)},
        )

    return sensor


def _look(
    database: DatabaseResource, table: SourceTable, before: Mapping[str, _Seen]
) -> tuple[_Seen, bool]:
    """What a table shows now, and whether that is news."""
    from forge_platform.postgres.source import edge_query, window_query

    known = before.get(table.name, _NOTHING)
    with database.connect() as connection, connection.cursor() as cursor:
        # First the edge, then the rows: whoever commits in between is in the rows already.
        cursor.execute(edge_query(table))
        [(newest, start)] = cursor.fetchall()
        if start is None:
            return _NOTHING, False
        since = datetime.fromisoformat(known.start) if known.start else start
        cursor.execute(window_query(table, start, since))
        [(rows, digest, rows_since, digest_since)] = cursor.fetchall()
    seen = _Seen(newest.isoformat(), start.isoformat(), rows, digest)
    is_changed = known.start is None or (rows_since, digest_since) != (known.rows, known.digest)
    return seen, is_changed


def _parse(cursor: str | None) -> Mapping[str, _Seen]:
    """What was seen last time; nothing when that cannot be read, so everything is news."""
    try:
        return {table: _Seen(**seen) for table, seen in json.loads(cursor or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _run_key(name: str, before: str | None, after: str) -> str:
    """The same for the same news: a look that is repeated after a crash requests nothing twice."""
    digest = hashlib.sha256(f"{before}\n{after}".encode()).hexdigest()
    return f"{name}:{digest[:32]}"
