"""The source database, compared with SQL that reads the CDNOW file on its own."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg2
import pytest

from forge_demo import source
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

CDNOW = """
CREATE SCHEMA cdnow;
CREATE TABLE cdnow.lines (line serial, text text);
"""
PURCHASES = """
CREATE VIEW cdnow.purchases AS
SELECT line - 1 AS line, word[1]::bigint AS id, to_date(word[2], 'YYYYMMDD') + 9861 AS day,
       word[3]::integer AS cds, word[4]::numeric AS dollars
FROM (SELECT line, regexp_split_to_array(trim(both E' \\r' FROM text), ' +') AS word
      FROM cdnow.lines WHERE line > 1) AS split;
CREATE VIEW cdnow.customers AS SELECT id, min(day) AS first_day FROM cdnow.purchases GROUP BY id;
"""

# What must be found in the source, and the same counted from the file.
COUNTS = {
    "rows": (
        "FROM customers",
        "FROM cdnow.customers, generate_series(0, (id % 17 = 0)::int + (id % 19 = 0)::int)",
    ),
    "customers": ("FROM newest", "FROM cdnow.customers"),
    "no e-mail": (
        "FROM newest WHERE email IS NULL",
        "FROM cdnow.customers WHERE id % 29 = 0",
    ),
    "no domain": (
        "FROM newest WHERE email ~ '@$'",
        "FROM cdnow.customers WHERE id % 23 = 0 AND id % 29 <> 0",
    ),
    "capitals": (
        "FROM newest WHERE email = upper(email)",
        "FROM cdnow.customers WHERE id % 11 = 0 AND id % 29 <> 0",
    ),
    "blanks": (
        "FROM newest WHERE first_name ~ '^  [^ ]+$' AND last_name ~ '^[^ ]+ $'",
        "FROM cdnow.customers WHERE id % 13 = 0",
    ),
    "no blanks": (
        "FROM newest WHERE first_name || last_name !~ ' '",
        "FROM cdnow.customers WHERE id % 13 <> 0",
    ),
    "older rows, valid and different": (
        """FROM customers JOIN newest USING (customer_id)
        WHERE customers.updated_at < newest.updated_at
        AND customers.email ~ '^[a-z]+[.]\\d+[.]\\d@old[.]example[.]com$'
        AND customers.last_name <> trim(newest.last_name)""",
        "FROM cdnow.customers, generate_series(1, (id % 17 = 0)::int + (id % 19 = 0)::int)",
    ),
    "orders in euros": (
        "FROM orders WHERE currency = 'EUR'",
        "FROM cdnow.purchases WHERE id % 11 IN (7, 8)",
    ),
    "orders in dollars": (
        "FROM orders WHERE currency = 'USD'",
        "FROM cdnow.purchases WHERE id % 11 < 7",
    ),
    "shipped orders": (
        "FROM orders WHERE status = 'shipped' AND updated_at = created_at + interval '30 hours'",
        "FROM cdnow.purchases WHERE line % 23 IN (2, 3)",
    ),
    "delivered orders": (
        "FROM orders WHERE status = 'delivered'",
        "FROM cdnow.purchases WHERE line % 23 > 3",
    ),
}

DIFFERENT_ORDERS = """
SELECT count(*) FROM orders FULL JOIN cdnow.purchases ON order_id = line
WHERE (customer_id, order_date, quantity, total_amount) IS DISTINCT FROM (id, day, cds, dollars)
"""


@pytest.fixture(scope="module")
def cursor(postgres: EmbeddedPostgres) -> Iterator[psycopg2.extensions.cursor]:
    """The loaded source, and beside it the lines of the file as they are."""
    parameters = postgres.create_database("source_as_loaded")
    assert source.load(parameters)
    with closing(psycopg2.connect(**parameters)) as connection, connection.cursor() as cursor:
        cursor.execute(CDNOW)
        with gzip.open(source.CDNOW_FILE) as file:
            cursor.copy_expert(
                "COPY cdnow.lines (text) FROM STDIN (FORMAT csv, DELIMITER '|')", file
            )
        cursor.execute(PURCHASES)
        cursor.execute(
            "CREATE VIEW newest AS SELECT DISTINCT ON (customer_id) * FROM customers"
            " ORDER BY customer_id, updated_at DESC"
        )
        yield cursor
    postgres.drop_database("source_as_loaded")


def value(cursor: psycopg2.extensions.cursor, query: str) -> object:
    cursor.execute(query)
    [(result,)] = cursor.fetchall()
    return result


@pytest.mark.parametrize("name", COUNTS)
def test_source_agrees_with_the_file(cursor: psycopg2.extensions.cursor, name: str) -> None:
    found, expected = (value(cursor, f"SELECT count(*) {rows}") for rows in COUNTS[name])
    assert found == expected


def test_every_order_is_its_line(cursor: psycopg2.extensions.cursor) -> None:
    assert value(cursor, "SELECT count(*) FROM orders") == 69_659
    assert value(cursor, "SELECT sum(total_amount) FROM orders") == Decimal("2500315.63")
    assert value(cursor, DIFFERENT_ORDERS) == 0


def test_time_stamps_are_in_order_and_in_the_past(cursor: psycopg2.extensions.cursor) -> None:
    wrong = "SELECT count(*) FROM {} WHERE updated_at < created_at OR updated_at > now()"
    assert value(cursor, wrong.format("customers")) == 0
    assert value(cursor, wrong.format("orders")) == 0
    assert value(cursor, "SELECT count(*) FROM orders WHERE created_at::date <> order_date") == 0


def test_newest_row_of_a_customer_stands_first(cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute("SELECT updated_at FROM customers WHERE customer_id = 323 ORDER BY ctid")
    stamps = [stamp for (stamp,) in cursor.fetchall()]
    assert len(stamps) == 3
    assert stamps == sorted(stamps, reverse=True)


def test_loading_again_changes_nothing(
    cursor: psycopg2.extensions.cursor, postgres: EmbeddedPostgres
) -> None:
    cursor.connection.commit()
    assert not source.load(postgres.connection("source_as_loaded"))
    assert value(cursor, "SELECT count(*) FROM orders") == 69_659


def test_load_that_fails_leaves_nothing(
    new_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CURRENCIES", {7: None})
    with pytest.raises(psycopg2.Error):
        source.load(new_database)
    monkeypatch.undo()
    assert source.load(new_database)


def test_rows_of_a_customer_by_hand() -> None:
    newest, older, oldest = source.customer_versions(323, date(2024, 1, 2))
    assert newest.email == "hana.rossi.323@example.com"
    assert newest.created_at == datetime(2023, 12, 9, 3, 19, 11, tzinfo=UTC)
    assert newest.updated_at == datetime(2024, 3, 1, 3, 19, 11, tzinfo=UTC)
    assert older[:4] == (323, "hana.323.1@old.example.com", "Hana", "Santos")
    assert oldest[:4] == (323, "hana.323.2@old.example.com", "Hana", "Silva")
    assert (newest.updated_at - oldest.updated_at).days == 40


def test_lists_of_names_are_as_long_as_documented() -> None:
    assert len(set(source.FIRST_NAMES)) == len(source.FIRST_NAMES) == 31
    assert len(set(source.LAST_NAMES)) == len(source.LAST_NAMES) == 37
