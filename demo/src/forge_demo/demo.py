"""The demo from start to end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from forge_demo import source
from forge_demo.dagster_api import DagsterApi
from forge_demo.landing_files import write_landing_files
from forge_demo.ports import HOST, is_open
from forge_demo.postmaster import postmaster, stop_postmaster
from forge_demo.progress import progress
from forge_demo.report import print_report, problems, warnings
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
from forge_demo.watch import View, Watch
from forge_platform.errors import PermanentError, SourceUnavailable
from forge_platform.testing import EmbeddedPostgres

START_SECONDS = 180
FIRST_JOB = ("ingestion", "ingestion_job")
_BIN = Path(sys.executable).parent


@dataclass
class Demo:
    """The platform's servers on this machine."""

    state: DemoState
    ports: Ports
    console: Console
    _started: float = field(default_factory=time.monotonic)

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
            yield
        finally:
            self._stop()

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

    def say(self, text: str) -> None:
        """Prints a step with the time since the start."""
        elapsed = time.monotonic() - self._started
        self.console.print(f"{elapsed:6.1f} s  {text}", soft_wrap=True, highlight=False)

    def _start(self) -> None:
        self._clear_leftovers()
        self.state.write_env(self._environment)
        write_dagster_home(self.state, self.ports)
        write_landing_files(self.state.landing)
        self.say("starting the code servers, PostgreSQL and the exchange-rate API")
        self._start_code_servers()
        self._start_rates_api()
        self.postgres.start()
        self._prepare_databases()
        ports = [self.ports.rates, *self.ports.code_servers.values()]
        self.wait_for("code server", lambda: all(map(is_open, ports)), START_SECONDS)
        self.say("starting the Dagster webserver and daemon")
        self._start_dagster()
        self.wait_for("Dagster webserver", lambda: is_open(self.ports.webserver), START_SECONDS)
        self.wait_for("loaded workspace", self._is_loaded, START_SECONDS)
        self.say(f"the code locations {', '.join(self.ports.code_servers)} are loaded")
        self._write_off_lost_runs()

    def _stop(self) -> None:
        self.say("stopping")
        self.api.close()
        self.supervisor.stop()
        self.postgres.stop()
        stop_postmaster(self.state.postgres)

    def _clear_leftovers(self) -> None:
        if stop_processes(self.state.folder):
            self.say("stopped processes that a killed demo had left")
        stop_postmaster(self.state.postgres)

    def _start_code_servers(self) -> None:
        for location, port in self.ports.code_servers.items():
            module = f"{location}.definitions"
            command = [str(_BIN / "dagster"), "api", "grpc", "-h", HOST, "-p", str(port)]
            self.supervisor.start(location, [*command, "-m", module, "--location-name", location])

    def _start_rates_api(self) -> None:
        command = [sys.executable, "-m", "forge_demo.rates_api", "--port", str(self.ports.rates)]
        self.supervisor.start("rates_api", [*command, "--docs", str(ROOT / "docs")])

    def _start_dagster(self) -> None:
        workspace = ["-w", str(workspace_file(self.state))]
        port = str(self.ports.webserver)
        webserver = [str(_BIN / "dagster-webserver"), "-h", HOST, "-p", port]
        self.supervisor.start("webserver", [*webserver, *workspace])
        self.supervisor.start("daemon", [str(_BIN / "dagster-daemon"), "run", *workspace])

    def _prepare_databases(self) -> None:
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

    def _write_off_lost_runs(self) -> None:
        """A run of an earlier demo that was stopped in the middle would count as going on."""
        lost = [run.id for run in self.api.runs() if not run.is_over]
        if lost:
            self.api.cancel(lost)
            self.say(f"cancelled {len(lost)} runs that an earlier demo did not finish")


def run_demo(state: DemoState, port: int, *, once: bool, limit: float) -> int:
    """Runs the demo and returns the exit code of its process.

    Args:
        state: its folder.
        port: of the UI; the next free one is taken when it is not free.
        once: end when the assets are made, instead of staying up.
        limit: seconds after which the assets must be made.
    """
    console = make_console()
    with state.lock(), _stopped_by_signals():
        ports = Ports.choose(state, port)
        if ports.webserver != port:
            console.print(f"Port {port} is taken: the UI will be at port {ports.webserver}.")
        demo = Demo(state, ports, console)
        try:
            return _run(demo, once=once, limit=limit)
        except KeyboardInterrupt:
            return 130 if once else 0


def make_console() -> Console:
    """A console whose tables are whole in a log file too."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """A request to end, in whatever form, is a Ctrl-C; while we stop, further ones are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    yield


def _interrupt(_number: int, _frame: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(demo: Demo, *, once: bool, limit: float) -> int:
    with demo.running():
        since = time.time()
        demo.api.launch(*FIRST_JOB)
        demo.say(f"launched {FIRST_JOB[1]}; everything else follows by itself. UI: {demo.api.url}")
        wrong = show_work(demo.console, demo.api, since, limit, demo.check)
        if not once:
            _stay_up(demo)
        return 1 if wrong else 0


def _stay_up(demo: Demo) -> None:
    demo.console.print(
        f"\nThe UI is at {demo.api.url}. Try `make demo-change` in another terminal. "
        "Ctrl-C stops everything.",
        soft_wrap=True,
    )
    while True:
        demo.check()
        time.sleep(1)


def show_work(
    console: Console,
    api: DagsterApi,
    since: float,
    limit: float,
    check: Callable[[], None] = lambda: None,
) -> Sequence[str]:
    """Shows progress until the platform comes to rest, then the report.

    Returns:
        What is not as it should be.
    """
    watch = Watch(api, since)
    view = _watch_until_quiet(console, watch, limit, check)
    checks = watch.checks()
    print_report(console, view, checks)
    wrong = problems(view, checks, api)
    if not view.is_quiet:
        wrong.insert(0, f"The assets were not done after {limit:.0f} s.")
    for warning in warnings(checks):
        console.print(warning, style="yellow", soft_wrap=True, markup=False)
    for problem in wrong:
        console.print(problem, style="red", soft_wrap=True, markup=False)
    return wrong


def _watch_until_quiet(
    console: Console, watch: Watch, limit: float, check: Callable[[], None]
) -> View:
    deadline = time.monotonic() + limit
    with progress(console) as show:
        while True:
            check()
            view = watch.look()
            show(view)
            if view.is_quiet or time.monotonic() > deadline:
                return view
            time.sleep(1)
