"""A source that never rests: several transactions at a time, late, out of order, and skewed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2

from forge_platform import S3Resource
from forge_platform.testing import ConnectionParameters

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

SKEW_SECONDS = 1.5
"""How far behind a clock may be: less than the overlap of an extraction."""
AHEAD_SECONDS = 1.0
"""How far ahead a clock may be: it may be any time."""

_SCHEMA = """
CREATE TABLE orders (
    order_id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text,
    total_amount numeric(12,2), updated_at timestamptz NOT NULL,
    hidden boolean NOT NULL DEFAULT false
);
CREATE INDEX ON orders (updated_at);
CREATE TABLE order_versions (LIKE orders);
CREATE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO order_versions SELECT NEW.*; RETURN NULL; END';
CREATE TRIGGER keep_version AFTER INSERT OR UPDATE ON orders
    FOR EACH ROW EXECUTE FUNCTION keep_version();
CREATE TABLE customers (customer_id bigint, email text, updated_at timestamptz NOT NULL);
CREATE INDEX ON customers (updated_at)
"""
_LANES = 4  # each transaction has rows of its own, so that none waits for another
_CUSTOMERS = 40
_LONGEST_TRANSACTION_SECONDS = 2.5
_SERVER_RESTARTED = (psycopg2.OperationalError, psycopg2.InterfaceError)
_MOMENT = "now() - %(skew)s * interval '1 second'"


class BusySource:
    """Writes to a database and a landing place until it is stopped; knows what must arrive.

    Attributes:
        transactions: how many were committed.
        rewrites: how often all rows of a table were put into a new file.
    """

    def __init__(
        self, database: ConnectionParameters, landing: S3Resource, chance: random.Random
    ) -> None:
        self.transactions = 0
        self.rewrites = 0
        self._database = database
        self._landing = landing
        self._chance = chance
        self._files: dict[str, Sequence[str]] = {}
        self._stopped = threading.Event()
        self._failures: list[BaseException] = []
        with closing(self._connect()) as connection, connection:
            connection.cursor().execute(_SCHEMA)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Writes while the block runs; at its end every transaction is over."""
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()
        self.check()

    def check(self) -> None:
        """Raises what has ended the work too early, if something has."""
        for failure in self._failures:
            raise failure

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with (
            closing(self._connect()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.execute(statement)
            return cursor.fetchall()

    def file_lines(self) -> Iterator[tuple[str, int, str]]:
        """Every line of every file after its header: name, number, text."""
        for name, lines in self._files.items():
            for number, line in enumerate(lines, 2):
                yield name, number, line

    def _connect(self) -> Connection:
        return psycopg2.connect(**self._database)

    def _work(self) -> None:
        lanes = [_Lane(self._database, number, self._chance) for number in range(_LANES)]
        try:
            while not self._stopped.is_set():
                for lane in lanes:
                    self.transactions += lane.act()
                if self._chance.random() < 0.05:
                    self._drop_file()
                if self._chance.random() < 0.02:
                    for lane in lanes:
                        lane.finish()
                    self._rewrite_table()
                self._stopped.wait(self._chance.expovariate(30))
            for lane in lanes:
                lane.finish()
        except BaseException as error:  # noqa: BLE001 - raised where the work ends
            self._failures.append(error)

    def _rewrite_table(self) -> None:
        """Puts all rows of a table into a new file: to a snapshot from before it looks empty."""
        column = self._chance.choice(("orders ALTER status", "customers ALTER email"))
        rewrite = f"ALTER TABLE {column} TYPE text USING {column.split()[-1]} || ''"
        with suppress(*_SERVER_RESTARTED), closing(self._connect()) as connection:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")
                cursor.execute(rewrite)
            self.rewrites += 1

    def _drop_file(self) -> None:
        """A new file, or one in place of an older one; some of its lines are bad."""
        replaced = self._files and self._chance.random() < 0.25
        known = list(self._files)
        name = self._chance.choice(known) if replaced else f"part-{len(known)}.csv"
        lines = [
            f"{self._chance.choice(('x', *range(50)))},{self._chance.random()}@example.com"
            for _ in range(self._chance.randrange(8))
        ]
        self._landing.write(name, "\n".join(["customer_id,email", *lines, ""]).encode())
        self._files[name] = lines


class _Lane:
    """One connection with one transaction at a time, held open for a while."""

    def __init__(self, database: ConnectionParameters, number: int, chance: random.Random) -> None:
        self._database = database
        self._number = number
        self._chance = chance
        self._connection: Connection | None = None
        self._due: float | None = None
        self._next = number
        self._actions: Sequence[Callable[[Cursor], None]] = (
            self._insert,
            self._update,
            self._update,
            self._hide_or_show,
            self._delete,
            self._insert_again,
            self._add_customer_version,
            self._delete_customer,
        )

    def act(self) -> bool:
        """Begins a transaction or ends one that is due; whether one was committed."""
        try:
            return self._act()
        except _SERVER_RESTARTED:
            self._connection = self._due = None
            time.sleep(0.1)
            return False

    def finish(self) -> None:
        """Ends what is open, and the connection."""
        with suppress(*_SERVER_RESTARTED):
            self._open().commit()
        if self._connection is not None:
            self._connection.close()
        self._due = None

    def _act(self) -> bool:
        connection = self._open()
        if self._due is None:
            with connection.cursor() as cursor:
                for _ in range(self._chance.randrange(1, 4)):
                    self._chance.choice(self._actions)(cursor)
            late = self._chance.random() < 0.3
            longest = _LONGEST_TRANSACTION_SECONDS if late else 0.02
            self._due = time.monotonic() + self._chance.uniform(0, longest)
        if time.monotonic() < self._due:
            return False
        self._due = None
        if self._chance.random() < 0.1:
            connection.rollback()
            return False
        connection.commit()
        return True

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(**self._database)
        return self._connection

    def _values(self, **more: Any) -> Mapping[str, Any]:
        skewed = self._chance.random() < 0.3
        return {
            "skew": self._chance.uniform(-AHEAD_SECONDS, SKEW_SECONDS) if skewed else 0,
            "customer": self._chance.randrange(_CUSTOMERS),
            "status": self._chance.choice(("new", "paid", "sent", None)),
            "amount": self._chance.randrange(100_000) / 100,
            "lane": self._number,
            "lanes": _LANES,
            "some": self._chance.randrange(5),
            **more,
        }

    def _insert(self, cursor: Cursor) -> None:
        """Several rows with one time stamp."""
        count = self._chance.randrange(1, 6)
        ids = [self._next + step * _LANES for step in range(count)]
        self._next += count * _LANES
        statement = f"""INSERT INTO orders
            SELECT id, %(customer)s, %(status)s, %(amount)s, {_MOMENT}
            FROM unnest(%(ids)s::bigint[]) AS id"""  # noqa: S608 - a constant
        cursor.execute(statement, self._values(ids=ids))

    def _insert_again(self, cursor: Cursor) -> None:
        """A row with the key of one that was deleted."""
        statement = f"""INSERT INTO orders SELECT order_id, %(customer)s, 'again', 1, {_MOMENT}
            FROM (SELECT DISTINCT order_id FROM order_versions
                WHERE order_id %% %(lanes)s = %(lane)s
                EXCEPT SELECT order_id FROM orders) AS deleted LIMIT 1"""  # noqa: S608
        cursor.execute(statement, self._values())

    def _update(self, cursor: Cursor) -> None:
        statement = f"""UPDATE orders
            SET status = %(status)s, total_amount = %(amount)s, customer_id = %(customer)s,
                updated_at = {_MOMENT}
            WHERE order_id IN (SELECT order_id FROM orders
                WHERE order_id %% %(lanes)s = %(lane)s
                ORDER BY random() LIMIT %(some)s)"""  # noqa: S608
        cursor.execute(statement, self._values())

    def _hide_or_show(self, cursor: Cursor) -> None:
        """Deletes a row softly, or takes that back."""
        statement = f"""UPDATE orders SET hidden = NOT hidden, updated_at = {_MOMENT}
            WHERE order_id IN (SELECT order_id FROM orders
                WHERE order_id %% %(lanes)s = %(lane)s
                ORDER BY random() LIMIT %(some)s)"""  # noqa: S608
        cursor.execute(statement, self._values())

    def _delete(self, cursor: Cursor) -> None:
        statement = """DELETE FROM orders WHERE order_id IN (SELECT order_id FROM orders
            WHERE order_id %% %(lanes)s = %(lane)s ORDER BY random() LIMIT 1)"""
        cursor.execute(statement, self._values())

    def _add_customer_version(self, cursor: Cursor) -> None:
        customer = self._chance.randrange(_CUSTOMERS) * _LANES + self._number
        statement = f"INSERT INTO customers VALUES (%(id)s, %(status)s, {_MOMENT})"  # noqa: S608
        cursor.execute(statement, self._values(id=customer))

    def _delete_customer(self, cursor: Cursor) -> None:
        """Unless a version that is added again could look older than what is deleted."""
        customer = self._chance.randrange(_CUSTOMERS) * _LANES + self._number
        statement = """DELETE FROM customers WHERE customer_id = %(id)s AND NOT EXISTS (
            SELECT FROM customers WHERE customer_id = %(id)s
            AND updated_at >= now() - %(skew)s * interval '1 second')"""
        cursor.execute(statement, {"id": customer, "skew": SKEW_SECONDS})
