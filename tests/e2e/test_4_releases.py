"""What becomes of a new image: served, refused with the reason, or taken back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from changed_image import append, change
from dagster_client import Dagster
from installation import Installation
from on_cluster import Namespace, run, wait_until

DEFINITIONS = "/app/code/{0}/definitions.py"
DOES_NOT_LOAD = """
raise RuntimeError("broken on purpose")
"""
BREAKS_ITS_CONTRACT = """
import dagster as dg

defs = build_definitions(
    "ingestion",
    assets=[databases.raw_customers, databases.raw_orders],
    resources={"database": dg.ResourceDefinition.hardcoded_resource(None)},
)
"""
HAS_ONE_MORE_ASSET = """
import dagster as dg


@dg.asset
def one_more_asset(): ...


defs = dg.Definitions.merge(defs, dg.Definitions(assets=[one_more_asset]))
"""


PACKAGES = "/app/venv/lib/python3.11/site-packages"


def new_tag(name: str) -> str:
    return f"{name}-{time.time_ns()}"


def refusal(
    installation: Installation, location: str, tag: str, folder: Path, seconds: int = 40
) -> str:
    """Tries to release an image that must not be served; returns what is printed.

    Args:
        seconds: that the hook has.
    """
    before = installation.serving(location)
    with pytest.raises(AssertionError) as failure:
        installation.release(location, tag, folder, validation={"timeoutSeconds": seconds})
    assert before
    assert installation.serving(location) == before
    return str(failure.value)


def test_an_image_that_does_not_load_is_refused(
    installation: Installation, ui: Dagster, tmp_path: Path
) -> None:
    image, file = installation.image("orders"), DEFINITIONS.format("orders")
    tag = append(image, file, DOES_NOT_LOAD, new_tag("broken"))
    printed = refusal(installation, "orders", tag, tmp_path)
    assert "refused: the definitions of orders.definitions do not load" in printed
    assert "RuntimeError: broken on purpose" in printed
    assert "enriched_orders" in ui.assets("orders")


def test_an_image_that_breaks_its_contract_is_refused(
    installation: Installation, ui: Dagster, tmp_path: Path
) -> None:
    image, file = installation.image("ingestion"), DEFINITIONS.format("ingestion")
    tag = append(image, file, BREAKS_ITS_CONTRACT, new_tag("contract"))
    printed = refusal(installation, "ingestion", tag, tmp_path)
    assert "refused: ingestion.exchange_rates is under contract" in printed
    assert "refused: ingestion.raw_orders has no check `contract`" in printed
    assert "exchange_rates" in ui.assets("ingestion")


def test_an_image_of_another_dagster_is_refused(
    installation: Installation, ui: Dagster, tmp_path: Path
) -> None:
    other = f"sed -i 's/^Version: .*/Version: 1.99.0/' {PACKAGES}/dagster-[0-9]*/METADATA"
    tag = change(installation.image("customers"), other, new_tag("dagster"))
    printed = refusal(installation, "customers", tag, tmp_path)
    assert "refused: this image has Dagster 1.99.0 and the platform 1." in printed
    assert "clean_customers" in ui.assets("customers")


def test_an_image_that_cannot_use_the_instance_is_refused(
    installation: Installation, ui: Dagster, tmp_path: Path
) -> None:
    """Its libraries lack what the platform's instance keeps the output of runs with."""
    image = installation.image("customers")
    tag = change(image, f"rm -r {PACKAGES}/dagster_aws", new_tag("instance"))
    printed = refusal(installation, "customers", tag, tmp_path)
    assert "refused: the platform's instance cannot be used: " in printed
    assert "dagster_aws" in printed
    assert "clean_customers" in ui.assets("customers")


def test_an_image_that_is_not_there_is_refused(
    installation: Installation, ui: Dagster, tmp_path: Path
) -> None:
    printed = refusal(installation, "customers", "not-there", tmp_path, seconds=15)
    assert "customers:not-there" in printed
    assert "not found" in printed
    assert "clean_customers" in ui.assets("customers")


def test_values_that_are_refused_leave_the_release_as_it_was(
    installation: Installation, tmp_path: Path
) -> None:
    """Helm, given nothing, would release the values of before once more, and say that it did."""
    before = installation.deployed_revision("customers")
    with pytest.raises(AssertionError) as failure:
        installation.release(
            "customers", "any", tmp_path, run={"tolerations": [{"no-such-name": "x"}]}
        )
    assert "forge-values: Runs could not be launched with" in str(failure.value)
    assert "is served from" not in str(failure.value)
    assert installation.deployed_revision("customers") == before


def test_a_release_is_served_and_taken_back(
    installation: Installation, ui: Dagster, namespace: Namespace, tmp_path: Path
) -> None:
    image, file = installation.image("orders"), DEFINITIONS.format("orders")
    tag = append(image, file, HAS_ONE_MORE_ASSET, new_tag("more"))
    revision = installation.deployed_revision("orders")
    installation.release("orders", tag, tmp_path)
    wait_until(lambda: "one_more_asset" in ui.assets("orders"), 20, "the new asset in the UI")
    run("helm", "rollback", "orders", revision, "--wait", "--namespace", namespace.name)
    wait_until(lambda: "one_more_asset" not in ui.assets("orders"), 20, "the old assets in the UI")
    assert "enriched_orders" in ui.assets("orders")
    (pod,) = installation.serving("orders")
    served = namespace.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.containers[0].image}")
    assert served == image
