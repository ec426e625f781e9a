"""The platform's servers on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from forge_demo import source
from forge_demo.dagster_api import DagsterApi
from forge_demo.landing_files import write_landing_files
from forge_demo.ports import HOST, is_open
from forge_demo.postgres import cheapen_logins, postmaster, stop_postmaster
from forge_demo.settings import (
    INSTANCE_DATABASE,
    SERVING_DATABASE,
    SOURCE_DATABASE,
    Ports,
    process_environment,
    variables,
    workspace_file,
    write_dagster_home,
)
from forge_demo.state import ROOT, DemoState
from forge_demo.supervisor import ChildEnded, Supervisor, stop_processes
from forge_platform.errors import ConfigurationError, ForgeError, PermanentError, SourceUnavailable
from forge_platform.testing import EmbeddedPostgres

START_SECONDS = 180
_BIN = Path(sys.executable).parent


def clear_leftovers(state: DemoState) -> bool:
    """Stops what a demo that was killed has left; tells whether there was anything."""
    found = stop_processes(state.folder)
    stop_postmaster(state.postgres)
    return found > 0


@dataclass
class Servers:
    """Starts and stops the platform's servers and what they need."""

    state: DemoState
    ports: Ports
    console: Console
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._environment = variables(self.state, self.ports)
        self.supervisor = Supervisor(
            self.state.folder, self.state.logs, process_environment(self._environment)
        )
        self.postgres = EmbeddedPostgres(
            self.state.postgres,
            self.ports.postgres,
            password=self._environment["DB_PASSWORD"],
            durable=False,
        )
        self.api = DagsterApi(self._environment["DAGSTER_WEBSERVER_URL"])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Starts everything, and stops it again whatever happens."""
        try:
            self._start()
            with self._explained():
                yield
        finally:
            self._stop()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Names the process that ended, if one did, instead of what followed from that."""
        try:
            yield
        except ForgeError:
            self.check()
            raise

    def check(self) -> None:
        """Looks whether all servers live.

        Raises:
            ChildEnded: one does not.
        """
        self.supervisor.check()
        if postmaster(self.state.postgres) is None:
            log = self.state.postgres / "server.log"
            raise ChildEnded(f"PostgreSQL ended by itself: see {log}")

    def wait_for(self, what: str, is_so: Callable[[], bool], seconds: float) -> None:
        """Waits, as long as all servers live.

        Raises:
            SourceUnavailable: it took too long.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            self.check()
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"After {seconds:.0f} s there is still no {what}: see {self.state.logs}"
                )
            time.sleep(0.2)

    def start_daemon(self) -> None:
        """Starts what dequeues runs and evaluates schedules, sensors and automation."""
        self._start_dagster("dagster-daemon", "run")

    def say(self, text: str) -> None:
        """Prints a step with the time since the start."""
        elapsed = time.time() - self.started
        self.console.print(f"{elapsed:6.1f} s  {text}", soft_wrap=True, highlight=False)

    def _start(self) -> None:
        self.state.write_env(self._environment)
        write_dagster_home(self.state, self.ports)
        write_landing_files(self.state.landing)
        self.state.exports.mkdir(exist_ok=True)
        self.say("starting the code servers, PostgreSQL and the exchange-rate API")
        self._start_code_servers()
        self._start_rates_api()
        self.postgres.start()
        self._prepare_databases()
        ports = [self.ports.rates, *self.ports.code_servers.values()]
        self.wait_for("code server", lambda: all(map(is_open, ports)), START_SECONDS)
        self.say("starting the Dagster webserver")
        self._start_dagster("dagster-webserver", "-h", HOST, "-p", str(self.ports.webserver))
        self.wait_for("Dagster webserver", lambda: is_open(self.ports.webserver), START_SECONDS)
        self.wait_for("loaded workspace", self._is_loaded, START_SECONDS)
        self.say(f"the code locations {', '.join(self.ports.code_servers)} are loaded")

    def _stop(self) -> None:
        self.say("stopping")
        self.api.close()
        self.supervisor.stop()
        with suppress(ConfigurationError):  # it ended by itself, and that was said
            self.postgres.stop()
        stop_postmaster(self.state.postgres)

    def _start_code_servers(self) -> None:
        for location, port in self.ports.code_servers.items():
            module = f"{location}.definitions"
            command = [str(_BIN / "dagster"), "api", "grpc", "-h", HOST, "-p", str(port)]
            self.supervisor.start(location, [*command, "-m", module, "--location-name", location])

    def _start_rates_api(self) -> None:
        command = [sys.executable, "-m", "forge_demo.rates_api", "--port", str(self.ports.rates)]
        self.supervisor.start("rates_api", [*command, "--docs", str(ROOT / "docs")])

    def _start_dagster(self, program: str, *arguments: str) -> None:
        workspace = ["-w", str(workspace_file(self.state))]
        name = program.removeprefix("dagster-")
        self.supervisor.start(name, [str(_BIN / program), *arguments, *workspace])

    def _prepare_databases(self) -> None:
        cheapen_logins(self.postgres.connection())
        for name in (INSTANCE_DATABASE, SERVING_DATABASE):
            self.postgres.create_database(name)
        if source.load(self.postgres.create_database(SOURCE_DATABASE)):
            self.say("loaded the CDNOW purchases into the source database")

    def _is_loaded(self) -> bool:
        try:
            loaded = self.api.loaded_locations()
        except SourceUnavailable:
            return False
        for location, error in loaded.items():
            if error:
                raise PermanentError(f"The code location {location} does not load: {error}")
        return loaded.keys() == self.ports.code_servers.keys()
