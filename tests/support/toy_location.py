"""A code location that does nothing, for tests of what is around it.

Its image is the platform's and one file, so that it is built and started within seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from on_cluster import ROOT, Namespace, run

from forge_platform.helm_values import merge, release_values, render

CHART = ROOT / "helm" / "code-location"
DEFINITIONS = """
import time
from pathlib import Path

import dagster as dg

CONFIG = {
    "seconds": dg.Field(float, default_value=0.0),
    "memory_mb": dg.Field(int, default_value=0),
    "disk_mb": dg.Field(int, default_value=0),
}


@dg.asset
def {location}_{version}(): ...


@dg.op(config_schema=CONFIG, out=dg.Out(dg.Nothing))
def work(context):
    context.log.info("this is version {version}")
    held = b"x" * (context.op_config["memory_mb"] * 1_000_000)
    with Path("/tmp/held").open("wb") as file:
        for _ in range(context.op_config["disk_mb"]):
            file.write(b"x" * 1_000_000)
    end = time.monotonic() + context.op_config["seconds"]
    while time.monotonic() < end:
        time.sleep(0.1)
    context.log.info(f"version {version} has held {len(held)} bytes")


@dg.job(executor_def=dg.in_process_executor)
def work_job():
    work()


defs = dg.Definitions(assets=[{location}_{version}], jobs=[work_job])
"""


def work(**config: float) -> Mapping[str, Any]:
    """The configuration of a run of ``work_job``."""
    return {"ops": {"work": {"config": config}}}


@dataclass(frozen=True)
class ToyLocation:
    """A code location of its own, in the namespace of a platform.

    Attributes:
        platform_image: what its image is built from.
        registry: where its image is pushed to.
    """

    location: str
    namespace: Namespace
    platform_image: str
    registry: str

    def build(self, version: str) -> str:
        """Builds and pushes the image of a version, and returns its tag."""
        definitions = DEFINITIONS.replace("{location}", self.location)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            text = definitions.replace("{version}", version)
            (folder / "definitions.py").write_text(text)
            (folder / "Dockerfile").write_text(
                f"FROM {self.platform_image}\n"
                f"COPY --chmod=644 definitions.py /app/code/{self.location}/definitions.py\n"
            )
            image = f"{self.repository}:{version}"
            run("docker", "build", "--quiet", "--tag", image, name)
        run("docker", "push", "--quiet", image)
        return version

    @property
    def repository(self) -> str:
        """Its image, without a tag."""
        return f"{self.registry}/toys/{self.location}"

    def deploy(self, version: str, *options: str, chart: Path = CHART, **values: Any) -> None:
        """Installs or upgrades its release."""
        chart_values = yaml.safe_load((chart / "values.yaml").read_text())
        own = {
            "location": self.location,
            "image": {"repository": self.repository, "tag": version},
            # What is tested here is what comes after it.
            "validation": {"enabled": False},
        }
        run(
            *("helm", "upgrade", "--install", self.location, str(chart)),
            *("--namespace", self.namespace.name, "--values", "-", *options),
            text=render(release_values([chart_values, merge(own, values)])),
        )

    def remove(self) -> None:
        """Removes its release, if there is one."""
        name = ("uninstall", self.location, "--namespace", self.namespace.name)
        run("helm", *name, "--ignore-not-found", "--wait")


MakeToy = Callable[[str], ToyLocation]
"""Makes a toy location of a name, which is removed when the test module is over."""
