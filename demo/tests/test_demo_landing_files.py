"""The files in the landing folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from forge_demo import landing_files
from forge_demo.source import LAST_CUSTOMER_ID

FIELDS = ["customer_id", "email", "first_name", "last_name", "created_at", "updated_at"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    landing_files.write_landing_files(tmp_path / "landing")
    return tmp_path / "landing"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_ids_are_those_that_are_documented(folder: Path) -> None:
    header, *shop = rows(folder / "customers-shop.csv")
    app = [json.loads(line) for line in (folder / "customers-app.jsonl").read_text().splitlines()]
    fair = pq.read_table(folder / "customers-fair.parquet")
    assert header == list(app[0]) == fair.column_names == FIELDS
    assert [int(row[0]) for row in shop] == [*range(23_571, 23_871), *range(1009, 8073, 1009)]
    assert [row["customer_id"] for row in app] == list(range(23_871, 24_071))
    assert fair["customer_id"].to_pylist() == list(range(24_071, 24_571))


def test_new_ids_are_above_those_of_the_source() -> None:
    ids = [number for ids in landing_files.NEW_CUSTOMERS.values() for number in ids]
    assert min(ids) == LAST_CUSTOMER_ID + 1
    assert len(ids) == len(set(ids)) == 1_120


def test_broken_rows_stand_between_good_ones(folder: Path) -> None:
    lines = (folder / "customers-phone.csv").read_text().splitlines()
    good = [line for line in lines[1:] if line.split(",")[0] in map(str, range(24_571, 24_691))]
    broken = [line for line in lines[1:] if line not in good]
    assert len(good) == 120
    assert len(broken) == len(landing_files.BROKEN_ROWS) == 8
    assert lines[-1] in good
    assert lines[6] in broken


def test_file_that_is_there_stays_as_it_is(folder: Path) -> None:
    (folder / "customers-app.jsonl").write_text("{}\n")
    before = (folder / "customers-shop.csv").stat()
    landing_files.write_landing_files(folder)
    assert (folder / "customers-app.jsonl").read_text() == "{}\n"
    assert (folder / "customers-shop.csv").stat() == before
    assert len(list(folder.iterdir())) == 4
