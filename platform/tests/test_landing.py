from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forge_platform.contracts import RAW_CUSTOMER_FILES
from forge_platform.errors import ConfigurationError, SourceUnavailable
from forge_platform.file_formats.parquet import read_parquet
from forge_platform.landing import FileSchema, LandedFiles, LoadedFile, load_files, not_loaded
from forge_platform.objects import StoredObject
from forge_platform.resources.object_store import S3Resource

COLUMNS = {
    name: kind for name, kind in RAW_CUSTOMER_FILES.columns.items() if not name.startswith("_")
}
SCHEMA = FileSchema(columns=COLUMNS, required=("customer_id", "updated_at"))
HEADER = ",".join(COLUMNS)
FIRST = "1,ann@example.org,Ann,Lee,2024-01-01,2024-01-02T10:00:00Z"
SECOND = "2,bob@example.org,Bob,Ray,2024-01-03T00:00:00+02:00,2024-01-04T10:00:00.5Z"


A_TIME = "a time with offset like 2024-01-31T10:00:00Z, or a date"


@dataclass(frozen=True)
class Result:
    """What a load gave, in memory."""

    rows: pl.DataFrame
    rejected: pl.DataFrame
    ledger: pl.DataFrame
    files: list[LoadedFile]
    postponed: list[StoredObject]
    metadata: Mapping[str, Any]

    @property
    def ids(self) -> list[int]:
        return self.rows["customer_id"].to_list()

    @property
    def lines(self) -> list[int]:
        return self.rows["_source_line"].to_list()

    @property
    def rejections(self) -> list[tuple[int, str, str]]:
        return self.rejected.select("source_line", "reason", "text").rows()

    def only_rejection(self) -> tuple[int, str, str]:
        [rejection] = self.rejections
        return rejection


class Landing:
    """A landing folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = S3Resource(uri=folder.as_uri())

    def drop(self, name: str, content: bytes | str) -> None:
        text = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(text)

    def load(self, schema: FileSchema = SCHEMA) -> Result:
        with load_files(self.store, self.store.list_objects(), schema) as landed:
            return result(landed)

    def load_one(self, name: str, content: bytes | str, schema: FileSchema = SCHEMA) -> Result:
        self.drop(name, content)
        return self.load(schema)


def frame(reader: pa.RecordBatchReader) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(reader.read_all()))


def result(landed: LandedFiles) -> Result:
    return Result(
        rows=frame(landed.rows()),
        rejected=frame(landed.rejected()),
        ledger=landed.ledger(),
        files=landed.files,
        postponed=landed.postponed,
        metadata=landed.metadata(),
    )


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    folder = tmp_path / "landing"
    folder.mkdir()
    return Landing(folder)


def csv(*lines: str) -> str:
    return "".join(f"{line}\n" for line in (HEADER, *lines))


def customer(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "customer_id": number,
        "email": f"c{number}@example.org",
        "first_name": "Ann",
        "last_name": "Lee",
        "created_at": "2024-01-01T00:00:00Z",
        "updated_at": "2024-01-02T10:00:00Z",
    } | changes


def json_lines(*rows: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def parquet(data: pl.DataFrame | pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(data.to_arrow() if isinstance(data, pl.DataFrame) else data, sink)
    return sink.getvalue()


def parquet_rows(*rows: dict[str, Any]) -> pl.DataFrame:
    times = pl.col("created_at", "updated_at").str.to_datetime(time_zone="UTC")
    return pl.DataFrame(rows).with_columns(times)


# What every format has in common


CONTENTS = {
    "a.csv": csv(FIRST, SECOND).encode(),
    "a.jsonl": json_lines(customer(1), customer(2)).encode(),
    "a.ndjson": json_lines(customer(1), customer(2)).encode(),
    "a.parquet": parquet(parquet_rows(customer(1), customer(2))),
    "A.CSV": csv(FIRST, SECOND).encode(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_good_rows_arrive_with_their_place(landing: Landing, name: str) -> None:
    found = landing.load_one(name, CONTENTS[name])
    assert found.ids == [1, 2]
    assert found.rows["_source_file"].to_list() == [name, name]
    assert found.rejected.is_empty()
    first_line = 2 if name.lower().endswith("csv") else 1
    assert found.lines == [first_line, first_line + 1]


@pytest.mark.parametrize("name", CONTENTS)
def test_rows_have_the_contracts_columns_and_types(landing: Landing, name: str) -> None:
    found = landing.load_one(name, CONTENTS[name])
    time_type = pl.Datetime("us", "UTC")
    assert found.rows.schema == {
        "customer_id": pl.Int64,
        "email": pl.String,
        "first_name": pl.String,
        "last_name": pl.String,
        "created_at": time_type,
        "updated_at": time_type,
        "_source_file": pl.String,
        "_source_line": pl.Int64,
    }
    assert list(found.rows.columns) == list(RAW_CUSTOMER_FILES.columns)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ""),
        ("a.csv", "\n\r\n\n"),
        ("a.csv", "\ufeff"),
        ("a.jsonl", ""),
        ("a.jsonl", "\n \n"),
        ("a.parquet", ""),
    ],
)
def test_an_empty_file_is_refused(landing: Landing, name: str, content: str) -> None:
    found = landing.load_one(name, content)
    line, reason, text = found.only_rejection()
    assert (line, text) == (0, "")
    assert "empty" in reason
    assert found.rows.is_empty()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "customer_id,email,phone\n1,a@b.org,5\n"),
        ("a.jsonl", json_lines({"customer_id": 1, "email": "a", "phone": 5})),
        ("a.parquet", parquet(pl.DataFrame({"customer_id": [1], "email": ["a"], "phone": [5]}))),
    ],
)
def test_a_missing_column_quarantines_the_file(
    landing: Landing, name: str, content: bytes | str
) -> None:
    found = landing.load_one(name, content)
    line, reason, text = found.only_rejection()
    assert (line, text) == (0, "")
    assert reason == (
        "columns are missing: first_name, last_name, created_at, updated_at; "
        "the file has: customer_id, email, phone"
    )
    assert found.rows.is_empty()
    assert found.files[0].refused == reason
    assert found.metadata["refused_files"] == {name: reason}
    assert (landing.folder / name).exists()


def test_the_ledger_has_refused_files_too(landing: Landing) -> None:
    found = landing.load_one("a.csv", "customer_id\n1\n")
    assert found.ledger.select("rows", "rejected").rows() == [(0, 1)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", f"phone,{HEADER},note\n5,{FIRST},x\n"),
        ("a.jsonl", json_lines(customer(1), customer(2, phone=5, note="x"))),
        ("a.parquet", parquet(parquet_rows(customer(1, phone=5, note="x")))),
    ],
)
def test_a_new_column_is_ignored_and_named(
    landing: Landing, name: str, content: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    found = landing.load_one(name, content)
    assert found.ids[0] == 1
    assert found.rejected.is_empty()
    assert found.metadata["ignored_columns"] == {name: ["phone", "note"]}
    assert f'file_columns_ignored source_file={name} columns="phone, note"' in caplog.text


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"customer_id": None}, "customer_id is missing"),
        ({"customer_id": "12x"}, "customer_id is not a whole number: 12x"),
        ({"customer_id": "1.5"}, "customer_id is not a whole number: 1.5"),
        ({"customer_id": str(2**63)}, f"customer_id is not a whole number: {2**63}"),
        ({"updated_at": None}, "updated_at is missing"),
        ({"updated_at": "yesterday"}, f"updated_at is not {A_TIME}: yesterday"),
        (
            {"updated_at": "never", "customer_id": "one"},
            f"customer_id is not a whole number: one; updated_at is not {A_TIME}: never",
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_value_that_does_not_fit_costs_its_row(
    landing: Landing, name: str, bad: dict[str, Any], reason: str
) -> None:
    rows = [customer(1), customer(2, **bad), customer(3)]
    texts = [{key: str(v) if v is not None else None for key, v in row.items()} for row in rows]
    contents: dict[str, bytes | str] = {
        "a.csv": pl.DataFrame(texts).write_csv(),
        "a.jsonl": json_lines(*rows),
        "a.parquet": parquet(pl.DataFrame(texts)),
    }
    content = contents[name]
    found = landing.load_one(name, content)
    assert found.ids == [1, 3]
    line, told, text = found.only_rejection()
    assert (line, told) == (3 if name == "a.csv" else 2, reason)
    if isinstance(content, str):
        assert text == content.splitlines()[line - 1]
    else:
        assert json.loads(text) == texts[1]


def test_optional_values_may_be_missing(landing: Landing) -> None:
    landing.drop("a.csv", csv("1,,,,,2024-01-01"))
    landing.drop("b.csv", csv('2,"",,"",,2024-01-01'))
    landing.drop("c.jsonl", json_lines({**customer(3), "email": None, "created_at": None}))
    found = landing.load()
    assert found.rejected.is_empty()
    assert found.rows["email"].to_list() == [None] * 3
    assert found.rows["created_at"].to_list() == [None] * 3


def test_text_is_kept_as_it_is(landing: Landing) -> None:
    """Blanks, capitals and addresses are the business of clean_customers."""
    found = landing.load_one("a.csv", csv("1, Not An Address ,  Ann,Ünï \u2603,,2024-01-01"))
    row = found.rows.row(0, named=True)
    assert (row["email"], row["first_name"]) == (" Not An Address ", "  Ann")
    assert row["last_name"] == "Ünï \u2603"


def test_duplicate_rows_are_all_kept(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv(FIRST, FIRST))
    assert found.ids == [1, 1]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
        ("2024-01-31T10:00:00Z", datetime(2024, 1, 31, 10, tzinfo=UTC)),
        ("2024-01-31t10:00:00z", datetime(2024, 1, 31, 10, tzinfo=UTC)),
        (" 2024-01-31T10:00:00+05:30 ", datetime(2024, 1, 31, 4, 30, tzinfo=UTC)),
        ("2024-01-31T10:00:00-0230", datetime(2024, 1, 31, 12, 30, tzinfo=UTC)),
        ("2024-01-31 10:00:00+00", datetime(2024, 1, 31, 10, tzinfo=UTC)),
        ("2024-01-31T10:00Z", datetime(2024, 1, 31, 10, tzinfo=UTC)),
        ("2024-01-31T10:00:00.123456789Z", datetime(2024, 1, 31, 10, 0, 0, 123456, UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_times_in_iso_8601(landing: Landing, text: str, moment: datetime) -> None:
    found = landing.load_one("a.csv", csv(f"1,,,,,{text}"))
    assert found.rows["updated_at"].to_list() == [moment]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31T10:00:00",  # of which place?
        "2023-02-29",
        "2024-13-01",
        "2024-01-31T24:30:00Z",
        "2024-01-31T10:00:00+25:00",
        "31.01.2024",
        "01/31/2024",
        "2024-1-31",
        "20240131",
        "1706695200",
        "2024-01-31Z",
        "2024-01-31T10:00:00Zulu",
        "NULL",
    ],
)
def test_any_other_time_is_rejected(landing: Landing, text: str) -> None:
    found = landing.load_one("a.csv", csv(f"1,,,,,{text}"))
    assert found.only_rejection()[1].endswith(f": {text}")


@pytest.mark.parametrize("text", ["7", " 7 ", "+7", "7.0", "007"])
def test_whole_numbers_as_people_write_them(landing: Landing, text: str) -> None:
    found = landing.load_one("a.csv", csv(f"{text},,,,,2024-01-01"))
    assert found.ids == [7]


@pytest.mark.parametrize("text", ["1e3", "0x10", "1,000", "1_000", "7.01", "seven", "-", "\uff11"])
def test_anything_else_is_no_whole_number(landing: Landing, text: str) -> None:
    found = landing.load_one("a.csv", csv(f'"{text}",,,,,2024-01-01'))
    assert found.rows.is_empty()
    assert "customer_id is not a whole number" in found.only_rejection()[1]


def test_other_types_of_columns(landing: Landing) -> None:
    schema = FileSchema(columns={"i": "int", "d": "double", "day": "date"})
    content = "i,d,day\n1,2.5,2024-01-31\n3000000000,,\n,x,\n,,2024-01-31T00:00:00Z\n"
    found = landing.load_one("a.csv", content, schema)
    assert found.rows.rows()[0][:3] == (1, 2.5, datetime(2024, 1, 31, tzinfo=UTC).date())
    assert [line for line, _, _ in found.rejections] == [3, 4, 5]


@pytest.mark.parametrize(
    ("text", "number"), [("inf", inf), ("-Infinity", -inf), ("1e308", 1e308), ("0.1", 0.1)]
)
def test_numbers_a_double_holds(landing: Landing, text: str, number: float) -> None:
    found = landing.load_one("a.csv", f"d\n{text}\n", FileSchema(columns={"d": "double"}))
    assert found.rows["d"].to_list() == [number]


@pytest.mark.parametrize(
    ("name", "content", "number"),
    [
        ("a.csv", "d\n1\n1e400\n", "1e400"),
        ("a.csv", "d\n1\n9007199254740993\n", "9007199254740993"),
        ("a.parquet", parquet(pl.DataFrame({"d": [1, 2**53 + 1]})), "9007199254740993"),
    ],
)
def test_a_number_a_double_cannot_hold_is_rejected(
    landing: Landing, name: str, content: str | bytes, number: str
) -> None:
    found = landing.load_one(name, content, FileSchema(columns={"d": "double"}))
    assert found.rows["d"].to_list() == [1]
    assert found.only_rejection()[1] == f"d is not a number: {number}"


def test_an_unknown_type_is_a_configuration_error(landing: Landing) -> None:
    schema = FileSchema(columns={"a": "list<string>"})
    with pytest.raises(ConfigurationError, match="list<string>"):
        landing.load_one("a.csv", "a\n1\n", schema)


def test_a_required_column_must_be_a_column() -> None:
    with pytest.raises(ConfigurationError, match="b"):
        FileSchema(columns={"a": "long"}, required=("b",))


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.csv.gz", "a.json"])
def test_an_unknown_kind_of_file_is_refused(landing: Landing, name: str) -> None:
    line, reason, _ = landing.load_one(name, "anything").only_rejection()
    assert line == 0
    assert "is not known: expected .csv, .jsonl, .ndjson, .parquet" in reason


# CSV


def test_a_cut_off_last_line_is_rejected_and_the_rest_arrives(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv(FIRST, SECOND) + "3,cy@exam")
    assert found.ids == [1, 2]
    line, reason, text = found.only_rejection()
    assert (line, text) == (4, "3,cy@exam")
    assert reason == "2 fields instead of 6; no line end follows: is the file cut off?"


def test_a_last_line_without_an_end_is_a_row(landing: Landing) -> None:
    assert landing.load_one("a.csv", csv(FIRST, SECOND).rstrip("\n")).ids == [1, 2]


def test_a_file_that_ends_inside_a_quoted_field(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv(FIRST) + '2,"bob@exa')
    assert found.ids == [1]
    line, reason, text = found.only_rejection()
    assert (line, text) == (3, '2,"bob@exa')
    assert "never closed: is the file cut off?" in reason


@pytest.mark.parametrize("later", ["", '8,"h@x.org",H,,,2024-01-01', '8,h@x.org,"",,,2024-01-01'])
def test_a_quote_that_is_not_closed_costs_one_line(landing: Landing, later: str) -> None:
    rows = [f"{number},a@b.org,A,B,,2024-01-01" for number in range(1, 7)]
    rows[2] = '3,"c@x.org,C,D,,2024-01-01'
    found = landing.load_one("a.csv", csv(*rows, later))
    assert found.ids == [1, 2, 4, 5, 6] + ([8] if later else [])
    line, _, text = found.only_rejection()
    assert (line, text) == (4, rows[2])


def test_a_quote_that_is_not_closed_does_not_swallow_a_chunk(landing: Landing) -> None:
    rows = [f"{number},a@b.org,A,B,,2024-01-01" for number in range(120_000)]
    rows[5] = '5,"c@x.org,C,D,,2024-01-01'
    found = landing.load_one("a.csv", csv(*rows))
    assert len(found.ids) == 119_999
    assert found.only_rejection()[0] == 7
    assert found.lines[-1] == 120_001


def test_line_breaks_in_quotes_do_not_shift_the_lines(landing: Landing) -> None:
    quoted = '2,"b@x.org","Bo\nb","R\r\n""a""y",,2024-01-01'
    found = landing.load_one("a.csv", csv(FIRST, quoted, "3,x", FIRST))
    assert found.lines == [2, 3, 7]
    assert found.rows["first_name"].to_list() == ["Ann", "Bo\nb", "Ann"]
    assert found.rows["last_name"].to_list() == ["Lee", 'R\r\n"a"y', "Lee"]
    assert found.only_rejection()[0] == 6


def test_a_bad_row_of_several_lines_is_kept_as_it_is(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv(FIRST, 'two,"b\nc",,,,2024-01-01', FIRST))
    assert found.lines == [2, 5]
    line, reason, text = found.only_rejection()
    assert (line, text) == (3, 'two,"b\nc",,,,2024-01-01')
    assert "customer_id" in reason


def test_a_quoted_record_at_the_border_of_two_chunks(landing: Landing) -> None:
    rows = [f"{number},a@b.org,A,B,,2024-01-01" for number in range(1, 49_999)]
    border = '50000,"a\nb\nc",A,B,,2024-01-01'
    found = landing.load_one("a.csv", csv(*rows, border, *rows))
    assert found.ids == [*range(1, 49_999), 50_000, *range(1, 49_999)]
    assert found.lines[49_998:50_000] == [50_000, 50_003]


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_byte_order_mark_and_line_ends(landing: Landing, end: str, quote: str) -> None:
    text = csv(FIRST, SECOND.replace("Ray", f"{quote}Ray{quote}"))
    found = landing.load_one("a.csv", b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    assert found.ids == [1, 2]
    assert found.rows["last_name"].to_list() == ["Lee", "Ray"]
    assert found.rejected.is_empty()


def test_blank_lines_are_no_rows_but_count(landing: Landing) -> None:
    found = landing.load_one("a.csv", "\n\n" + csv(FIRST, "", SECOND, "", ""))
    assert found.lines == [4, 6]
    assert found.rejected.is_empty()


def test_a_header_alone_is_a_file_without_rows(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv())
    assert found.rejected.is_empty()
    assert found.files[0].refused is None
    assert found.ledger["rows"].to_list() == [0]


def test_lines_that_are_not_utf_8_are_rejected_with_escapes(landing: Landing) -> None:
    latin = "2,b@x.org,José,R,,2024-01-01\n".encode("latin-1")
    found = landing.load_one("a.csv", csv(FIRST).encode() + latin + f"{SECOND}\n".encode())
    assert found.lines == [2, 4]
    line, reason, text = found.only_rejection()
    assert (line, reason) == (3, "not UTF-8: byte 0xe9 at position 14")
    assert text == r"2,b@x.org,Jos\xe9,R,,2024-01-01"


def test_a_file_in_utf_16_is_refused(landing: Landing) -> None:
    line, reason, _ = landing.load_one("a.csv", csv(FIRST).encode("utf-16")).only_rejection()
    assert line == 0
    assert "header cannot be read: not UTF-8" in reason


def test_another_delimiter_shows_in_the_missing_columns(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv(FIRST).replace(",", ";"))
    assert "the file has: customer_id;email;" in found.only_rejection()[1]


def test_a_wanted_column_twice_is_refused(landing: Landing) -> None:
    found = landing.load_one("a.csv", f"{HEADER},email\n{FIRST},x\n")
    assert found.only_rejection()[1] == "columns come twice in the header: email"


@pytest.mark.parametrize("quote", ["", '"'])
def test_columns_in_any_order_and_nameless_ones(landing: Landing, quote: str) -> None:
    header = ",".join(reversed(HEADER.split(",")))
    row = ",".join(reversed(FIRST.replace("Ann", f"{quote}Ann{quote}").split(",")))
    found = landing.load_one("a.csv", f" {header} ,,\n{row},,\n")
    assert found.rows.row(0)[:4] == (1, "ann@example.org", "Ann", "Lee")


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("row", ["1", "1,2,3,4,5,6,7", "   ", ";"])
def test_a_wrong_number_of_fields(landing: Landing, row: str, quote: str) -> None:
    found = landing.load_one("a.csv", csv(FIRST.replace("Lee", f"{quote}Lee{quote}"), row, SECOND))
    assert found.ids == [1, 2]
    line, reason, text = found.only_rejection()
    count = row.count(",") + 1
    assert (line, text) == (3, row)
    assert reason == f"{count} field{'s' if count > 1 else ''} instead of 6"


def test_a_lone_carriage_return_costs_its_line(landing: Landing) -> None:
    found = landing.load_one("a.csv", csv(FIRST, "2,a\rb,,,,2024-01-01", SECOND).encode())
    assert found.ids == [1, 2]
    assert "carriage return" in found.only_rejection()[1]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_without_end_is_not_read_into_memory(landing: Landing, name: str) -> None:
    good = {"a.csv": csv(FIRST), "a.jsonl": json_lines(customer(1))}[name]
    long_line = "9,c@x.org,C," + "x" * 5_000_000 + ",,2024-01-01\n"
    found = landing.load_one(name, good + long_line + good.splitlines()[-1] + "\n")
    assert found.ids == [1, 1]
    assert found.lines[1] == found.lines[0] + 2
    _, reason, text = found.only_rejection()
    assert "1,048,576 bytes" in reason
    assert text == long_line[: 1024 * 1024]


# JSON lines


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"customer_id": 2, "email": "b@', "is the file cut off?"),
        ('{"customer_id": 2} {"customer_id": 3}', "not JSON: Extra data at character 20"),
        ("[1, 2]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("<html>", "not JSON"),
        ('{"customer_id": NaN}', "not JSON: NaN is no value"),
        (json.dumps(customer(2, email=["b@x.org"])), "email is a list, not a text or a number"),
        (json.dumps(customer(2, email={"home": "b"})), "email is an object"),
        (json.dumps(customer(True)), "customer_id is true or false"),
        (json.dumps(customer(2, email="\ud800")), "half of a pair"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(customer(2, customer_id=2.5)), "customer_id is not a whole number: 2.5"),
    ],
)
def test_a_bad_line_of_json_is_rejected_alone(landing: Landing, line: str, reason: str) -> None:
    found = landing.load_one("a.jsonl", json_lines(customer(1), customer(3)) + line)
    assert found.ids == [1, 3]
    number, told, text = found.only_rejection()
    assert (number, text) == (3, line)
    assert reason in told


def test_json_values_are_not_rounded(landing: Landing) -> None:
    exact = 9_007_199_254_740_993  # no float has this value
    found = landing.load_one("a.jsonl", json_lines(customer(exact), customer(5, first_name=1.10)))
    assert found.ids == [exact, 5]
    assert found.rows["first_name"].to_list() == ["Ann", "1.1"]


def test_escaped_pairs_are_characters(landing: Landing) -> None:
    found = landing.load_one("a.jsonl", json_lines(customer(1, first_name="\U0001f600")))
    assert found.rows["first_name"].to_list() == ["\U0001f600"]


def test_a_column_that_lines_leave_out_is_null_there(landing: Landing) -> None:
    row = customer(1)
    del row["email"]
    found = landing.load_one("a.jsonl", json_lines(row, customer(2)))
    assert found.rows["email"].to_list() == [None, "c2@example.org"]


def test_json_with_byte_order_mark_blank_lines_and_bad_bytes(landing: Landing) -> None:
    good = json_lines(customer(1)).replace("\n", "\r\n").encode()
    found = landing.load_one("a.jsonl", b"\xef\xbb\xbf" + good + b"\r\n" + b'{"\xff": 1}\n' + good)
    assert found.lines == [1, 4]
    assert found.only_rejection() == (3, "not UTF-8: byte 0xff at position 3", r'{"\xff": 1}')


def test_a_file_of_nothing_but_bad_json_keeps_every_line(landing: Landing) -> None:
    found = landing.load_one("a.jsonl", "<html>\n<body>\n")
    assert [line for line, _, _ in found.rejections] == [1, 2]


# Parquet


@pytest.mark.parametrize("part", [1, 4, 100, -1, -8, -200])
def test_a_cut_off_parquet_file_is_refused(landing: Landing, part: int) -> None:
    content = parquet(parquet_rows(*map(customer, range(1000))))
    found = landing.load_one("a.parquet", content[:part])
    line, reason, _ = found.only_rejection()
    assert line == 0
    assert "not a readable Parquet file, maybe cut off or damaged" in reason
    assert found.rows.is_empty()


def test_a_damaged_page_refuses_the_file_with_all_its_rows(landing: Landing) -> None:
    content = bytearray()
    sink = io.BytesIO()
    table = parquet_rows(*map(customer, range(120_000))).to_arrow()
    pq.write_table(table, sink, row_group_size=60_000, use_dictionary=False)
    content += sink.getvalue()
    last = pq.ParquetFile(sink).metadata.row_group(1).column(1)
    middle = last.data_page_offset + last.total_compressed_size // 2
    content[middle : middle + 1000] = b"\xff" * 1000
    found = landing.load_one("a.parquet", bytes(content))
    assert found.rows.is_empty()
    assert found.only_rejection()[0] == 0


def test_parquet_text_that_is_not_utf_8_refuses_the_file(landing: Landing) -> None:
    table = parquet_rows(customer(1)).to_arrow()
    bad = pa.array([b"\xe9"], type=pa.binary()).view(pa.string())
    table = table.set_column(table.schema.get_field_index("email"), "email", bad)
    assert "UTF8" in landing.load_one("a.parquet", parquet(table)).only_rejection()[1]


def as_column(name: str, values: list[Any], kind: pa.DataType) -> pa.Table:
    rows = parquet_rows(*map(customer, range(1, len(values) + 1))).to_arrow()
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, kind))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), [7, None]),
        (pa.uint64(), [7, 2**63]),
        (pa.float64(), [7.0, float("nan")]),
        (pa.float64(), [7.0, 7.5]),
        (pa.float64(), [7.0, 1e18]),
        (pa.decimal128(20, 2), [7, 7.5]),
        (pa.string(), ["7", "x"]),
        (pa.dictionary(pa.int8(), pa.string()), ["7", "x"]),
    ],
)
def test_parquet_numbers_of_any_type(landing: Landing, kind: pa.DataType, values: Any) -> None:
    if pa.types.is_decimal(kind):
        values = pa.array(values, pa.float64()).cast(kind).to_pylist()
    found = landing.load_one("a.parquet", parquet(as_column("customer_id", values, kind)))
    assert found.ids == [7]
    line, reason, text = found.only_rejection()
    assert line == 2
    assert reason.startswith("customer_id is ")
    assert json.loads(text)["email"] == "c2@example.org"


def test_the_gaps_that_pandas_makes_in_numbers_are_missing_values(landing: Landing) -> None:
    content = parquet(as_column("customer_id", [7.0, float("nan")], pa.float64()))
    assert landing.load_one("a.parquet", content).only_rejection()[1] == "customer_id is missing"
    optional = FileSchema(columns=COLUMNS)
    assert landing.load(optional).ids == [7, None]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.timestamp("ns", "Europe/Berlin"), [datetime(2024, 1, 2, 10, tzinfo=UTC)]),
        (pa.timestamp("ms", "UTC"), [datetime(2024, 1, 2, 10, tzinfo=UTC)]),
        (pa.string(), ["2024-01-02T11:00:00+01:00"]),
    ],
)
def test_parquet_times_of_any_type(landing: Landing, kind: pa.DataType, values: Any) -> None:
    found = landing.load_one("a.parquet", parquet(as_column("updated_at", values, kind)))
    assert found.rows["updated_at"].to_list() == [datetime(2024, 1, 2, 10, tzinfo=UTC)]


def test_parquet_dates_are_midnight_utc(landing: Landing) -> None:
    table = as_column("updated_at", [datetime(2024, 1, 2, tzinfo=UTC).date()], pa.date32())
    found = landing.load_one("a.parquet", parquet(table))
    assert found.rows["updated_at"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("updated_at", pa.timestamp("us"), [datetime(2024, 1, 1)]),  # noqa: DTZ001 - that is it
        ("updated_at", pa.int64(), [1706695200]),
        ("customer_id", pa.bool_(), [True]),
        ("customer_id", pa.date32(), [datetime(2024, 1, 1, tzinfo=UTC).date()]),
        ("email", pa.list_(pa.string()), [["a"]]),
        ("email", pa.map_(pa.string(), pa.string()), [[("a", "b")]]),
        ("email", pa.binary(), [b"a"]),
        ("email", pa.float64(), [1.5]),
        ("email", pa.decimal256(50, 2), [1]),
    ],
)
def test_a_column_of_another_type_quarantines_the_file(
    landing: Landing, name: str, kind: pa.DataType, values: Any
) -> None:
    found = landing.load_one("a.parquet", parquet(as_column(name, values, kind)))
    line, reason, _ = found.only_rejection()
    assert line == 0
    assert f"{name} (" in reason


def test_a_column_without_values_has_any_type(landing: Landing) -> None:
    found = landing.load_one("a.parquet", parquet(as_column("email", [None], pa.null())))
    assert found.rows["email"].to_list() == [None]


def test_parquet_without_rows(landing: Landing) -> None:
    found = landing.load_one("a.parquet", parquet(parquet_rows(customer(1)).head(0)))
    assert found.rejected.is_empty()
    assert found.ledger["rows"].to_list() == [0]


def test_rows_of_parquet_are_numbered_across_chunks(landing: Landing) -> None:
    rows = parquet_rows(*map(customer, range(1, 120_001)))
    found = landing.load_one("a.parquet", parquet(rows))
    assert found.lines == list(range(1, 120_001))


# Many rows


BIG = 100_000


def big_file(name: str) -> tuple[bytes, int]:
    """A file in which only row 77,777 is bad, and that row's line."""
    frame = pl.select(customer_id=pl.int_range(1, BIG + 1)).select(
        "customer_id",
        email=pl.format("user{}@example.org", "customer_id"),
        first_name=pl.lit("Ann"),
        last_name=pl.lit("Lee"),
        created_at=pl.lit("2024-01-01"),
        updated_at=pl.when(pl.col("customer_id") == 77_777)
        .then(pl.lit("never"))
        .otherwise(pl.lit("2024-01-02T10:00:00Z")),
    )
    if name.endswith("parquet"):
        return parquet(frame), 77_777
    if name.endswith("jsonl"):
        return frame.write_ndjson().encode(), 77_777
    style: Any = "always" if name.startswith("quoted") else "necessary"
    return frame.write_csv(quote_style=style).encode(), 77_778


@pytest.mark.parametrize("name", ["a.csv", "quoted.csv", "a.jsonl", "a.parquet"])
def test_one_bad_row_among_a_hundred_thousand(landing: Landing, name: str) -> None:
    content, bad_line = big_file(name)
    landing.drop(name, content)
    begin = time.process_time()
    found = landing.load()
    seconds = time.process_time() - begin
    assert found.rows.height == BIG - 1
    assert 77_777 not in set(found.ids)
    line, reason, text = found.only_rejection()
    assert line == bad_line
    assert "updated_at" in reason
    assert "user77777@example.org" in text
    assert seconds < 10  # of the processor; two on a machine with nothing else to do


MEMORY = """
import resource, sys
from forge_platform.landing import FileSchema, load_files
from forge_platform.resources.object_store import S3Resource

store = S3Resource(uri=sys.argv[1])
schema = FileSchema(columns={"id": "long", "text": "string"})
with load_files(store, store.list_objects(), schema) as landed:
    rows = sum(batch.num_rows for batch in landed.rows())
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_is_bounded_by_a_chunk(landing: Landing) -> None:
    peaks = []
    text = "x" * 490
    for rows in (20_000, 300_000):
        with (landing.folder / "a.csv").open("w") as file:
            file.write("id,text\n")
            file.writelines(f"{number},{text}\n" for number in range(rows))
        command = [sys.executable, "-c", MEMORY, landing.store.uri]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counted, peak = map(int, output.split())
        assert counted == rows
        peaks.append(peak)
    grown = peaks[1] - peaks[0]
    assert grown < 100, f"{peaks} MiB, and the file has 150"


def test_a_chunk_of_parquet_is_bounded_by_its_bytes() -> None:
    rows = pl.DataFrame({"id": range(200), "text": [f"{n:08}" * 12_500 for n in range(200)]})
    chunks = [chunk.cells for chunk in read_parquet(io.BytesIO(parquet(rows)), ["id", "text"])]
    assert pl.concat(chunks)["id"].to_list() == rows["id"].to_list()
    assert max(chunk.estimated_size() for chunk in chunks) < 10_000_000  # of 20 MB


# Files, versions, and the ledger


def test_the_ledger_says_what_was_loaded(landing: Landing) -> None:
    begin = datetime.now(UTC)
    found = landing.load_one("a.csv", csv(FIRST, SECOND, "x"))
    [listed] = landing.store.list_objects()
    [entry] = found.ledger.rows(named=True)
    loaded_at = entry.pop("loaded_at")
    assert begin <= loaded_at <= datetime.now(UTC)
    assert entry == {
        "source_file": "a.csv",
        "version": listed.version,
        "last_modified": listed.last_modified,
        "bytes": listed.size,
        "rows": 2,
        "rejected": 1,
    }
    assert found.rejected["rejected_at"].to_list() == [loaded_at]


def test_only_versions_that_the_ledger_lacks_are_loaded(landing: Landing) -> None:
    landing.drop("a.csv", csv(FIRST))
    landing.drop("b.csv", csv(FIRST))
    ledger = landing.load().ledger
    columns = ("source_file", "version", "last_modified")
    loaded = {name: (version, at) for name, version, at in ledger.select(columns).iter_rows()}
    assert not_loaded(landing.store.list_objects(), loaded) == []
    assert len(not_loaded(landing.store.list_objects(), {})) == 2
    landing.drop("b.csv", csv(FIRST, SECOND))
    landing.drop("c.csv", csv())
    pending = not_loaded(landing.store.list_objects(), loaded)
    assert sorted(found.key for found in pending) == ["b.csv", "c.csv"]


def test_bad_files_do_not_hold_up_good_ones(landing: Landing) -> None:
    for name in ("a.csv", "c.csv", "e.csv"):
        landing.drop(name, csv(FIRST))
    landing.drop("b.parquet", b"PAR1")
    landing.drop("d.csv", "")
    found = landing.load()
    assert found.rows["_source_file"].to_list() == ["a.csv", "c.csv", "e.csv"]
    assert found.rejected["source_file"].to_list() == ["b.parquet", "d.csv"]
    assert found.ledger.height == 5


def test_nothing_to_load(landing: Landing) -> None:
    found = landing.load()
    assert found.rows.is_empty()
    assert list(found.rows.columns) == list(RAW_CUSTOMER_FILES.columns)
    assert list(found.rejected.columns) == [
        "source_file",
        "source_line",
        "reason",
        "text",
        "rejected_at",
    ]
    assert found.ledger.is_empty()


def test_streams_can_be_read_again(landing: Landing) -> None:
    landing.drop("a.csv", csv(FIRST))
    with load_files(landing.store, landing.store.list_objects(), SCHEMA) as landed:
        assert frame(landed.rows()).equals(frame(landed.rows()))
        assert (landed.row_count, landed.rejected_count) == (1, 0)


def test_a_file_that_is_replaced_after_it_was_listed_is_postponed(landing: Landing) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        landing.drop(name, csv(FIRST))
    listed = landing.store.list_objects()
    landing.drop("a.csv", csv(FIRST, SECOND))
    (landing.folder / "b.csv").unlink()
    with load_files(landing.store, listed, SCHEMA) as landed:
        found = result(landed)
    assert sorted(file.key for file in found.postponed) == ["a.csv", "b.csv"]
    assert found.ledger["source_file"].to_list() == ["c.csv"]
    assert found.rows["_source_file"].to_list() == ["c.csv"]
    assert sorted(found.metadata["postponed_files"]) == ["a.csv", "b.csv"]


class BusyFolder(S3Resource):
    """A folder in which somebody goes on writing to a file while it is read."""

    @contextmanager
    def open(self, key: str, version: str | None = None) -> Iterator[BinaryIO]:
        with super().open(key, version) as file:
            try:
                yield file
            finally:
                with Path(self.uri.removeprefix("file://"), key).open("a") as writer:
                    writer.write("more\n")


def test_a_file_that_grows_while_it_is_read_is_postponed(landing: Landing) -> None:
    landing.drop("a.csv", csv(FIRST, "bad"))
    landing.drop("b.parquet", b"PAR1, and the rest is still to come")
    store = BusyFolder(uri=landing.store.uri)
    with load_files(store, store.list_objects(), SCHEMA) as landed:
        found = result(landed)
    assert [file.key for file in found.postponed] == ["a.csv", "b.parquet"]
    assert found.rows.is_empty()
    assert found.rejected.is_empty()
    assert found.ledger.is_empty()


def test_what_a_new_version_no_longer_has_is_stale(landing: Landing) -> None:
    landing.drop("other.csv", csv(FIRST, "bad"))
    landing.drop("a.csv", csv(FIRST, SECOND, "bad", FIRST, "worse"))
    before = landing.load()
    (landing.folder / "other.csv").unlink()
    landing.drop("a.csv", csv(FIRST, "bad now", SECOND))
    with load_files(landing.store, landing.store.list_objects(), SCHEMA) as landed:
        stale_rows = landed.stale_rows(before.rows.lazy())
        stale_rejected = landed.stale_rejected(before.rejected.lazy())
    assert stale_rows.sort("_source_line").rows() == [("a.csv", 3), ("a.csv", 5)]
    assert stale_rejected.sort("source_line").rows() == [("a.csv", 4), ("a.csv", 6)]


def test_a_new_version_that_is_refused_makes_nothing_stale(landing: Landing) -> None:
    before = landing.load_one("a.csv", csv(FIRST, SECOND, "bad"))
    landing.drop("a.csv", "")
    with load_files(landing.store, landing.store.list_objects(), SCHEMA) as landed:
        assert landed.stale_rows(before.rows.lazy()).is_empty()
        assert landed.stale_rejected(before.rejected.lazy()).is_empty()


def test_a_repaired_file_leaves_no_refusal(landing: Landing) -> None:
    before = landing.load_one("a.csv", "")
    landing.drop("a.csv", csv(FIRST))
    with load_files(landing.store, landing.store.list_objects(), SCHEMA) as landed:
        assert landed.stale_rejected(before.rejected.lazy()).rows() == [("a.csv", 0)]


@pytest.mark.parametrize("name", CONTENTS)
def test_files_of_a_bucket_are_loaded_alike(s3_bucket: str, name: str) -> None:
    store = S3Resource(uri=f"{s3_bucket}/landing")
    store.write(f"2024/{name}", CONTENTS[name])
    with load_files(store, store.list_objects(), SCHEMA) as landed:
        found = result(landed)
    [listed] = store.list_objects()
    assert found.ids == [1, 2]
    assert found.ledger.select("source_file", "version").rows() == [
        (f"2024/{name}", listed.version)
    ]


def test_a_store_that_goes_away_leaves_nothing_half_done(landing: Landing) -> None:
    landing.drop("a.csv", csv(FIRST))
    listed = landing.store.list_objects()
    away = S3Resource(
        uri="s3://bucket",
        endpoint_url="http://127.0.0.1:9",
        access_key_id="a",
        secret_access_key="b",
    )
    with pytest.raises(SourceUnavailable), load_files(away, listed, SCHEMA):
        pytest.fail("there is nothing to write")


def test_what_fails_while_it_is_written_is_not_renamed(landing: Landing) -> None:
    with pytest.raises(OSError, match="from the table"), load_files(landing.store, [], SCHEMA):
        raise OSError(28, "from the table")


def test_nothing_is_left_on_disk(
    landing: Landing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    landing.drop("a.csv", csv(FIRST))
    with load_files(landing.store, landing.store.list_objects(), SCHEMA):
        assert list(temporary.iterdir())
    assert list(temporary.iterdir()) == []


FULL_DISK = """
import sys, tempfile
from forge_platform.errors import StorageFull
from forge_platform.landing import FileSchema, load_files
from forge_platform.resources.object_store import S3Resource

store = S3Resource(uri=sys.argv[1])
schema = FileSchema(columns={"id": "long", "text": "string"})
try:
    with load_files(store, store.list_objects(), schema):
        print("there is room")
except StorageFull as error:
    assert f"No room is left at {tempfile.gettempdir()}" in str(error)
    print("refused")
"""


def test_no_room_for_the_rows_is_a_full_disk(landing: Landing, tmp_path: Path) -> None:
    """The temporary folder is a disk of 256 KiB; a user namespace allows that without root."""
    with (landing.folder / "a.csv").open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{number},{os.urandom(20).hex()}\n" for number in range(20_000))
    (tmp_path / "small").mkdir()
    mount = 'mount -t tmpfs -o size=256k tmpfs "$TMPDIR" && exec "$0" "$@"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "small")}
    if shutil.which("unshare") is None or run([*namespace, "true"], environment).returncode:
        pytest.skip("this machine does not let a user mount a disk of its own")
    program = [sys.executable, "-c", FULL_DISK, landing.store.uri]
    outcome = run([*namespace, *program], environment)
    assert outcome.stdout == "refused\n", outcome.stderr


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_module_loads_without_a_data_library() -> None:
    program = "import sys, forge_platform.landing; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    heavy = {"polars", "pyarrow", "boto3", "botocore", "duckdb", "pandas", "numpy"}
    assert heavy.isdisjoint(output.split())
