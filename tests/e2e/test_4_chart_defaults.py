"""The official charts as they are, beside this platform: how long a run and an upgrade take.

Only images and a database are named, and the user is root as in Dagster's own image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean

import pytest
from cluster_tables import secret
from dagster_client import Dagster
from installation import Installation
from location_probe import Probe, probing
from on_cluster import ROOT, Namespace, run, wait_until
from toy_location import MakeToy, ToyLocation

from forge_platform.helm_values import Values, render

NAMESPACE = "forge-e2e-defaults"
LOCATION = "plain"
DATABASE = "official"
PORT = 3030
ROOT_USER = {"runAsUser": 0}
RUNS = 3


@pytest.fixture(scope="module")
def toy(make_toy: MakeToy) -> ToyLocation:
    found = make_toy(LOCATION)
    for version in ("v1", "v2"):
        found.build(version)
    return found


@dataclass(frozen=True)
class OfficialCharts:
    """The official charts in a namespace of their own, with one code location."""

    namespace: Namespace
    installation: Installation
    toy: ToyLocation

    def install(self) -> None:
        """The control plane; its workspace file names the location."""
        repository, _, tag = self.installation.platform_image.rpartition(":")
        part = {"image": {"repository": repository, "tag": tag}, "securityContext": ROOT_USER}
        servers = [{"host": LOCATION, "port": PORT, "name": LOCATION}]
        values = {
            "generatePostgresqlPasswordSecret": False,
            "postgresql": {
                "enabled": False,
                "image": {"tag": "15-bookworm"},
                "postgresqlHost": f"dev-postgres.{self.installation.namespace.name}",
                "postgresqlUsername": "dagster",
                "postgresqlDatabase": DATABASE,
            },
            "dagsterWebserver": {**part, "workspace": {"enabled": True, "servers": servers}},
            "dagsterDaemon": part,
            "dagster-user-deployments": {"enableSubchart": False, "deployments": []},
        }
        self._release("platform", "official", values)

    def deploy(self, version: str) -> None:
        """Installs or upgrades the code location."""
        image = {"repository": self.toy.repository, "tag": version, "pullPolicy": "Always"}
        location = {
            "name": LOCATION,
            "image": image,
            "port": PORT,
            "dagsterApiGrpcArgs": ["-m", f"{LOCATION}.definitions"],
            # Dagster's own image ends its server at once.
            "env": [{"name": "FORGE_DRAIN_SECONDS", "value": "0"}],
        }
        instance = {"dagsterInstanceConfigMap": "official-dagster-instance"}
        self._release("code-location", LOCATION, {"deployments": [location], "global": instance})

    def _release(self, folder: str, name: str, values: Values) -> None:
        (chart,) = (ROOT / "helm" / folder / "charts").glob("*.tgz")
        options = ("--namespace", self.namespace.name, "--values", "-", "--wait", "--timeout", "3m")
        run("helm", "upgrade", "--install", name, str(chart), *options, text=render(values))


@pytest.fixture(scope="module")
def official(installation: Installation, toy: ToyLocation) -> Iterator[OfficialCharts]:
    run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    run("kubectl", "create", "namespace", NAMESPACE)
    installation.empty_database(DATABASE)
    installation.admit_visitors()
    charts = OfficialCharts(Namespace(NAMESPACE), installation, toy)
    password = secret(installation.namespace, "dagster-postgresql")
    metadata = {"name": "dagster-postgresql-secret"}
    charts.namespace.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": password}
    )
    charts.deploy("v1")
    charts.install()
    yield charts
    run("helm", "uninstall", "official", LOCATION, "--namespace", NAMESPACE, "--wait")
    run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def official_ui(official: OfficialCharts) -> Iterator[Dagster]:
    with official.namespace.forward("service/official-dagster-webserver", 80) as url:
        yield Dagster(url)


@dataclass(frozen=True)
class RunTimes:
    """Seconds from the launch of a trivial run to its first log line and to its end."""

    first_line: float
    success: float

    @classmethod
    def of(cls, ui: Dagster) -> RunTimes:
        """The means of a few runs, one after the other: they wait for a look at the queue."""
        wait_until(lambda: ui.assets(LOCATION), 60, f"{LOCATION} in the UI")
        lines, ends = [], []
        for _ in range(RUNS):
            done = ui.wait_for_end(ui.launch(LOCATION, "work_job"), 90)
            assert done.status == "SUCCESS", done.text
            line = next(event for event in done.events if "this is version" in event.message)
            lines.append(line.at - done.events[0].at)
            ends.append(done.seconds_until("RunSuccessEvent"))
        return cls(mean(lines), mean(ends))

    def __str__(self) -> str:
        return f"first log line after {self.first_line:.1f} s, success after {self.success:.1f} s"


def test_a_trivial_run_takes_less_than_with_chart_defaults(
    official_ui: Dagster, ui: Dagster, toy: ToyLocation, figure: Callable[[str], None]
) -> None:
    toy.deploy("v1", "--wait")
    theirs, ours = RunTimes.of(official_ui), RunTimes.of(ui)
    figure(f"a trivial run: {ours}; official charts as they are: {theirs}")
    assert ours.success < theirs.success


def test_an_upgrade_beside_one_with_chart_defaults(
    official: OfficialCharts,
    official_ui: Dagster,
    ui: Dagster,
    toy: ToyLocation,
    figure: Callable[[str], None],
) -> None:
    with probing(official_ui, NAMESPACE, LOCATION, "work_job") as theirs:
        official.deploy("v2")
        time.sleep(10)
    with probing(ui, toy.namespace.name, LOCATION, "work_job") as ours:
        toy.deploy("v2", "--wait")
        wait_until(lambda: ours.shows(f"{LOCATION}_v2"), 30, "version v2 in the UI")
        time.sleep(8)
    figure(f"official charts upgraded: {said(theirs)}; ours: {said(ours)}")
    assert not [*ours.unloaded, *ours.unreachable]
    assert ours.loaded[-1].text == f"{LOCATION}_v2"


def said(probe: Probe) -> str:
    """What was seen, and the version that was shown at last."""
    return f"{probe.summary()}, at last {probe.loaded[-1].text}"
