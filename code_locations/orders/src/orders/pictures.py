"""Pictures of order tables, for the metadata of their materialisations."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

LIGHT, STRONG = "#9ecae1", "#08519c"


def revenue_curve(summary: pl.DataFrame) -> bytes:
    """Draws the revenue of each day, and its 7-day average on top.

    Args:
        summary: what ``transforms.sales_daily_summary`` returns.

    Returns:
        A PNG image.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Revenue per day in US dollars", loc="left")
    if summary.is_empty():
        axes.set_axis_off()
        axes.text(0.5, 0.5, "There are no orders.", ha="center", va="center")
    else:
        _draw(axes, summary)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _draw(axes: Axes, summary: pl.DataFrame) -> None:
    days = summary["date"]
    # One outline, not a bar for each day: some years of bars take seconds.
    midnights = days.clone().append(days.tail(1).dt.offset_by("1d")).to_numpy()
    axes.stairs(summary["revenue"].cast(float), midnights, fill=True, color=LIGHT, label="day")
    average = summary["revenue_7d_avg"].cast(float)
    axes.plot(days.to_numpy(), average, color=STRONG, linewidth=2, label="7-day average")
    axes.legend(frameon=False, loc="upper right", ncols=2)
    _style(axes, days.len())


def _style(axes: Axes, days: int) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import StrMethodFormatter

    locator = AutoDateLocator(minticks=min(days, 5))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_formatter(StrMethodFormatter("${x:,.0f}"))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0, y=0.15)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=7)
