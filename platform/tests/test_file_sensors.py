from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from forge_platform.errors import ConfigurationError
from forge_platform.objects import StoredObject
from forge_platform.resources.object_store import S3Resource
from forge_platform.sensors.files import OVERLAP, FileCursor, file_sensor


@dg.asset
def loaded() -> None:
    """Stands for what the job loads."""


JOB = dg.define_asset_job("load_job", [loaded])
S3_SENSOR = file_sensor(name="s3_file_sensor", scheme="s3", job_name="load_job", prefix="in/")
FOLDER_SENSOR = file_sensor(
    name="new_file_sensor", scheme="file", job_name="load_job", prefix="in/"
)


class Watch:
    """A place, its sensor and the cursor from tick to tick."""

    def __init__(self, store: S3Resource, instance: dg.DagsterInstance) -> None:
        self.store = store
        self.sensor = S3_SENSOR if store.scheme == "s3" else FOLDER_SENSOR
        self.cursor: str | None = None
        self.instance = instance

    def drop(self, *keys: str, content: bytes = b"x") -> None:
        for key in keys:
            self.store.write(f"in/{key}", content)

    def look(self) -> tuple[Sequence[dg.RunRequest], str | None]:
        """What the sensor asks for, or why it rests; it keeps its cursor as Dagster would."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"landing": self.store}
        )
        outcome = self.sensor.evaluate_tick(context)
        self.cursor = outcome.cursor
        return outcome.run_requests or [], outcome.skip_message

    def tick(self) -> Sequence[dg.RunRequest]:
        """The runs that the sensor asks for."""
        return self.look()[0]

    def new_files(self) -> int:
        """How many files the next tick notices."""
        return sum(int(request.tags["forge/new_files"]) for request in self.tick())


@pytest.fixture(params=["bucket", "folder"])
def watch(request: pytest.FixtureRequest, tmp_path: Path) -> Watch:
    bucket = request.param == "bucket"
    uri = request.getfixturevalue("s3_bucket") if bucket else tmp_path.as_uri()
    return Watch(S3Resource(uri=uri), dg.DagsterInstance.ephemeral())


@pytest.fixture
def folder(tmp_path: Path) -> Watch:
    return Watch(S3Resource(uri=tmp_path.as_uri()), dg.DagsterInstance.ephemeral())


def dated(watch: Watch, key: str, moment: datetime) -> None:
    """Drops a file that says it is of a moment in the future."""
    watch.drop(key)
    path = Path(watch.store.uri.removeprefix("file://")) / "in" / key
    os.utime(path, (moment.timestamp(), moment.timestamp()))


def test_files_are_noticed_once(watch: Watch) -> None:
    assert watch.new_files() == 0
    watch.drop("a", "b")
    assert watch.new_files() == 2
    assert watch.new_files() == 0
    watch.drop("c")
    assert watch.new_files() == 1
    assert watch.new_files() == 0


def test_nothing_new_is_a_reason_to_skip(watch: Watch) -> None:
    watch.drop("a")
    watch.tick()
    assert watch.look() == ([], f"No new file at {watch.store.uri} (1 there).")


def test_a_new_version_of_a_file_is_noticed(watch: Watch) -> None:
    watch.drop("a", "b")
    watch.tick()
    watch.drop("a", content=b"another")
    assert watch.new_files() == 1


def test_files_of_one_moment_are_all_noticed_and_none_twice(folder: Watch) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
    dated(folder, "b", moment)
    assert folder.new_files() == 1
    dated(folder, "a", moment)
    assert folder.new_files() == 1
    assert folder.new_files() == 0


def test_a_file_dated_in_the_future_hides_nothing(folder: Watch) -> None:
    dated(folder, "future", datetime.now(UTC) + timedelta(days=365))
    assert folder.new_files() == 1
    folder.drop("now")
    assert folder.new_files() == 1
    assert folder.new_files() == 0


def test_a_deleted_file_is_no_reason_for_a_run(watch: Watch) -> None:
    watch.drop("a", "b")
    watch.tick()
    watch.store.delete("in/b")
    assert watch.new_files() == 0
    watch.drop("c")
    assert watch.new_files() == 1


def test_files_outside_the_prefix_or_in_the_making_are_not_noticed(watch: Watch) -> None:
    watch.store.write("out/a", b"")
    watch.drop("a.csv.part", ".b")
    assert watch.new_files() == 0


def test_the_run_key_is_what_was_seen(watch: Watch) -> None:
    watch.drop("a", "b")
    [request] = watch.tick()
    watch.cursor = None
    [again] = watch.tick()
    assert request.run_key is not None
    assert request.run_key == again.run_key
    watch.drop("c")
    [other] = watch.tick()
    assert other.run_key != request.run_key


def test_the_cursor_is_the_newest_moment_and_what_was_seen_near_it(watch: Watch) -> None:
    watch.drop("a")
    watch.tick()
    [found] = watch.store.list_objects()
    assert watch.cursor is not None
    assert json.loads(watch.cursor) == {
        "newest": found.last_modified.isoformat(),
        "seen": {"in/a": found.version},
    }


def stored(key: str, moment: datetime) -> StoredObject:
    return StoredObject(key=key, uri=key, size=1, last_modified=moment, version="v")


def test_the_cursor_forgets_what_cannot_come_again() -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    hours = [stored(str(hour), begin + timedelta(hours=hour)) for hour in range(1000)]
    cursor = FileCursor().advanced(hours[:500])
    assert cursor.seen == {"498": "v", "499": "v"}
    later = FileCursor.parse(cursor.dump())
    assert [file.key for file in later.unseen(hours)] == [str(hour) for hour in range(500, 1000)]
    assert len(later.advanced(hours).seen) == 2


def test_a_file_that_comes_late_is_noticed() -> None:
    """A multipart upload is dated when it began."""
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    cursor = FileCursor().advanced([stored("quick", moment)])
    slow, ancient = stored("slow", moment - OVERLAP / 2), stored("ancient", moment - 2 * OVERLAP)
    assert cursor.unseen([ancient, slow]) == [slow]
    assert cursor.advanced([slow]).unseen([slow]) == []


def test_the_newest_moment_does_not_go_back() -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    cursor = FileCursor().advanced([stored("b", begin + timedelta(hours=5))])
    later = cursor.advanced([stored("a", begin + timedelta(hours=4, minutes=30))])
    assert later.newest == begin + timedelta(hours=5)


@pytest.mark.parametrize("cursor", ["2024-01-01", "{}", "[]", '{"newest": 5, "seen": {}}'])
def test_with_a_cursor_that_is_not_ours_everything_is_new(folder: Watch, cursor: str) -> None:
    folder.drop("a")
    folder.cursor = cursor
    assert folder.new_files() == 1
    assert folder.new_files() == 0


def test_a_store_that_is_away_is_a_reason_to_skip_and_the_cursor_stays(s3_bucket: str) -> None:
    watch = Watch(S3Resource(uri=s3_bucket), dg.DagsterInstance.ephemeral())
    watch.drop("a")
    watch.tick()
    here, cursor = watch.store, watch.cursor
    watch.store = S3Resource(uri=s3_bucket, endpoint_url="http://127.0.0.1:9")
    requests, reason = watch.look()
    assert not requests
    assert reason is not None
    assert "check that it is running" in reason
    assert watch.cursor == cursor
    watch.store = here
    watch.drop("b")
    assert watch.new_files() == 1


def test_a_missing_folder_fails_the_tick(tmp_path: Path) -> None:
    store = S3Resource(uri=f"{tmp_path.as_uri()}/missing")
    with pytest.raises(ConfigurationError, match="does not exist"):
        Watch(store, dg.DagsterInstance.ephemeral()).tick()


def test_the_sensor_of_the_other_kind_of_place_rests(watch: Watch) -> None:
    watch.drop("a")
    watch.sensor = FOLDER_SENSOR if watch.sensor is S3_SENSOR else S3_SENSOR
    requests, reason = watch.look()
    assert not requests
    assert reason is not None
    assert f"landing is {watch.store.uri}" in reason


def test_the_sensors_of_a_location(tmp_path: Path) -> None:
    definitions = dg.Definitions(
        assets=[loaded],
        jobs=[JOB],
        sensors=[S3_SENSOR, FOLDER_SENSOR],
        resources={"landing": S3Resource(uri=tmp_path.as_uri())},
    )
    dg.Definitions.validate_loadable(definitions)
    sensor = definitions.get_repository_def().get_sensor_def("s3_file_sensor")
    assert sensor.job_name == "load_job"
    assert sensor.minimum_interval_seconds == 300
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_a_run_of_the_request_succeeds(folder: Watch) -> None:
    folder.drop("a")
    [request] = folder.tick()
    definitions = dg.Definitions(assets=[loaded], jobs=[JOB])
    result = definitions.resolve_job_def("load_job").execute_in_process(
        instance=folder.instance, tags=request.tags
    )
    assert result.success
