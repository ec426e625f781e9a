"""Nothing is lost and nothing doubled, whenever the process that moves the rows is killed.

``FORGE_KILLS`` says how often, ``FORGE_SEED`` repeats the choices of an earlier run.
"""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from busy_source import AHEAD_SECONDS, SKEW_SECONDS, BusySource
from catalogs import REFERENCE, REST, S3, address_at
from hunted_pipeline import (
    CUSTOMERS,
    FILE_ROWS,
    LEDGER,
    ORDER_LOG,
    ORDERS,
    ORDERS_ON_READ,
    ORDERS_SHOWN,
    OVERLAP,
    REJECTED,
    TOTALS,
    Hunt,
    Places,
)
from unreliable_s3 import UnreliableS3

from forge_platform import S3Resource
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres, S3Server

KILLS = int(os.environ.get("FORGE_KILLS", "200"))
SEED = int(os.environ.get("FORGE_SEED") or random.randrange(1 << 30))
ENOUGH_KILLS = 100  # so many meet every step
ENOUGH_TRANSACTIONS = 200  # so many leave rows of every kind
SECONDS_PER_KILL = 5
SECONDS_PER_KILL_ON_S3 = 60  # a step makes a hundred requests, of which one in six goes wrong
SECRET = "secret"
ORDER_COLUMNS = "order_id, customer_id, status, total_amount, updated_at"


@pytest.fixture
def places(new_database: ConnectionParameters, tmp_path: Path) -> Places:
    (tmp_path / "landing").mkdir()
    return Places(
        source=new_database,
        catalog_uri=f"sqlite:///{tmp_path}/catalog.db",
        warehouse=f"file://{tmp_path}/tables",
        landing_uri=f"file://{tmp_path}/landing",
    )


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """A long test shows that it is alive."""

    def said(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)  # noqa: T201

    return said


@pytest.mark.timeout(60 + SECONDS_PER_KILL * KILLS)
def test_killing_loses_and_doubles_nothing(places: Places, say: Callable[[str], None]) -> None:
    hunt = Hunt(places, random.Random(SEED))
    hunted(hunt, KILLS, say)
    assert KILLS < ENOUGH_KILLS or hunt.missed() == []


@pytest.mark.timeout(120 + SECONDS_PER_KILL * KILLS // 10)
def test_a_source_that_is_restarted_loses_and_doubles_nothing(
    server_folder: Path, places: Places, say: Callable[[str], None]
) -> None:
    with EmbeddedPostgres(server_folder / "restarted", password=SECRET) as server:
        hunt = Hunt(replace(places, source=server.connection()), random.Random(SEED))
        with restarted_now_and_then(server):
            source = hunted(hunt, KILLS // 10, say, failures=1, compared=False)
        settled(hunt, source)


@pytest.mark.timeout(60 + SECONDS_PER_KILL_ON_S3 * KILLS // 20)
def test_a_store_that_fails_and_is_slow_loses_and_doubles_nothing(
    places: Places, s3_server: S3Server, s3_bucket: str, say: Callable[[str], None]
) -> None:
    proxy = UnreliableS3(s3_server.endpoint_url, random.Random(SEED))
    stored = replace(
        places,
        warehouse=f"{s3_bucket}/tables",
        landing_uri=f"{s3_bucket}/landing",
        variables={**s3_server.environment, "AWS_ENDPOINT_URL": proxy.url},
    )
    hunt = Hunt(stored, random.Random(SEED), most_steps=1, longest_step=3)
    with proxy.at_work():
        source = hunted(hunt, KILLS // 20, say, compared=False)
    say(f"faults: {dict(proxy.faults)}")
    hunt.places = replace(stored, variables=s3_server.environment)
    settled(hunt, source)
    assert proxy.faults.total() > 0


@pytest.mark.parametrize("place", [S3, REST, REFERENCE])
@pytest.mark.timeout(120 + SECONDS_PER_KILL_ON_S3 * KILLS // 10)
def test_killing_loses_and_doubles_nothing_on_other_catalogs(
    place: str,
    places: Places,
    s3_server: S3Server,
    s3_bucket: str,
    request: pytest.FixtureRequest,
    say: Callable[[str], None],
) -> None:
    uri, warehouse = address_at(place, request, Path())
    stored = replace(
        places,
        catalog_uri=uri,
        warehouse=warehouse,
        landing_uri=f"{s3_bucket}/landing",
        variables=s3_server.environment,
    )
    hunt = Hunt(stored, random.Random(SEED), most_steps=1, longest_step=1.5, commits=2)
    hunted(hunt, KILLS // 10, say)
    assert KILLS < ENOUGH_KILLS or len(hunt.at_commits) == 2


@pytest.mark.timeout(120 + SECONDS_PER_KILL * KILLS // 10)
def test_a_disk_that_fills_loses_and_doubles_nothing(
    places: Places, say: Callable[[str], None]
) -> None:
    hunt = Hunt(places, random.Random(SEED), setting=limit_file_size)
    hunted(hunt, KILLS // 10, say, failures=1)


def hunted(
    hunt: Hunt,
    kills: int,
    say: Callable[[str], None],
    *,
    failures: int = 0,
    compared: bool = True,
) -> BusySource:
    """Kills the pipeline while the source changes, and compares all tables when both rest.

    It goes on until the source has done enough, and until so many steps have failed: what disturbs
    them must have met one.
    """
    say(f"\n{kills} kills with FORGE_SEED={SEED}")
    landing = S3Resource(uri=hunt.places.landing_uri)
    source = BusySource(hunt.places.source, landing, random.Random(SEED))
    started = time.monotonic()
    with source.at_work():
        while (
            hunt.kills < kills
            or hunt.failed.total() < failures
            or source.transactions < ENOUGH_TRANSACTIONS
        ):
            source.check()
            hunt.kill_once()
            if hunt.kills % 20 == 0 or hunt.kills == kills:
                say(f"{time.monotonic() - started:4.0f} s: {hunt.report()}")
    say(f"{source.transactions} transactions, {source.rewrites} tables rewritten")
    if compared:
        settled(hunt, source)
    return source


def settled(hunt: Hunt, source: BusySource) -> None:
    """Lets the pipeline run once more, undisturbed, and compares."""
    assert OVERLAP.total_seconds() > SKEW_SECONDS
    # What was passed over is now older than what a run reads again.
    time.sleep(OVERLAP.total_seconds() + AHEAD_SECONDS)
    hunt.settle()
    compare(hunt.places, source)


@contextmanager
def restarted_now_and_then(server: EmbeddedPostgres) -> Iterator[None]:
    """Restarts a server every two seconds; it is there at the end."""
    ended = threading.Event()

    def restart() -> None:
        while not ended.wait(2):
            server.stop()
            server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def limit_file_size(chance: random.Random) -> None:
    """As a disk with this much room left does; the limit may be lifted again."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    bytes_left = chance.choice((0, 1000, 3000, 10_000, 100_000, most, most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, most))


def compare(places: Places, source: BusySource) -> None:
    """Compares every table with what it was made from, row by row."""
    orders = Counter(source.rows(f"SELECT {ORDER_COLUMNS} FROM orders"))  # noqa: S608
    assert len(orders) > 20
    assert difference(rows(places, ORDERS), orders) == []
    assert difference(rows(places, ORDERS_ON_READ), orders) == []
    shown = source.rows(f"SELECT {ORDER_COLUMNS}, hidden FROM orders WHERE NOT hidden")  # noqa: S608
    assert 0 < len(shown) < orders.total()
    assert difference(rows(places, ORDERS_SHOWN), Counter(shown)) == []
    log = rows(places, ORDER_LOG)
    known = Counter(source.rows(f"SELECT {ORDER_COLUMNS} FROM order_versions"))  # noqa: S608
    assert difference(log - known, Counter()) == []
    assert difference(orders - log, Counter()) == []
    # Two versions of a customer that one transaction wrote have one time: either is the newest.
    versions = source.rows(
        "SELECT customer_id, email, updated_at FROM customers AS version WHERE updated_at ="
        " (SELECT max(updated_at) FROM customers WHERE customer_id = version.customer_id)"
    )
    customers = rows(places, CUSTOMERS)
    assert difference(customers - Counter(set(versions)), Counter()) == []
    assert {key for key, *_ in customers} == {key for key, *_ in versions}
    assert len({key for key, *_ in customers}) == customers.total()
    totals = source.rows("SELECT customer_id, count(*), sum(total_amount) FROM orders GROUP BY 1")
    assert difference(rows(places, TOTALS), Counter(totals)) == []
    compare_files(places, source)
    for table in places.iceberg().catalog().list_tables("space"):
        assert missing_files(places, ".".join(table)) == []


def compare_files(places: Places, source: BusySource) -> None:
    good: list[tuple[object, ...]] = []
    bad: list[tuple[object, ...]] = []
    for name, number, line in source.file_lines():
        customer, email = line.split(",")
        (bad if customer == "x" else good).append((customer, email, name, number))
    kept = [(int(str(customer)), *rest) for customer, *rest in good]
    assert difference(rows(places, FILE_ROWS), Counter(kept)) == []
    view = places.iceberg().view(REJECTED).read(["source_file", "source_line"])
    assert difference(Counter(view.rows()), Counter((name, at) for _, _, name, at in bad)) == []
    listed = S3Resource(uri=places.landing_uri).list_objects()
    ledger = places.iceberg().view(LEDGER).read(["source_file", "version"])
    assert difference(Counter(ledger.rows()), Counter((f.key, f.version) for f in listed)) == []


def rows(places: Places, table: str) -> Counter[tuple[object, ...]]:
    found = places.iceberg().view(table).read()
    assert found.width
    return Counter(found.rows())


def difference(
    found: Counter[tuple[object, ...]], expected: Counter[tuple[object, ...]]
) -> list[tuple[str, tuple[object, ...]]]:
    """What is too much and what is missing."""
    too_many = [("too much", row) for row in (found - expected).elements()]
    missing = [("missing", row) for row in (expected - found).elements()]
    return sorted([*too_many, *missing], key=str)


def missing_files(places: Places, name: str) -> list[str]:
    """Files that some snapshot of the table refers to and that are not there."""
    table = places.iceberg().catalog().load_table(name)
    paths: set[str] = set()
    for snapshot in table.snapshots():
        paths.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            paths.add(manifest.manifest_path)
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            paths.update(entry.data_file.file_path for entry in entries)
    return sorted(path for path in paths if not table.io.new_input(path).exists())
