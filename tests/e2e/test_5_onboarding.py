"""A fourth location comes from a scaffold, and goes; the platform does not notice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from dagster_client import Dagster
from installation import Installation
from location_probe import probing
from on_cluster import ROOT, Namespace, run, start_times, wait_until

from forge_platform.scaffold import scaffold

NAME = "returns"
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")


def test_a_location_is_onboarded_from_a_scaffold_and_removed(
    installation: Installation,
    namespace: Namespace,
    ui: Dagster,
    checkout: Path,
    figure: Callable[[str], None],
) -> None:
    before = start_times(namespace)
    scaffold(NAME, checkout / "code_locations")
    run(UV, "lock", "--quiet", cwd=checkout)
    names = (f"LOCATION={NAME}", "TAG=first", "ENVIRONMENT=demo", f"NAMESPACE={namespace.name}")
    with probing(ui, namespace.name, NAME, job="") as probe:
        run("make", "deploy", *names, cwd=checkout)
        wait_until(lambda: probe.shows(f"{NAME}_email_domains"), 30, f"{NAME} in the UI")
    seconds = probe.first(probe.loaded, f"{NAME}_email_domains") - probe.first(probe.ready, NAME)
    figure(f"a location from the scaffold is visible {seconds:.1f} s after its pod is ready")
    done = ui.wait_for_end(ui.launch(NAME, f"{NAME}_job"), 180)
    assert done.status == "SUCCESS", done.text
    assert start_times(namespace) == before
    run("helm", "uninstall", NAME, "--namespace", namespace.name, "--wait")
    wait_until(lambda: NAME not in ui.locations(), 30, f"{NAME}'s removal")
    assert start_times(namespace) == before
    assert installation.serving(NAME) == {}
