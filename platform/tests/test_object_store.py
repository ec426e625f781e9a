from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
import dagster as dg
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from forge_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    SourceUnavailable,
)
from forge_platform.resources.object_store import ObjectChanged, S3Resource
from forge_platform.testing import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NOBODY = 65534
MEBIBYTE = 1024 * 1024


@pytest.fixture(params=["bucket", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> S3Resource:
    """The same place twice: below a prefix of a bucket, and as a folder."""
    if request.param == "folder":
        return S3Resource(uri=tmp_path.as_uri())
    return S3Resource(uri=f"{request.getfixturevalue('s3_bucket')}/landing/customers")


@pytest.fixture
def bucket(s3_bucket: str) -> S3Resource:
    return S3Resource(uri=s3_bucket)


@pytest.fixture
def client(s3_bucket: str) -> S3Client:
    assert s3_bucket
    return boto3.client("s3")


def keys(store: S3Resource, prefix: str = "") -> list[str]:
    return sorted(found.key for found in store.list_objects(prefix))


def test_what_is_written_is_listed_and_read(store: S3Resource) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    uri = store.write("2024/a b.csv", b"content")
    [found] = store.list_objects()
    assert (found.key, found.size, found.uri) == ("2024/a b.csv", 7, uri)
    assert before <= found.last_modified <= datetime.now(UTC) + timedelta(seconds=2)
    assert found.last_modified.utcoffset() == timedelta(0)
    assert store.read(found.key) == b"content"


def test_the_version_changes_with_the_content(store: S3Resource) -> None:
    store.write("a", b"1")
    [first] = store.list_objects()
    store.write("a", b"2")
    [second] = store.list_objects()
    assert first.version != second.version


def test_the_version_is_the_same_as_long_as_the_object_is(store: S3Resource) -> None:
    store.write("a", b"1")
    assert store.list_objects() == store.list_objects()


def test_objects_are_listed_oldest_first_then_by_key(tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    for name, seconds in (("c", 0), ("b", 1), ("a", 1)):
        path = tmp_path / name
        path.write_text(name)
        moment = (later + timedelta(seconds=seconds)).timestamp()
        os.utime(path, (moment, moment))
    store = S3Resource(uri=tmp_path.as_uri())
    assert [found.key for found in store.list_objects()] == ["c", "a", "b"]


def test_objects_of_one_second_in_a_bucket_are_listed_by_key(bucket: S3Resource) -> None:
    for key in ("b", "a", "c"):
        bucket.write(key, b"")
    found = bucket.list_objects()
    assert found == sorted(found, key=lambda entry: (entry.last_modified, entry.key))
    assert len(found) == 3


def test_a_prefix_is_the_start_of_keys_not_a_folder(store: S3Resource) -> None:
    for key in ("in/a", "in/deep/b", "inside/c", "out/d"):
        store.write(key, b"")
    assert keys(store, "in/") == ["in/a", "in/deep/b"]
    assert keys(store, "in") == ["in/a", "in/deep/b", "inside/c"]
    assert keys(store, "nothing/") == []


def test_only_objects_after_a_moment_are_listed(store: S3Resource) -> None:
    store.write("a", b"")
    [found] = store.list_objects()
    moment = found.last_modified
    assert store.list_objects(modified_after=moment) == []
    assert store.list_objects(modified_after=moment - timedelta(microseconds=1)) == [found]


def test_a_neighbour_of_the_prefix_is_not_listed(s3_bucket: str) -> None:
    S3Resource(uri=s3_bucket).write("landing-old/a", b"")
    assert S3Resource(uri=f"{s3_bucket}/landing").list_objects() == []


@pytest.mark.parametrize(
    "key",
    [".hidden", "_SUCCESS", "a.csv.tmp", "a.csv.PART", "_done/a.csv", ".x/a.csv", "lost+found/a"],
)
def test_hidden_objects_and_those_in_the_making_are_not_listed(store: S3Resource, key: str) -> None:
    store.write(key, b"")
    store.write("a_b.tmp.csv", b"")
    assert keys(store) == ["a_b.tmp.csv"]


def test_a_listing_of_many_pages_is_complete(bucket: S3Resource) -> None:
    contents = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # a thousand requests would take seconds
    for number in range(1005):
        contents.put_object(urlsplit(bucket.uri).netloc, f"{number:05}", b"")
    assert len(bucket.list_objects()) == 1005


def test_the_folders_that_consoles_make_are_not_listed(
    bucket: S3Resource, client: S3Client
) -> None:
    client.put_object(Bucket=urlsplit(bucket.uri).netloc, Key="folder/", Body=b"")
    assert bucket.list_objects() == []


def test_a_moved_file_counts_as_new_when_it_arrives(tmp_path: Path) -> None:
    begin = datetime.now(UTC) - timedelta(seconds=1)
    (tmp_path / "old").write_text("x")
    os.utime(tmp_path / "old", (0, 0))
    (tmp_path / "landing").mkdir()
    (tmp_path / "old").rename(tmp_path / "landing" / "old")
    [found] = S3Resource(uri=(tmp_path / "landing").as_uri()).list_objects()
    assert found.last_modified > begin
    assert found.version == "1-0"


def test_names_that_are_no_text_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.csv")).write_text("x")
    (tmp_path / "café.csv").write_text("x")
    assert keys(S3Resource(uri=tmp_path.as_uri())) == ["café.csv"]
    assert "not UTF-8" in caplog.text


def test_broken_links_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert S3Resource(uri=tmp_path.as_uri()).list_objects() == []


def test_an_opened_object_can_be_read_at_any_place(store: S3Resource) -> None:
    store.write("a", b"0123456789")
    with store.open("a") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
        file.seek(0)
        assert file.read(2) == b"01"


def test_big_objects_are_streamed(store: S3Resource, tmp_path: Path) -> None:
    source = tmp_path / ".source"
    block = os.urandom(MEBIBYTE)
    with source.open("wb") as file:
        for _ in range(20):  # more than one part of an upload
            file.write(block)
    with source.open("rb") as file:
        store.write("big", file)
        assert not file.closed
    with store.open("big") as copy:
        sizes = [len(part) for part in iter(lambda: copy.read(MEBIBYTE), b"")]
        copy.seek(19 * MEBIBYTE)
        assert copy.read() == block
    assert sizes == [MEBIBYTE] * 20


def test_a_file_is_written_from_where_it_stands(store: S3Resource) -> None:
    source = io.BytesIO(b"header,content")
    source.seek(7)
    store.write("a", source)
    assert store.read("a") == b"content"


def test_an_object_is_replaced_as_a_whole(store: S3Resource) -> None:
    store.write("a", b"a long first version")
    store.write("a", b"short")
    assert store.read("a") == b"short"
    assert keys(store) == ["a"]


def test_other_users_may_read_what_is_written(tmp_path: Path) -> None:
    S3Resource(uri=tmp_path.as_uri()).write("a", b"")
    (tmp_path / "expected").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "expected").stat().st_mode


class FailingSource(io.BytesIO):
    """A source that breaks off in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        if not part:
            raise ConnectionResetError("the other side hung up")
        return part


def test_a_write_that_breaks_off_leaves_the_old_object(store: S3Resource) -> None:
    store.write("a", b"old")
    with pytest.raises(Exception, match="hung up"):
        store.write("a", FailingSource(b"new" * 10 * MEBIBYTE))
    assert store.read("a") == b"old"


def test_a_write_that_breaks_off_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    store = S3Resource(uri=tmp_path.as_uri())
    with pytest.raises(SourceUnavailable, match="hung up"):
        store.write("new", FailingSource(b"new"))
    assert list(tmp_path.iterdir()) == []


def test_delete_removes_and_may_be_repeated(store: S3Resource) -> None:
    store.write("a", b"")
    store.delete("a")
    store.delete("a")
    assert store.list_objects() == []


def test_an_object_that_is_gone_is_a_transient_failure(store: S3Resource) -> None:
    store.write("b", b"")
    with pytest.raises(ObjectChanged, match="a is gone"), store.open("a"):
        pass


def test_another_version_than_the_listed_one_is_refused(store: S3Resource) -> None:
    store.write("a", b"first")
    [found] = store.list_objects()
    with store.open("a", found.version) as file:
        assert file.read() == b"first"
    store.write("a", b"second!")
    with pytest.raises(ObjectChanged), store.open("a", found.version):
        pass


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    store = S3Resource(uri=tmp_path.as_uri())
    store.write("a", b"first")
    [found] = store.list_objects()
    with pytest.raises(ObjectChanged), store.open("a", found.version):
        append(tmp_path / "a", b" and more")


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_key_does_not_lead_out_of_the_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "landing").mkdir()
    store = S3Resource(uri=(tmp_path / "landing").as_uri())
    with pytest.raises(ConfigurationError, match="no key"):
        store.write(key, b"")


@pytest.mark.parametrize(
    "uri", ["/landing", "file://landing/folder", "s3:///prefix", "gs://bucket", "", "file://"]
)
def test_a_uri_that_is_no_place_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="no place for objects"):
        S3Resource(uri=uri).list_objects()


def test_blanks_in_a_folder_name_may_be_encoded(tmp_path: Path) -> None:
    (tmp_path / "my landing").mkdir()
    store = S3Resource(uri=f"{tmp_path.as_uri()}/my%20landing")
    store.write("a", b"")
    assert (tmp_path / "my landing" / "a").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    store = S3Resource(uri=f"{tmp_path.as_uri()}/missing")
    for use in (store.list_objects, lambda: store.write("a", b""), lambda: store.read("a")):
        with pytest.raises(ConfigurationError, match=r"folder .*/missing does not exist"):
            use()


def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    assert s3_bucket
    store = S3Resource(uri="s3://no-such-bucket/landing")
    for use in (store.list_objects, lambda: store.write("a", b""), lambda: store.read("a")):
        with pytest.raises(ConfigurationError, match=r"s3://no-such-bucket/landing.* create it"):
            use()


def test_a_bucket_that_denies_access_is_an_authentication_failure(
    bucket: S3Resource, client: S3Client
) -> None:
    bucket.write("a", b"")
    name = urlsplit(bucket.uri).netloc
    resources = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": resources}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    for use in (lambda: bucket.write("b", b""), lambda: bucket.read("a")):
        with pytest.raises(
            AuthenticationFailed, match=r"refuses to .*(403|AccessDenied)"
        ) as caught:
            use()
        assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)


def test_a_folder_that_denies_access_is_an_authentication_failure(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    store = S3Resource(uri=folder.as_uri())
    store.write("a", b"")
    folder.chmod(0)
    with as_a_mortal():
        for use in (store.list_objects, lambda: store.write("b", b""), lambda: store.read("a")):
            with pytest.raises(AuthenticationFailed, match="closed"):
                use()
    folder.chmod(0o700)


class as_a_mortal:  # noqa: N801 - reads as a statement
    """Root may do everything, so the test must not be root for a moment."""

    def __enter__(self) -> None:
        self._user = os.geteuid()
        if self._user == 0:
            os.seteuid(NOBODY)

    def __exit__(self, *_: object) -> None:
        os.seteuid(self._user)


def test_an_endpoint_that_is_away_is_a_transient_failure(s3_bucket: str) -> None:
    server = S3Server()
    with server:
        endpoint = server.endpoint_url
    store = S3Resource(uri=s3_bucket, endpoint_url=endpoint)
    with pytest.raises(SourceUnavailable, match="AWS_ENDPOINT_URL"):
        store.list_objects()


class Answers(BaseHTTPRequestHandler):
    """An S3 endpoint that has trouble; the bucket's name says which."""

    def do_GET(self) -> None:
        bucket = self.path.split("/")[1].split("?")[0]
        if bucket == "cut-off":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"the first bytes")
            return
        code, status = {"overloaded": ("SlowDown", 503), "odd": ("PermanentRedirect", 400)}[bucket]
        body = f"<Error><Code>{code}</Code><Message>Not today.</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def troubled_endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def troubled(endpoint: str, bucket: str) -> S3Resource:
    return S3Resource(
        uri=f"s3://{bucket}",
        endpoint_url=endpoint,
        region="us-east-1",
        access_key_id="id",
        secret_access_key="not-to-be-seen",
    )


def test_an_overloaded_store_is_a_transient_failure(troubled_endpoint: str) -> None:
    with pytest.raises(SourceUnavailable, match="SlowDown: Not today"):
        troubled(troubled_endpoint, "overloaded").list_objects()


def test_an_answer_that_breaks_off_is_a_transient_failure(troubled_endpoint: str) -> None:
    with pytest.raises(SourceUnavailable, match="cannot read s3://cut-off/a"):
        troubled(troubled_endpoint, "cut-off").read("a")


def test_any_other_answer_is_permanent_and_quoted(troubled_endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="PermanentRedirect: Not today"):
        troubled(troubled_endpoint, "odd").list_objects()


def test_an_endpoint_that_is_no_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        troubled("localhost", "bucket").list_objects()


def test_no_credentials_is_a_configuration_error(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="set AWS_ACCESS_KEY_ID"):
        S3Resource(uri=s3_bucket).list_objects()


def test_half_of_the_credentials_is_a_configuration_error(s3_bucket: str) -> None:
    store = S3Resource(uri=s3_bucket, access_key_id="only-this")
    with pytest.raises(ConfigurationError, match="AWS_SECRET_ACCESS_KEY"):
        store.list_objects()


def test_the_region_comes_from_its_standard_variable(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "not a region")
    with pytest.raises(ConfigurationError, match="not a region"):
        S3Resource(uri=s3_bucket).list_objects()


def test_the_secret_is_not_shown() -> None:
    assert "not-to-be-seen" not in repr(troubled("http://127.0.0.1", "bucket"))


def test_an_asset_gets_the_place_from_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDING_URI", tmp_path.as_uri())

    @dg.asset
    def listed(landing: S3Resource) -> list[str]:
        landing.write("a", b"")
        return keys(landing)

    resources = {"landing": S3Resource(uri=dg.EnvVar("LANDING_URI"))}
    result = dg.materialize([listed], resources=resources)
    assert result.output_for_node("listed") == ["a"]


FULL_DISK = """
import sys
from pathlib import Path
from forge_platform.errors import StorageFull
from forge_platform.resources.object_store import S3Resource

folder = Path(sys.argv[1])
store = S3Resource(uri=folder.as_uri())
store.write("a", b"old")
try:
    store.write("a", b"x" * 1024 * 1024)
except StorageFull as error:
    assert "No room is left" in str(error) and "Free space" in str(error)
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert store.read("a") == b"old"
    print("refused")
"""


def on_a_small_disk(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with a folder that is a disk of 256 KiB, which needs no root."""
    mount = 'mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
    return subprocess.run(
        [*command, sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    if shutil.which("unshare") is None or on_a_small_disk(tmp_path, "").returncode:
        pytest.skip("this machine does not let a user mount a disk of its own")
    return tmp_path


def test_a_full_disk_leaves_the_old_object_and_nothing_else(small_disk: Path) -> None:
    result = on_a_small_disk(small_disk, FULL_DISK)
    assert result.stdout == "refused\n", result.stderr
