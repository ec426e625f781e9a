from __future__ import annotations

import io
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt
from matplotlib.image import imread

from orders.pictures import revenue_curve

KILOBYTE = 1024


def summary(revenue: list[int]) -> pl.DataFrame:
    days = [date(2024, 1, 1) + timedelta(days=day) for day in range(len(revenue))]
    money = [Decimal(amount) for amount in revenue]
    return pl.DataFrame(
        {"date": days, "revenue": money, "revenue_7d_avg": money},
        schema={
            "date": pl.Date(),
            "revenue": pl.Decimal(38, 2),
            "revenue_7d_avg": pl.Decimal(38, 2),
        },
    )


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(imread(io.BytesIO(png), format="png"), dtype=np.float32)


@pytest.mark.parametrize("days", [1, 2, 10, 546, 4000])
def test_it_is_a_small_picture(days: int) -> None:
    png = revenue_curve(summary([1000 + day * 37 % 900 for day in range(days)]))

    height, width, _ = pixels(png).shape
    assert len(png) < 80 * KILOBYTE
    assert (width, height) == (1000, 360)


def test_more_revenue_is_higher() -> None:
    image = pixels(revenue_curve(summary([100] * 20 + [1000] * 20)))

    light_blue = (image[:, :, 2] > image[:, :, 0] + 0.2).sum(axis=0)
    assert light_blue[800] > 2 * light_blue[250] > 0


def test_without_orders_it_says_so() -> None:
    assert pixels(revenue_curve(summary([]))).min() < 0.5, "there is dark text"


def test_refunds_below_zero_are_drawn() -> None:
    assert revenue_curve(summary([100, -50, 0]))


def test_it_leaves_no_figure_behind() -> None:
    revenue_curve(summary([1, 2]))

    assert plt.get_fignums() == []
