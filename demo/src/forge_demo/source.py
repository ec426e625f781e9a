"""The source database: real CDNOW purchases, and by one rule what they lack.

``data/CDNOW_master.txt.gz`` holds customer id, date, number of CDs and amount of every
purchase. A purchase becomes an order whose id is its line number, 9,861 days later; everything
else follows from the ids, so that any other program can count what must come out:

=====================  ==================================================================
customer               rule, by ``customer_id``
=====================  ==================================================================
name                   number ``id % 31`` of the first names, ``id % 37`` of the last names
e-mail                 ``first.last.id@example.com``; apostrophes are left out
no e-mail (NULL)       ``id % 29 == 0``
e-mail without domain  ``id % 23 == 0``, unless NULL: ends with ``@``
e-mail in capitals     ``id % 11 == 0``, unless NULL; valid once in lower case
blanks around names    ``id % 13 == 0``: two before the first, one after the last name
currency               ``id % 11``: 7, 8 EUR, 9 GBP, 10 CAD, else USD
created                first order's date, less ``id % 30 + 1`` days, ``id * 37 % 86400`` s
updated                created and ``60 + id % 300`` days
older versions         ``id % 17 == 0`` has one, ``id % 19 == 0`` one (more): the same id,
                       each 20 days older, another last name and the valid e-mail
                       ``first.id.version@old.example.com``, without the newest row's flaws
=====================  ==================================================================

=====================  ==================================================================
order                  rule, by ``order_id``
=====================  ==================================================================
status                 ``id % 23``: 0 pending, 1 paid, 2, 3 shipped, else delivered
created                the order's date and ``id * 7919 % 86400`` seconds
updated                created and 0 hours if pending, 1 paid, 30 shipped, 78 delivered
=====================  ==================================================================
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
from psycopg2 import sql

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

    from forge_platform.testing import ConnectionParameters

CDNOW_FILE = Path(__file__).with_name("data") / "CDNOW_master.txt.gz"
SHIFT = timedelta(days=9_861)
LAST_CUSTOMER_ID = 23_570
CURRENCIES = {7: "EUR", 8: "EUR", 9: "GBP", 10: "CAD"}
STATUSES = {0: "pending", 1: "paid", 2: "shipped", 3: "shipped"}
HOURS_TO_STATUS = {"pending": 0, "paid": 1, "shipped": 30, "delivered": 78}

_FIRST_NAMES = """
Ada Alan Amira Anna Boris Carla Chen Dana Diego Elena Emil Farah Grace Hana Ivan Jana Karim Lena
Linus Maria Milan Nora Omar Petra Rosa Samir Sofia Tariq Vera Yuki Zoe
"""
_LAST_NAMES = """
Abbott Almeida Baker Berg Castro Clark D'Angelo Diaz Evans Fischer Garcia Haddad Ivanova Jensen
Kaya Keller Lopez Mensah Meyer Nakamura Novak O'Brien Okafor Olsen Park Patel Quinn Rossi Santos
Silva Smith Tanaka Usman Vogel Weber Yilmaz Zhang
"""
FIRST_NAMES = _FIRST_NAMES.split()
LAST_NAMES = _LAST_NAMES.split()


class Purchase(NamedTuple):
    """One line of the CDNOW file, its date shifted."""

    line: int
    customer_id: int
    date: date
    quantity: int
    amount: str


class Customer(NamedTuple):
    """One row of ``public.customers``."""

    customer_id: int
    email: str | None
    first_name: str
    last_name: str
    created_at: datetime
    updated_at: datetime


class Order(NamedTuple):
    """One row of ``public.orders``."""

    order_id: int
    customer_id: int
    order_date: date
    status: str
    quantity: int
    total_amount: str
    currency: str
    created_at: datetime
    updated_at: datetime


def read_purchases(path: Path = CDNOW_FILE) -> list[Purchase]:
    """Every purchase of the file, in its order."""
    with gzip.open(path, "rt", encoding="ascii") as lines:
        next(lines)
        return [_purchase(number, *line.split()) for number, line in enumerate(lines, start=1)]


def _purchase(line: int, customer_id: str, day: str, quantity: str, amount: str) -> Purchase:
    shifted = date.fromisoformat(day) + SHIFT
    return Purchase(line, int(customer_id), shifted, int(quantity), amount)


def has_no_email(customer_id: int) -> bool:
    """Whether the customer's e-mail is NULL."""
    return customer_id % 29 == 0


def has_no_domain(customer_id: int) -> bool:
    """Whether the customer's e-mail, if there is one, ends with its ``@``."""
    return customer_id % 23 == 0


def is_in_capitals(customer_id: int) -> bool:
    """Whether the customer's e-mail, if there is one, is in capitals."""
    return customer_id % 11 == 0


def has_blanks(customer_id: int) -> bool:
    """Whether the customer's names have blanks around them."""
    return customer_id % 13 == 0


def older_versions(customer_id: int) -> int:
    """How many older rows the customer has."""
    return (customer_id % 17 == 0) + (customer_id % 19 == 0)


def is_clean(customer_id: int) -> bool:
    """Whether nothing is wrong with the customer: one row that passes as it is."""
    flaws = (has_no_email, has_no_domain, is_in_capitals, has_blanks, older_versions)
    return not any(flaw(customer_id) for flaw in flaws)


def currency(customer_id: int) -> str:
    """The currency of all the customer's orders."""
    return CURRENCIES.get(customer_id % 11, "USD")


def order_status(order_id: int) -> str:
    """How far the order got."""
    return STATUSES.get(order_id % 23, "delivered")


def first_name(customer_id: int) -> str:
    """The customer's first name, without blanks."""
    return FIRST_NAMES[customer_id % len(FIRST_NAMES)]


def last_name(customer_id: int, version: int = 0) -> str:
    """The customer's last name, without blanks; ``version`` counts back from the newest."""
    return LAST_NAMES[(customer_id + version) % len(LAST_NAMES)]


def valid_email(customer_id: int) -> str:
    """The e-mail that the customer has when nothing is wrong with it."""
    local = f"{first_name(customer_id)}.{last_name(customer_id)}.{customer_id}"
    return f"{local.replace(chr(39), '')}@example.com".lower()


def email(customer_id: int) -> str | None:
    """The customer's e-mail with its flaws."""
    if has_no_email(customer_id):
        return None
    address = valid_email(customer_id)
    if has_no_domain(customer_id):
        address = address.removesuffix("example.com")
    return address.upper() if is_in_capitals(customer_id) else address


def customer_versions(customer_id: int, first_order: date) -> Iterator[Customer]:
    """The customer's rows, newest first: whoever keeps the last one keeps the wrong one."""
    created = _at(first_order, customer_id * 37) - timedelta(days=customer_id % 30 + 1)
    updated = created + timedelta(days=60 + customer_id % 300)
    before, after = ("  ", " ") if has_blanks(customer_id) else ("", "")
    first, last = before + first_name(customer_id), last_name(customer_id) + after
    yield Customer(customer_id, email(customer_id), first, last, created, updated)
    for version in range(1, older_versions(customer_id) + 1):
        yield _older_customer(customer_id, version, created, updated)


def _older_customer(
    customer_id: int, version: int, created: datetime, newest: datetime
) -> Customer:
    first, last = first_name(customer_id), last_name(customer_id, version)
    address = f"{first}.{customer_id}.{version}@old.example.com".lower()
    updated = newest - timedelta(days=20 * version)
    return Customer(customer_id, address, first, last, created, updated)


def customers(purchases: Iterable[Purchase]) -> Iterator[Customer]:
    """All rows of ``public.customers``."""
    for customer_id, first_order in _first_orders(purchases).items():
        yield from customer_versions(customer_id, first_order)


def _first_orders(purchases: Iterable[Purchase]) -> Mapping[int, date]:
    first: dict[int, date] = {}
    for purchase in purchases:
        known = first.get(purchase.customer_id, purchase.date)
        first[purchase.customer_id] = min(known, purchase.date)
    return first


def order(purchase: Purchase) -> Order:
    """The purchase as a row of ``public.orders``."""
    status = order_status(purchase.line)
    created = _at(purchase.date, purchase.line * 7919)
    return Order(
        order_id=purchase.line,
        customer_id=purchase.customer_id,
        order_date=purchase.date,
        status=status,
        quantity=purchase.quantity,
        total_amount=purchase.amount,
        currency=currency(purchase.customer_id),
        created_at=created,
        updated_at=created + timedelta(hours=HOURS_TO_STATUS[status]),
    )


def _at(day: date, second: int) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(seconds=second % 86_400)


_TABLES = """
CREATE TABLE public.customers (
    customer_id bigint NOT NULL, email text, first_name text, last_name text,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE public.orders (
    order_id bigint NOT NULL, customer_id bigint NOT NULL, order_date date NOT NULL,
    status text NOT NULL, quantity integer NOT NULL, total_amount numeric(12, 2) NOT NULL,
    currency text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
"""
_INDEXES = """
ALTER TABLE public.orders ADD PRIMARY KEY (order_id);
CREATE INDEX ON public.orders (updated_at);
CREATE INDEX ON public.customers (updated_at);
CREATE INDEX ON public.customers (customer_id);
ANALYZE public.orders, public.customers;
"""


def load(parameters: ConnectionParameters) -> bool:
    """Make and fill the two tables in one transaction, unless they are there.

    Returns:
        Whether they were made.
    """
    with (
        closing(psycopg2.connect(**parameters)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT to_regclass('public.orders') IS NULL")
        missing = cursor.fetchone() == (True,)
        if missing:
            _fill(cursor)
        return missing


def _fill(cursor: Cursor) -> None:
    purchases = read_purchases()
    cursor.execute(_TABLES)
    copy_rows(cursor, "customers", customers(purchases))
    copy_rows(cursor, "orders", map(order, purchases))
    cursor.execute(_INDEXES)


def copy_rows(cursor: Cursor, table: str, rows: Iterable[Sequence[object]]) -> None:
    """Add rows to a table of the schema ``public`` with COPY; None becomes NULL."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    text.seek(0)
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(sql.Identifier("public", table))
    cursor.copy_expert(statement, text)
