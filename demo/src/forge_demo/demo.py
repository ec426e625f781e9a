"""The demo from start to end."""

from __future__ import annotations

import signal
import time

from forge_demo.dagster_api import DagsterApi, Run
from forge_demo.progress import make_console, progress
from forge_demo.report import print_report
from forge_demo.servers import Servers, clear_leftovers
from forge_demo.settings import Ports
from forge_demo.state import DemoState
from forge_demo.verdict import print_problems
from forge_demo.watch import View, Watch

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST_JOB = ("ingestion", "ingestion_job")


def run_demo(state: DemoState, port: int, *, once: bool, limit: float) -> int:
    """Runs the demo and returns the exit code of its process.

    Args:
        state: its folder.
        port: of the UI; the next free one is taken when it is not free.
        once: end when the assets are made, instead of staying up.
        limit: seconds after which the assets must be made.
    """
    console = make_console()
    _stop_on_signals()
    with state.lock():
        if clear_leftovers(state):
            console.print("Stopped processes that a killed demo had left.")
        ports = Ports.choose(state, port)
        if ports.webserver != port:
            console.print(f"Port {port} is taken: the UI will be at port {ports.webserver}.")
        servers = Servers(state, ports, console)
        try:
            return _run(servers, once=once, limit=limit)
        except KeyboardInterrupt:
            return 130 if once else 0


def _stop_on_signals() -> None:
    """A request to end, in whatever form, is a Ctrl-C."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # we are stopping; nothing may interrupt that
    raise KeyboardInterrupt


def _run(servers: Servers, *, once: bool, limit: float) -> int:
    with servers.running():
        unfinished = unfinished_runs(servers.api, servers.started)
        servers.api.launch(*FIRST_JOB)
        for run in unfinished:
            servers.api.repeat(run)
            servers.say(f"repeated a run that an earlier demo did not finish: {run.id}")
        # Only now: sensors then find the first run in the queue and request no other.
        servers.start_daemon()
        servers.say(
            f"launched {FIRST_JOB[1]}; everything else follows by itself. UI: {servers.api.url}"
        )
        wrong = _show_work(servers, limit)
        if not once:
            _stay_up(servers)
        return 1 if wrong else 0


def unfinished_runs(api: DagsterApi, before: float) -> list[Run]:
    """Runs of earlier demos that were cut off or failed, if nothing has made up for them.

    Automation takes them for handled and would wait for the next change of what they read.
    """
    earlier = [run for run in api.runs() if run.created < before]
    api.cancel([run.id for run in earlier if not run.is_over])
    assets = api.assets()
    newest = {asset.name: run for run in earlier for asset in assets if run.makes(asset)}
    bad = {run.id: run for run in newest.values() if run.status != "SUCCESS"}
    return [run for run in bad.values() if run.job != FIRST_JOB[1]]


def _stay_up(servers: Servers) -> None:
    servers.console.print(
        f"\nThe UI is at {servers.api.url}. Try `make demo-change` in another terminal. "
        "Ctrl-C stops everything.",
        soft_wrap=True,
    )
    while True:
        servers.check()
        time.sleep(1)


def _show_work(servers: Servers, limit: float) -> list[str]:
    """Shows progress until the platform comes to rest, then the report; returns what is wrong."""
    watch = Watch(servers.api, servers.started)
    view = _watch_until_quiet(servers, watch, limit)
    checks = watch.checks()
    print_report(servers.console, view, checks)
    if not view.is_quiet:
        servers.console.print(f"The assets were not done after {limit:.0f} s.", style="red")
    return print_problems(servers.console, view, checks, servers.api)


def _watch_until_quiet(servers: Servers, watch: Watch, limit: float) -> View:
    deadline = time.monotonic() + limit
    with progress(servers.console) as show:
        while True:
            servers.check()
            view = watch.look()
            show(view)
            if view.is_quiet or time.monotonic() > deadline:
                return view
            time.sleep(1)
