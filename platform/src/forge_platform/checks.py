"""Checks that several code locations need: a table against its contract, rows against a rule."""

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from forge_platform.contracts import TableContract
from forge_platform.errors import RETRY_TRANSIENT
from forge_platform.resources.iceberg import IcebergResource

if TYPE_CHECKING:
    import polars as pl

    from forge_platform.tables import TableView


def contract_check(contract: TableContract) -> dg.AssetChecksDefinition:
    """A blocking check that a table is what readers in other locations rely on.

    Columns and types are the contract's (more columns are allowed), the key is unique and
    never NULL, and the last materialisation is younger than the contract's ``max_age``.
    """

    @dg.asset_check(
        asset=contract.asset_key,
        name="contract",
        blocking=True,
        retry_policy=RETRY_TRANSIENT,
        description=f"{contract.identifier} keeps what it promises to other code locations.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, iceberg: IcebergResource
    ) -> dg.AssetCheckResult:
        view = iceberg.view(contract.identifier)
        problems = [
            *column_problems(contract, view),
            *key_problems(contract, view),
            *age_problems(contract, context.instance),
        ]
        return dg.AssetCheckResult(
            passed=not problems,
            description="; ".join(problems) or "The contract holds.",
            metadata={"problems": problems, "snapshot_id": str(view.snapshot_id)},
        )

    return check


def column_problems(contract: TableContract, view: "TableView") -> list[str]:
    """Columns that the table lacks or has with another type, each as one sentence."""
    found = view.column_types()
    return [
        f"{name} is {found.get(name, 'missing')} where the contract has {kind}"
        for name, kind in contract.columns.items()
        if found.get(name) != kind
    ]


def key_problems(contract: TableContract, view: "TableView") -> list[str]:
    """NULL and repeated keys, each as one sentence; nothing when a key column is missing."""
    import polars as pl

    if not set(contract.key) <= set(view.column_types()):
        return []
    keys = view.scan().select(contract.key)
    nulls = pl.any_horizontal(pl.all().is_null()).sum()
    counts = keys.select(rows=pl.len(), unique=pl.struct(pl.all()).n_unique(), nulls=nulls)
    rows, unique, missing = counts.collect(engine="streaming").row(0)
    key = ", ".join(contract.key)
    return [
        *([f"{missing} rows have NULL in the key ({key})"] if missing else []),
        *([f"{rows - unique} rows repeat a key ({key})"] if unique != rows else []),
    ]


def age_problems(contract: TableContract, instance: dg.DagsterInstance) -> list[str]:
    """Whether the last materialisation is older than the contract allows, as one sentence."""
    event = instance.get_latest_materialization_event(contract.asset_key)
    if event is None:
        return ["it was never materialised"]
    made = dt.datetime.fromtimestamp(event.timestamp, dt.UTC)
    age = dt.datetime.now(dt.UTC) - made
    if age <= contract.max_age:
        return []
    return [f"it was last materialised {age} ago, the contract allows {contract.max_age}"]


def row_check(
    table: str,
    *,
    name: str,
    description: str,
    wrong: "Callable[[pl.LazyFrame], pl.LazyFrame]",
) -> dg.AssetChecksDefinition:
    """A check that no row of a table breaks a rule.

    Args:
        table: the table, ``namespace.asset``.
        name: the check's name.
        description: the rule, as one sentence.
        wrong: selects the rows that break it.
    """

    @dg.asset_check(
        asset=table.rpartition(".")[2],
        name=name,
        description=description,
        retry_policy=RETRY_TRANSIENT,
    )
    def check(iceberg: IcebergResource) -> dg.AssetCheckResult:
        import polars as pl

        count = wrong(iceberg.view(table).scan()).select(pl.len()).collect().item()
        return dg.AssetCheckResult(passed=count == 0, metadata={"wrong_rows": count})

    return check
