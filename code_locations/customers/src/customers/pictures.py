"""Pictures of customer tables, for the metadata of their materialisations."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COHORTS = MONTHS = 24
CELLS_WITH_TEXT = 100
DARK = 0.6  # of the darkest cell: from here on white text is easier to read


def retention_heat_map(retention: pl.DataFrame) -> bytes:
    """Draws cohort by month since the first purchase, darker where more customers came back.

    Month 0 is left out: it is 100 % by definition and would dim all others. To stay readable
    it shows the newest 24 cohorts and their first 24 months.

    Args:
        retention: what ``transforms.cohort_retention`` returns.

    Returns:
        A PNG image.
    """
    from matplotlib.figure import Figure

    matrix = _matrix(retention)
    size = (_inches(matrix.width, 0.42, least=6.5), _inches(matrix.height, 0.34, least=2.5))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle("Customers who bought again, by month of their first purchase")
    axes = figure.add_subplot()
    if matrix.is_empty():
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No cohort is older than its first month.", ha="center", va="center")
    else:
        _draw(figure, axes, matrix)
    return _png(figure)


def _matrix(retention: pl.DataFrame) -> pl.DataFrame:
    returns = retention.filter(retention["month"].is_between(1, MONTHS))
    matrix = returns.pivot("month", index=["cohort", "customers"], values="retention")
    return matrix.sort("cohort").tail(COHORTS)


def _inches(cells: int, size: float, *, least: float) -> float:
    return max(cells * size + 1.5, least)


def _draw(figure: Figure, axes: Axes, matrix: pl.DataFrame) -> None:
    shares = matrix.drop("cohort", "customers")
    darkest = max(share for row in shares.rows() for share in row if share is not None)
    image = axes.imshow(shares.to_numpy(), cmap="YlGnBu", aspect="auto", vmin=0, vmax=darkest or 1)
    _label(axes, matrix, shares.columns)
    if shares.height * shares.width <= CELLS_WITH_TEXT:
        _write_percentages(axes, shares, dark=DARK * darkest)
    figure.colorbar(image, ax=axes, format=lambda share, _: f"{share:.0%}", pad=0.01)


def _label(axes: Axes, matrix: pl.DataFrame, months: list[str]) -> None:
    cohorts = [
        f"{cohort:%Y-%m}  ({customers:,})"
        for cohort, customers in matrix.select("cohort", "customers").iter_rows()
    ]
    axes.set_xticks(range(len(months)), months)
    axes.set_yticks(range(len(cohorts)), cohorts)
    axes.set_xlabel("months since the first purchase")
    axes.set_ylabel("cohort (customers)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_percentages(axes: Axes, shares: pl.DataFrame, dark: float) -> None:
    for row, values in enumerate(shares.iter_rows()):
        for column, share in enumerate(values):
            if share is not None:
                colour = "white" if share > dark else "black"
                text = f"{share:.0%}"
                axes.text(column, row, text, ha="center", va="center", color=colour, size=8)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
