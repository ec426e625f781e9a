"""docs/add-a-location.md, followed word by word: a fourth location comes, changes, and goes.

The platform does not notice. What keeps running, a webserver of the location's own, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dagster_client import Dagster
from docs_page import Page, Reader
from installation import Installation
from location_probe import probing
from on_cluster import Namespace, start_times, wait_until

NAME = "returns"


def test_a_location_is_onboarded_from_a_scaffold_and_removed(
    installation: Installation,
    namespace: Namespace,
    ui: Dagster,
    checkout: Path,
    figure: Callable[[str], None],
) -> None:
    where = {"NAMESPACE=forge": f"NAMESPACE={namespace.name}"}
    page = Page.read(
        "docs/add-a-location.md",
        {**where, "--namespace forge": f"--namespace {namespace.name}"},
    )
    reader = Reader(checkout, {})
    before = start_times(namespace)
    own = page.bash("1. The scaffold", "2. Make it yours, and run it here")
    reader.types("\n".join(line for line in own.splitlines() if "dagster dev" not in line))
    with probing(ui, namespace.name, NAME, job="") as probe:
        reader.types(page.bash("3. Release it"))
        wait_until(lambda: probe.shows(f"{NAME}_email_domains"), 30, f"{NAME} in the UI")
    seconds = probe.first(probe.loaded, f"{NAME}_email_domains") - probe.first(probe.ready, NAME)
    figure(f"a location from the scaffold is visible {seconds:.1f} s after its pod is ready")
    done = ui.wait_for_end(ui.launch(NAME, f"{NAME}_job"), 180)
    assert done.status == "SUCCESS", done.text
    change, back, remove = page.bash("4. Change it, take it back, remove it").splitlines()
    for command, tag in ((change, "0.2.0"), (back, "0.1.0")):
        reader.types(command)
        (deployment,) = namespace.get("deployment", f"deployment={NAME}")
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        assert image.endswith(f"/{NAME}:{tag}")
    assert start_times(namespace) == before
    reader.types(remove)
    wait_until(lambda: NAME not in ui.locations(), 30, f"{NAME}'s removal")
    assert start_times(namespace) == before
    assert installation.serving(NAME) == {}
