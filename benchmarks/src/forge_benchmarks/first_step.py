"""A code location and an asset whose run ends as soon as its first step begins.

``FORGE_BENCHMARK_LOCATION`` names the location; without it, Dagster is alone.
"""

import os
import sys
from importlib import import_module

import dagster as dg

_ONLY_FOR_ASSETS = {"duckdb", "polars", "pyiceberg"}


def _location() -> dg.Definitions:
    if name := os.environ.get("FORGE_BENCHMARK_LOCATION"):
        found = import_module(f"{name}.definitions").defs
        assert isinstance(found, dg.Definitions)  # noqa: S101 - for the types
        return found
    return dg.Definitions(executor=dg.in_process_executor)


_THEIRS = _location()


@dg.asset(required_resource_keys=set(_THEIRS.resources or {}))
def first_step() -> None:
    """Tells which libraries are loaded that only assets need, and ends the process."""
    sys.stdout.write(" ".join(sorted(_ONLY_FOR_ASSETS & sys.modules.keys())) or "none")
    sys.stdout.flush()
    os._exit(0)


JOB = dg.define_asset_job("first_step_job", selection=[first_step])
defs = dg.Definitions.merge(_THEIRS, dg.Definitions(assets=[first_step], jobs=[JOB]))
