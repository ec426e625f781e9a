from __future__ import annotations

import io
from datetime import date

import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt
from matplotlib.image import imread

from customers.pictures import retention_heat_map

KILOBYTE = 1024


def retention(cohorts: int, months: int) -> pl.DataFrame:
    rows = [
        (date(2020 + cohort // 12, cohort % 12 + 1, 1), month, 7846, 0, 1 / (month + 1))
        for cohort in range(cohorts)
        for month in range(months)
        if cohort + month < max(cohorts, months)
    ]
    schema = ["cohort", "month", "customers", "active", "retention"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(imread(io.BytesIO(png), format="png"), dtype=np.float32)


@pytest.mark.parametrize(("cohorts", "months"), [(1, 2), (3, 18), (8, 12), (60, 60), (3, 60)])
def test_it_is_a_small_picture_of_readable_size(cohorts: int, months: int) -> None:
    png = retention_heat_map(retention(cohorts, months))

    height, width, _ = pixels(png).shape
    assert len(png) < 80 * KILOBYTE
    assert 580 <= width <= 1150
    assert 220 <= height <= 1150


def test_more_retention_is_darker() -> None:
    low_then_high = pl.DataFrame(
        {
            "cohort": [date(2024, 1, 1)] * 3,
            "month": [0, 1, 2],
            "customers": [10] * 3,
            "retention": [1.0, 0.01, 0.5],
        }
    )

    image = pixels(retention_heat_map(low_then_high))

    row = image[image.shape[0] // 3]
    left, right = row[int(row.shape[0] * 0.35)], row[int(row.shape[0] * 0.75)]
    assert left[:3].sum() > right[:3].sum() + 1


def test_nobody_came_back() -> None:
    nobody = retention(2, 3).with_columns(retention=pl.lit(0.0))

    assert retention_heat_map(nobody)


@pytest.mark.parametrize("rows", [retention(3, 4).clear(), retention(1, 1)])
def test_without_a_second_month_it_says_so(rows: pl.DataFrame) -> None:
    assert pixels(retention_heat_map(rows)).min() < 0.5, "there is dark text"


def test_it_leaves_no_figure_behind() -> None:
    retention_heat_map(retention(3, 4))

    assert plt.get_fignums() == []
