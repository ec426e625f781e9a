"""What comes in, as data frames: values in, data frames out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

_COLUMNS = ("date", "currency", "usd_per_unit")
_RATE = pl.Decimal(18, 8)


def parse_rates(rates: Sequence[Mapping[str, Any]]) -> tuple[pl.DataFrame, list[str]]:
    """Exchange rates as an API gives them, as text, in their types.

    Args:
        rates: objects with ``date`` (ISO), ``currency`` and ``usd_per_unit``.

    Returns:
        ``date``, ``currency``, ``usd_per_unit`` as decimal(18, 8); and what is wrong with the
        rates that are not among them, each as one sentence.
    """
    text = pl.DataFrame(
        [{name: _text(rate.get(name)) for name in _COLUMNS} for rate in rates],
        schema=dict.fromkeys(_COLUMNS, pl.String),
    )
    typed = text.with_columns(
        pl.col("date").str.to_date("%Y-%m-%d", strict=False),
        pl.col("usd_per_unit").cast(_RATE, strict=False),
    )
    valid = pl.all_horizontal(pl.all().is_not_null()) & (pl.col("usd_per_unit") > 0)
    wrong = text.filter(~typed.select(valid.fill_null(value=False)).to_series())
    return typed.filter(valid), [f"{row} is no rate" for row in wrong.to_dicts()]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
