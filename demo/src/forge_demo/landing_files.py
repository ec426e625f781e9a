"""The customer files that partners drop into the landing folder.

======================  ========================  ============================================
file                    new customers             and also
======================  ========================  ============================================
``customers-shop.csv``  23,571 to 23,870          new names of the customers 1,009, 2,018 … 8,072
``customers-app.jsonl`` 23,871 to 24,070          nothing else
``customers-fair.parquet``  24,071 to 24,570      nothing else
``customers-phone.csv`` 24,571 to 24,690          one row of every kind in ``BROKEN_ROWS``
======================  ========================  ============================================

All their rows are newer than any row of the source. The new customers' e-mails are valid.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forge_demo.source import Customer, first_name, last_name, valid_email

NEW_CUSTOMERS = {
    "customers-shop.csv": range(23_571, 23_871),
    "customers-app.jsonl": range(23_871, 24_071),
    "customers-fair.parquet": range(24_071, 24_571),
    "customers-phone.csv": range(24_571, 24_691),
}
RENAMED_CUSTOMERS = range(1_009, 8_073, 1_009)
BROKEN_ROWS: Mapping[str, str] = {
    "too few fields": "24691,lea@example.com,Lea",
    "too many fields": "24692,leo@example.com,Leo,Park,{now},{now},and,more",
    "no id": ",mia@example.com,Mia,Novak,{now},{now}",
    "an id that is no number": "A24694,tom@example.com,Tom,Berg,{now},{now}",
    "an id beyond 64 bits": "99999999999999999999,eva@example.com,Eva,Diaz,{now},{now}",
    "a created_at that is no time": "24696,jim@example.com,Jim,Weber,yesterday,{now}",
    "an updated_at in month 13": "24697,kim@example.com,Kim,Kaya,{now},2025-13-01T00:00:00Z",
    "no updated_at": "24698,pia@example.com,Pia,Keller,{now},",
}
_DROPPED = datetime(2025, 9, 1, tzinfo=UTC)


def write_landing_files(folder: Path) -> None:
    """Drops every file that is not there yet; each appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in NEW_CUSTOMERS.items():
        if not (folder / name).exists():
            _drop(folder / name, _WRITERS[name](_new_customers(ids)))


def _drop(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _new_customers(ids: Iterable[int]) -> list[Customer]:
    return [_customer(number, valid_email(number), last_name(number)) for number in ids]


def _renamed_customers() -> list[Customer]:
    return [
        _customer(number, f"renamed.{number}@example.com", "Renamed")
        for number in RENAMED_CUSTOMERS
    ]


def _customer(customer_id: int, email: str, last: str) -> Customer:
    return Customer(customer_id, email, first_name(customer_id), last, *_times(customer_id))


def _times(customer_id: int) -> tuple[datetime, datetime]:
    updated = _DROPPED + timedelta(seconds=customer_id)
    return updated - timedelta(days=30), updated


def _csv(customers: Iterable[Customer]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Customer._fields)
    writer.writerows(_texts(customer) for customer in customers)
    return text.getvalue().encode()


def _csv_with_renamed(customers: Sequence[Customer]) -> bytes:
    return _csv([*customers, *_renamed_customers()])


def _csv_with_broken_rows(customers: Iterable[Customer]) -> bytes:
    """The broken rows stand between good ones, so that none of these may be lost with them."""
    header, *rows = _csv(customers).decode().splitlines()
    for position, row in enumerate(BROKEN_ROWS.values()):
        rows.insert(10 * position + 5, row.format(now=_text(_DROPPED)))
    return "".join(f"{row}\n" for row in (header, *rows)).encode()


def _json_lines(customers: Iterable[Customer]) -> bytes:
    rows = (dict(zip(Customer._fields, _texts(customer), strict=True)) for customer in customers)
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _parquet(customers: Iterable[Customer]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = io.BytesIO()
    rows = [customer._asdict() for customer in customers]
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()


def _texts(customer: Customer) -> list[object]:
    return [_text(value) if isinstance(value, datetime) else value for value in customer]


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


_WRITERS: Mapping[str, Callable[[Sequence[Customer]], bytes]] = {
    "customers-shop.csv": _csv_with_renamed,
    "customers-app.jsonl": _json_lines,
    "customers-fair.parquet": _parquet,
    "customers-phone.csv": _csv_with_broken_rows,
}
