"""A code location with what the others have not: a table that is appended to without a key."""

from __future__ import annotations

import dagster as dg
import polars as pl

from forge_platform import RETRY_TRANSIENT, build_definitions, table_options


@dg.asset(metadata=table_options(mode="append"), retry_policy=RETRY_TRANSIENT)
def lines() -> pl.DataFrame:
    """Three rows more with every run."""
    return pl.DataFrame({"number": [1, 2, 3]})


defs = build_definitions(
    "log",
    assets=[lines],
    jobs=[dg.define_asset_job("log_job", selection=dg.AssetSelection.groups("log"))],
)
