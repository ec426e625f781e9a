"""The folder ``.demo``: everything that the demo keeps, and who is using it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forge_platform.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
DEFAULT_FOLDER = ROOT / ".demo"


@dataclass(frozen=True)
class DemoState:
    """Where things are in the folder of one demo."""

    folder: Path = DEFAULT_FOLDER

    @property
    def env_file(self) -> Path:
        """The variables that every process of the demo runs with."""
        return self.folder / "env"

    @property
    def ports_file(self) -> Path:
        """The ports that the demo's servers had last."""
        return self.folder / "ports.json"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data directory."""
        return self.folder / "postgres"

    @property
    def dagster_home(self) -> Path:
        """Configuration and files of the Dagster instance."""
        return self.folder / "dagster"

    @property
    def logs(self) -> Path:
        """What every process printed."""
        return self.folder / "logs"

    @property
    def landing(self) -> Path:
        """Where customer files are dropped."""
        return self.folder / "landing"

    @property
    def exports(self) -> Path:
        """Where Parquet exports go."""
        return self.folder / "exports"

    @property
    def warehouse(self) -> Path:
        """The files of the Iceberg tables."""
        return self.folder / "warehouse"

    @property
    def catalog(self) -> Path:
        """The Iceberg catalog."""
        return self.folder / "catalog.db"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps every other demo out; the system lets go when this process ends, however.

        Raises:
            ConfigurationError: another demo uses the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("a+") as file:
            if not _try_lock(file.fileno()):
                raise ConfigurationError(
                    f"A demo is running in {self.folder} (process {self.owner()}): stop it with "
                    "Ctrl-C in its terminal, or give this one another folder with --folder."
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def owner(self) -> int | None:
        """Process id of the demo that is running in the folder, if one is."""
        if not self._lock_file.exists():
            return None
        with self._lock_file.open() as file:
            return None if _try_lock(file.fileno()) else int(file.read() or 0)

    @property
    def _lock_file(self) -> Path:
        return self.folder / "lock"

    def write_env(self, variables: Mapping[str, str]) -> None:
        """Keeps the variables, readable by this user only: there are passwords among them."""
        text = "".join(f"{name}={value}\n" for name, value in variables.items())
        descriptor = os.open(self.env_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    def read_env(self) -> dict[str, str]:
        """The variables of the demo that was started last; none when there was none."""
        if not self.env_file.exists():
            return {}
        lines = self.env_file.read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", maxsplit=1) for line in lines)

    def remove(self) -> None:
        """Removes the folder.

        Raises:
            ConfigurationError: a demo is running in it, or it is no demo's folder.
        """
        if not self.folder.exists():
            return
        if not self._lock_file.exists():
            raise ConfigurationError(f"{self.folder} is no demo's folder: remove it yourself.")
        with self.lock():
            shutil.rmtree(self.folder)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
