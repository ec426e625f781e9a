"""The exchange-rate API over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import httpx
import pytest

from forge_demo import rates_api


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "docs" / "adr").mkdir(parents=True)
    (tmp_path / "docs" / "assets.md").write_text("# Assets")
    (tmp_path / "docs" / "adr" / "one.md").write_text("# One")
    (tmp_path / "secret.md").write_text("# Secret")
    server = rates_api.server(0, tmp_path / "docs")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def patiently(client: httpx.Client, **params: str | int) -> httpx.Response:
    """Asks again where the API fails on purpose."""
    responses = (client.get("/rates", params=params) for _ in range(3))
    return next(response for response in responses if response.status_code == 200)


def test_pages_hold_every_day_and_currency_once(client: httpx.Client) -> None:
    span = {"start": "2024-01-01", "end": "2026-10-31"}
    bodies = [patiently(client, **span, page=page).json() for page in range(1, 11)]
    rates = [rate for body in bodies for rate in body["rates"]]
    keys = {(rate["date"], rate["currency"]) for rate in rates}
    days = (date(2026, 10, 31) - date(2024, 1, 1)).days + 1
    assert len(rates) == len(keys) == 3 * days
    assert [body["page"] for body in bodies] == list(range(1, 11))
    assert [body["next_page"] for body in bodies] == [*range(2, 11), None]


def test_rates_follow_the_documented_curves(client: httpx.Client) -> None:
    body = patiently(client, start="2024-01-01", end="2024-02-15").json()
    rates = {(rate["date"], rate["currency"]): rate["usd_per_unit"] for rate in body["rates"]}
    assert rates["2024-01-01", "EUR"] == "1.09000000"
    assert rates["2024-02-15", "CAD"] == "0.75000000"  # day 45: a quarter of 180
    assert body["next_page"] is None


def test_nothing_before_the_first_day(client: httpx.Client) -> None:
    body = patiently(client, start="2023-12-30", end="2024-01-02").json()
    assert [rate["date"] for rate in body["rates"]] == ["2024-01-01"] * 3 + ["2024-01-02"] * 3


def test_third_page_fails_once(client: httpx.Client) -> None:
    assert [client.get("/rates?page=3").status_code for _ in range(3)] == [500, 200, 200]


def test_every_fifth_page_is_limited_every_other_time(client: httpx.Client) -> None:
    responses = [client.get("/rates?page=5") for _ in range(4)]
    assert [response.status_code for response in responses] == [429, 200, 429, 200]
    assert responses[0].headers["Retry-After"] == "1"
    assert client.get("/rates?page=6").status_code == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/rates?page=0", 404),
        ("/rates?page=999", 404),
        ("/rates?page=one", 400),
        ("/rates?start=yesterday", 400),
        ("/elsewhere", 404),
        ("/docs/missing.md", 404),
        ("/docs/%2e%2e/secret.md", 404),
        ("/docs/assets.md", 200),
        ("/docs/adr/one", 200),
    ],
)
def test_status(client: httpx.Client, target: str, status: int) -> None:
    assert client.get(target).status_code == status
