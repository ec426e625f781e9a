"""What the demo needs of its embedded PostgreSQL beyond starting and stopping it."""

from __future__ import annotations

import signal
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
from psycopg2 import sql

if TYPE_CHECKING:
    from forge_platform.testing import ConnectionParameters

_WAIT_SECONDS = 10
_SCRAM_ITERATIONS_SINCE = 160_000


def postmaster(data_dir: Path) -> psutil.Process | None:
    """The server that runs on the data directory, if one does."""
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int((data_dir / "postmaster.pid").read_text().splitlines()[0]))
        if str(data_dir) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def stop_postmaster(data_dir: Path) -> None:
    """Stops a server that outlived the demo that started it."""
    process = postmaster(data_dir)
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)  # fast shutdown: clients are sent away
        psutil.wait_procs([process], timeout=_WAIT_SECONDS)


def cheapen_logins(parameters: ConnectionParameters) -> None:
    """Makes checking the user's password cheap, which is safe for a long random one.

    Dagster's processes connect anew for every statement, some 10,000 times in a demo. Hashing
    the password 4,096 times as usual is half of the 5 ms that each of them takes.
    """
    with closing(psycopg2.connect(**parameters)) as connection, connection:
        if connection.server_version < _SCRAM_ITERATIONS_SINCE:
            return
        with connection.cursor() as cursor:
            cursor.execute("SET scram_iterations = 1")
            cursor.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(parameters["user"]), sql.Literal(parameters["password"])
                )
            )
