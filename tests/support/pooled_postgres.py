"""PgBouncer in front of a PostgreSQL, and a hot standby behind one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from forge_platform.testing import ConnectionParameters, EmbeddedPostgres
from forge_platform.testing.postgres import _account, _as_account, _binaries, free_port

_START_SECONDS = 20
_CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 100
"""


@contextmanager
def pooled(
    database: ConnectionParameters, folder: Path, connections: int = 3
) -> Iterator[ConnectionParameters]:
    """The database through PgBouncer with a connection for each transaction.

    It is set up to refuse every startup parameter that it does not know.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "pgbouncer is missing"
        pytest.skip("pgbouncer is not installed")
    users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"{database["user"]}" "{database["password"]}"\n')
    port = free_port()
    configuration.write_text(
        _CONFIGURATION.format(
            host=database["host"],
            port=database["port"],
            listen_port=port,
            users=users,
            connections=connections,
        )
    )
    process = subprocess.Popen(
        [program, str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **_as_account(_account()),
    )
    try:
        _wait_for(port)
        yield {**database, "port": port}
    finally:
        process.kill()
        process.wait()


@contextmanager
def standby_of(server: EmbeddedPostgres, folder: Path) -> Iterator[EmbeddedPostgres]:
    """A hot standby that follows a server."""
    known = server.connection()
    account = _account()
    folder.mkdir(mode=0o700)
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    address = ["-h", known["host"], "-p", str(known["port"]), "-U", known["user"]]
    subprocess.run(
        [str(_binaries() / "pg_basebackup"), *address, "-D", str(folder), "-R", "-c", "fast"],
        check=True,
        cwd="/",
        env={**os.environ, "PGPASSWORD": known["password"]},
        **_as_account(account),
    )
    with EmbeddedPostgres(folder, password=known["password"], durable=False) as standby:
        yield standby


def wait_until_replayed(server: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Until the standby has what the server has now."""
    with closing(psycopg2.connect(**server.connection())) as here:
        cursor = here.cursor()
        cursor.execute("SELECT pg_current_wal_insert_lsn()")
        [(position,)] = cursor.fetchall()
    deadline = time.monotonic() + _START_SECONDS
    with closing(psycopg2.connect(**standby.connection())) as there:
        there.autocommit = True
        cursor = there.cursor()
        while True:
            cursor.execute("SELECT pg_last_wal_replay_lsn() >= %s", (position,))
            if cursor.fetchall() == [(True,)]:
                return
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.05)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "PgBouncer does not listen"
            time.sleep(0.05)
        else:
            return
