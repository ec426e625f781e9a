"""Changes the source while the demo runs, and shows how the change gets everywhere.

Two transactions overlap: the one that begins first commits last, after the platform has
already read what the other one wrote. Its rows carry older time stamps than those that are
known by then, so whoever only asks for newer ones never sees them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extras import execute_values

from forge_demo.arrival import Arrival, Change, arrivals
from forge_demo.dagster_api import DagsterApi
from forge_demo.progress import Show, make_console, progress
from forge_demo.report import print_arrivals, print_cost
from forge_demo.source import LAST_CUSTOMER_ID, currency, is_clean
from forge_demo.state import DemoState
from forge_demo.verdict import print_problems
from forge_demo.watch import View, Watch
from forge_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

CHANGED_CUSTOMERS = 1_000
LATE_CUSTOMERS = 300
# Every second of the changed customers orders something.
_CUSTOMERS_PER_ORDER = 2
# Yesterday and before: the daily summary has no partition for today yet.
_ORDER_DAYS = 5


def change_source(state: DemoState, *, limit: float) -> int:
    """Changes the source of the demo that runs in a folder and returns the exit code.

    Args:
        state: its folder.
        limit: seconds after which the change must have arrived.

    Raises:
        ConfigurationError: no demo is running there.
    """
    if state.owner() is None:
        raise ConfigurationError(
            f"No demo is running in {state.folder}: start one with `make demo` in another terminal."
        )
    variables = state.read_env()
    with closing(DagsterApi(variables["DAGSTER_WEBSERVER_URL"])) as api:
        return _Session(variables, api, time.monotonic() + limit).run()


class _Session:
    """One change from beginning to end."""

    def __init__(self, variables: Mapping[str, str], api: DagsterApi, deadline: float) -> None:
        self._variables = variables
        self._api = api
        self._deadline = deadline
        self._console = make_console()

    def run(self) -> int:
        self._say("Waiting until the platform is at rest.")
        self._watch_until(Watch(self._api, time.time()), lambda view: view.is_quiet, _silent)
        watch = Watch(self._api, time.time())
        with progress(self._console) as show:
            change = self._change_while_watched(watch, show)
            view, found = self._watch_arrival(watch, show, change)
        print_cost(self._console, view)
        print_arrivals(self._console, found)
        wrong = print_problems(self._console, view, watch.checks(), self._api)
        return 0 if found and _is_complete(found) and not wrong else 1

    def _change_while_watched(self, watch: Watch, show: Show) -> Change:
        with self._transaction() as early, self._transaction() as later:
            change = choose(early.cursor())
            late, prompt = change.split(LATE_CUSTOMERS)
            write(early.cursor(), late)
            write(later.cursor(), prompt)
            later.commit()
            self._say(
                f"Changed {len(prompt.customers)} customers and added {len(prompt.orders)} orders."
                " Waiting for new_data_sensor, which looks every minute."
            )
            self._watch_until(watch, _has_read, show)
            early.commit()
        self._say(
            f"Committed {len(late.customers)} more customers and {len(late.orders)} more orders,"
            " late: their time stamps are older than those that were read meanwhile."
        )
        return change

    def _watch_arrival(
        self, watch: Watch, show: Show, change: Change
    ) -> tuple[View, Sequence[Arrival]]:
        with self._transaction() as connection:
            recent = _recent_orders(connection.cursor())
        found: list[Arrival] = []

        def has_arrived(view: View) -> bool:
            if view.is_quiet:
                found[:] = arrivals(self._variables, change, recent)
            return view.is_quiet and _is_complete(found)

        return self._watch_until(watch, has_arrived, show), found

    def _watch_until(self, watch: Watch, is_so: Callable[[View], bool], show: Show) -> View:
        """Looks until it is so, or until there is no time left."""
        while True:
            view = watch.look()
            show(view)
            if is_so(view):
                return view
            if time.monotonic() > self._deadline:
                self._say("The change did not arrive in time.")
                return view
            time.sleep(2)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        connection = psycopg2.connect(
            host=self._variables["DB_HOST"],
            port=int(self._variables["DB_PORT"]),
            user=self._variables["DB_USER"],
            password=self._variables["DB_PASSWORD"],
            dbname=self._variables["DB_NAME"],
        )
        with closing(connection):
            yield connection

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


def _silent(_view: View) -> None:
    """Nothing is worth showing yet."""


def _has_read(view: View) -> bool:
    """Whether a run has read both tables; other runs may come in between."""
    states = {item.asset.name: item.state for item in view.assets}
    return states["raw_customers"] == states["raw_orders"] == "done"


def _is_complete(found: Sequence[Arrival]) -> bool:
    return all(arrival.is_complete for arrival in found)


def choose(cursor: Cursor) -> Change:
    """Customers with nothing wrong about them, those that were changed longest ago first."""
    clean = [number for number in range(1, LAST_CUSTOMER_ID + 1) if is_clean(number)]
    cursor.execute(
        "SELECT customer_id FROM public.customers WHERE customer_id = ANY(%s)"
        " ORDER BY updated_at, customer_id LIMIT %s",
        (clean, CHANGED_CUSTOMERS),
    )
    customers = [customer for (customer,) in cursor.fetchall()]
    cursor.execute("SELECT now(), max(order_id) FROM public.orders")
    [(began, last)] = cursor.fetchall()
    buyers = customers[::_CUSTOMERS_PER_ORDER]
    return Change(began, customers, dict(enumerate(buyers, start=last + 1)))


def write(cursor: Cursor, change: Change) -> None:
    """Makes the change in the cursor's transaction; its time stamps are the transaction's start."""
    cursor.execute(
        "UPDATE public.customers SET last_name = 'Changed', updated_at = now(),"
        " email = 'changed.' || customer_id || '@example.com' WHERE customer_id = ANY(%s)",
        (list(change.customers),),
    )
    execute_values(
        cursor,
        "INSERT INTO public.orders (order_id, customer_id, order_date, status, quantity,"
        " total_amount, currency, created_at, updated_at) VALUES %s",
        [_order(*ids) for ids in change.orders.items()],
        template="(%s, %s, %s, 'pending', 1, %s, %s, now(), now())",
    )


def _order(order_id: int, customer_id: int) -> tuple[object, ...]:
    day = _order_days()[order_id % _ORDER_DAYS]
    return order_id, customer_id, day, 10 + order_id % 50, currency(customer_id)


def _order_days() -> list[date]:
    today = datetime.now(UTC).date()
    return [today - timedelta(days=age) for age in range(1, _ORDER_DAYS + 1)]


def _recent_orders(cursor: Cursor) -> Mapping[date, int]:
    cursor.execute(
        "SELECT order_date, count(*) FROM public.orders WHERE order_date = ANY(%s) GROUP BY 1",
        (_order_days(),),
    )
    return dict(cursor.fetchall())
