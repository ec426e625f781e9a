"""Sensors that notice new files, in a bucket or in a local folder, each version once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import dagster as dg

from forge_platform.errors import SourceUnavailable
from forge_platform.objects import StoredObject
from forge_platform.sensors.requests import RunTarget

if TYPE_CHECKING:
    from forge_platform.resources.object_store import S3Resource

# A multipart upload is dated when it begins, so it can appear behind what was seen meanwhile.
OVERLAP = timedelta(hours=1)

_FILES_TAG = "forge/new_files"


@dataclass(frozen=True, kw_only=True)
class FileCursor:
    """What a sensor has seen: the newest time, and every file near enough to come twice.

    Attributes:
        newest: greatest ``last_modified`` so far; None before the first file.
        seen: key to version, of the files at the newest time or within OVERLAP before it.
    """

    newest: datetime | None = None
    seen: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> FileCursor:
        """Reads a cursor back; one that cannot be read is empty, so that everything is new.

        A run too many does no harm: it loads nothing that the ledger has.
        """
        try:
            values = json.loads(text or "{}")
            newest = datetime.fromisoformat(values["newest"])
            return cls(newest=newest.astimezone(UTC), seen=dict(values["seen"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def dump(self) -> str:
        """The cursor as text."""
        newest = self.newest.isoformat() if self.newest else None
        return json.dumps({"newest": newest, "seen": self.seen}, sort_keys=True)

    def unseen(self, found: Iterable[StoredObject]) -> list[StoredObject]:
        """The files that are not behind the newest time and were not seen in this version."""
        return [file for file in found if self._may_be_new(file)]

    def advanced(self, found: Sequence[StoredObject]) -> FileCursor:
        """The cursor after these files, which are all that there are."""
        # A file dated in the future must not hide those that come after it.
        newest = min(max(file.last_modified for file in found), datetime.now(UTC))
        newest = max(newest, self.newest or newest)
        near = (file for file in found if file.last_modified >= newest - OVERLAP)
        return FileCursor(newest=newest, seen={file.key: file.version for file in near})

    def _may_be_new(self, file: StoredObject) -> bool:
        if self.newest is not None and file.last_modified < self.newest - OVERLAP:
            return False
        return self.seen.get(file.key) != file.version


def file_sensor(  # noqa: PLR0913 - every one is a setting of the sensor
    *,
    name: str,
    scheme: Literal["s3", "file"],
    job_name: str,
    assets: Sequence[str] = (),
    store_key: str = "landing",
    prefix: str = "",
    minimum_interval_seconds: int = 300,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """A sensor that runs a job when files come, or come in a new version.

    Two of them, one for each scheme, can watch the same resource: the one whose scheme is not
    the resource's says so and rests.

    Args:
        name: the sensor's name.
        scheme: the kind of place that it watches: ``s3`` or a local folder, ``file``.
        job_name: job of the same location that it runs.
        assets: the job's assets to make; none are all.
        store_key: resource key of the ``S3Resource``.
        prefix: start of the keys to watch.
        minimum_interval_seconds: shortest time between two looks.
        default_status: whether it runs as soon as the location is loaded.

    While the place is away nothing is requested and the cursor stays, so that what comes
    meanwhile is noticed afterwards; a place that is missing or closed to us fails the tick.
    """

    @dg.sensor(
        name=name,
        job_name=job_name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=f"Runs {job_name} when files come to the {scheme}:// place of {store_key}.",
        required_resource_keys={store_key},
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        store: S3Resource = getattr(context.resources, store_key)
        if store.scheme != scheme:
            place = f"{store_key} is {store.uri}"
            return dg.SkipReason(f"{name} watches {scheme}:// only, and {place}.")
        return _look(context, store, prefix, RunTarget(job_name, assets))

    return evaluate


def _look(
    context: dg.SensorEvaluationContext, store: S3Resource, prefix: str, target: RunTarget
) -> dg.SensorResult | dg.SkipReason:
    cursor = FileCursor.parse(context.cursor)
    try:
        found = store.list_objects(prefix)
    except SourceUnavailable as error:
        return dg.SkipReason(str(error))
    unseen = cursor.unseen(found)
    if not unseen:
        return dg.SkipReason(f"No new file at {store.uri} ({len(found)} there).")
    return target.request(
        context,
        run_key=_run_key(unseen),
        cursor=cursor.advanced(found).dump(),
        tags={_FILES_TAG: str(len(unseen))},
    )


def _run_key(files: Iterable[StoredObject]) -> str:
    """The same for the same files in the same versions, however often they are seen."""
    seen = [(file.key, file.version, file.last_modified.isoformat()) for file in files]
    return hashlib.sha256(json.dumps(sorted(seen)).encode()).hexdigest()[:32]
