"""The command ``forge-registrar``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from forge_platform.registrar.cluster import Names

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the registrar until it is stopped."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("forge_platform").setLevel(logging.INFO)
    # As the first process of its container it would not end by itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _run(options)


def _run(options: argparse.Namespace) -> None:
    import dagster as dg
    from kubernetes import config

    from forge_platform.registrar.cluster import Cluster
    from forge_platform.registrar.diagnosis import Patience
    from forge_platform.registrar.health import health_server
    from forge_platform.registrar.loop import Loop, watch_for_ever
    from forge_platform.registrar.registrar import Registrar
    from forge_platform.registrar.run_keeper import RunKeeper

    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config()
    else:
        config.load_kube_config()
    names = _names(options)
    cluster = Cluster(names)
    registrar = Registrar(cluster, options.webserver_port, options.path_prefix)
    workspace = Loop("workspace", registrar.step, options.period)
    loops, watches = [workspace], [(workspace, watch) for watch in cluster.watches()]
    if options.runs:
        keeper = RunKeeper(
            dg.DagsterInstance.get,
            names.namespace,
            Patience(unschedulable=timedelta(seconds=options.unschedulable_seconds)),
            timedelta(seconds=options.job_retention_seconds),
        )
        runs = Loop("runs", keeper.step, options.period, settle=0.5)
        loops.append(runs)
        watches += [(runs, watch) for watch in keeper.watches()]
    for loop, (call, filters) in watches:
        _start(watch_for_ever, call, names.namespace, filters, loop.wake)
    for loop in loops:
        _start(loop.run)
    health_server(loops, options.health_port).serve_forever()


def _start(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _names(options: argparse.Namespace) -> Names:
    return Names(
        namespace=options.namespace or _own_namespace(),
        workspace=options.workspace,
        code_locations=options.code_locations,
        location_label=options.location_label,
        webservers=options.webservers,
        daemons=options.daemons,
    )


def _own_namespace() -> str:
    if _NAMESPACE_FILE.exists():
        return _NAMESPACE_FILE.read_text().strip()
    return os.environ.get("POD_NAMESPACE", "default")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forge-registrar",
        description="Makes code locations live in the webserver, and keeps runs and Jobs in step.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = Names(namespace="")
    add = parser.add_argument
    add("--namespace", default="", help="where everything is; the pod's own when empty")
    add("--workspace", default=names.workspace, help="ConfigMap of the workspace file")
    add("--code-locations", default=names.code_locations, help="selector of their Services")
    add("--location-label", default=names.location_label, help="Service label with the name")
    add("--webservers", default=names.webservers, help="selector of the webserver's pods")
    add("--daemons", default=names.daemons, help="selector of the daemon's pods")
    add("--webserver-port", type=int, default=3000, help="port of the webserver's pods")
    add("--path-prefix", default="", help="the webserver's path prefix")
    add("--period", type=float, default=10, help="seconds between looks without a change")
    add("--no-runs", dest="runs", action="store_false", help="leave runs and Jobs alone")
    add(
        "--unschedulable-seconds",
        type=float,
        default=300,
        help="time in which a run's pod must find a node",
    )
    add(
        "--job-retention-seconds",
        type=float,
        default=60,
        help="how long a Job stays after its run has ended",
    )
    add("--health-port", type=int, default=8080, help="port of /healthz and /readyz")
    return parser
