from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import boto3
import psycopg2
import pytest

from forge_platform.errors import AuthenticationFailed, ConfigurationError
from forge_platform.resources.database import DatabaseResource
from forge_platform.testing import EmbeddedPostgres, S3Server

OWNER = """
import sys, time
from pathlib import Path
from forge_platform.testing import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]), int(sys.argv[2]), password="p", durable=False)
server.start()
print("started", flush=True)
{then}
"""


@pytest.fixture
def data_dir(server_folder: Path) -> Path:
    return server_folder / uuid4().hex


def is_running(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_stopped(port: int) -> None:
    deadline = time.monotonic() + 15
    while is_running(port):
        assert time.monotonic() < deadline, f"the server on port {port} still runs"
        time.sleep(0.05)


def test_it_keeps_its_data_and_port_when_it_is_started_again(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, password="p", durable=True)
    with server:
        database = DatabaseResource(**server.create_database("shop"))
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.start()
    assert not is_running(server.port)
    server.stop()
    with server:
        assert server.create_database("shop")["port"] == database.port
        assert database.query("SELECT * FROM kept") == [{"one": 1}]


def test_a_path_too_long_for_a_unix_socket_is_fine(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir / ("x" * 120) / "data", password="p", durable=False) as server:
        assert DatabaseResource(**server.connection()).query("SELECT 1 AS one") == [{"one": 1}]


def test_wrong_passwords_are_refused(postgres: EmbeddedPostgres) -> None:
    known = DatabaseResource(**postgres.connection())
    wrong = known.model_copy(update={"password": "wrong"})
    with pytest.raises(AuthenticationFailed):
        wrong.query("SELECT 1")


def test_a_data_directory_of_another_password_is_refused(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, password="p", durable=False):
        pass
    other = EmbeddedPostgres(data_dir, password="q", durable=False)
    with pytest.raises(AuthenticationFailed, match="another password"):
        other.start()
    assert not is_running(other.port)


def test_a_taken_port_and_a_data_directory_in_use_are_told(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, password="p", durable=False) as server:
        with pytest.raises(ConfigurationError, match="Address already in use"):
            EmbeddedPostgres(data_dir.with_name("b"), server.port, password="p").start()
        with pytest.raises(ConfigurationError, match=r"postmaster\.pid"):
            EmbeddedPostgres(data_dir, password="p").start()
        assert is_running(server.port)


def test_a_folder_of_something_else_is_left_alone(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "mine.txt").write_text("precious")
    with pytest.raises(ConfigurationError, match="not empty"):
        EmbeddedPostgres(data_dir, password="p").start()
    assert (data_dir / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_stops_when_its_owner_is_killed(data_dir: Path, how: signal.Signals) -> None:
    server = EmbeddedPostgres(data_dir, password="p")
    command = [sys.executable, "-c", OWNER.format(then="time.sleep(600)")]
    arguments = [*command, str(data_dir), str(server.port)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        assert is_running(server.port)
        owner.send_signal(how)
    wait_until_stopped(server.port)


def test_it_has_stopped_when_its_owner_has_ended(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, password="p")
    command = [sys.executable, "-c", OWNER.format(then="raise SystemExit(3)")]
    ended = subprocess.run([*command, str(data_dir), str(server.port)], check=False, timeout=60)
    assert ended.returncode == 3
    assert not is_running(server.port)


def test_a_forked_child_does_not_stop_it(postgres: EmbeddedPostgres) -> None:
    child = os.fork()
    if child == 0:
        postgres.stop()
        os._exit(0)
    os.waitpid(child, 0)
    with psycopg2.connect(**postgres.connection()) as connection:
        assert connection.status


def test_it_survives_another_pytest(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Run by root, every pytest closes the folder that all of root's tests share."""
    (tmp_path / "test_other.py").write_text("def test_other(tmp_path): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    name = f"after_{uuid4().hex}"
    postgres.create_database(name)  # copies files and writes a checkpoint
    postgres.drop_database(name)


def test_s3_buckets_hold_objects_over_http(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    client = boto3.client("s3")
    bucket = s3_bucket.removeprefix("s3://")
    client.put_object(Bucket=bucket, Key="a/b", Body=b"content")
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"content"


def test_an_s3_server_starts_again_on_its_port_and_refuses_a_taken_one() -> None:
    server = S3Server()
    with server:
        port = int(server.endpoint_url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=str(port)):
            S3Server(port).start()
    server.stop()
    with server:
        assert server.endpoint_url.endswith(f":{port}")
        assert server.create_bucket("again") == server.create_bucket("again") == "s3://again"
