"""A small HTTP API of exchange rates that behaves like a real one: pages, limits, fails.

``GET /rates?start=…&end=…&page=…`` answers the euro, pound and Canadian dollar of every day,
320 rates per page. The first request for page 3 fails with 500; every other request for a page
divisible by 5 is refused with 429 and ``Retry-After: 1``. ``GET /docs/…`` answers the project's
documentation as text, so that the links on the assets lead somewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

FIRST_DAY = date(2024, 1, 1)
DAYS_AHEAD = 7
PAGE_SIZE = 320
FAILING_PAGE = 3
LIMITED_PAGES = 5
RETRY_AFTER_SECONDS = 1

# US dollars per unit: mean, swing and days of a full swing.
_CURVES = {"EUR": (1.09, 0.05, 365), "GBP": (1.27, 0.06, 270), "CAD": (0.73, 0.02, 180)}


def usd_per_unit(currency: str, day: date) -> str:
    """The rate of a day: the currency's mean, and a sine around it since the first day."""
    mean, swing, period = _CURVES[currency]
    phase = 2 * math.pi * (day - FIRST_DAY).days / period
    return f"{mean + swing * math.sin(phase):.8f}"


@dataclass(frozen=True)
class Answer:
    """What the server sends back."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def _json(status: HTTPStatus, value: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), headers=named)


def _error(status: HTTPStatus, message: str, **headers: str) -> Answer:
    return _json(status, {"error": message}, **headers)


class RatesApi:
    """Answers requests; remembers how often each page was asked for."""

    def __init__(self, docs: Path) -> None:
        self._docs = docs.resolve()
        self._requests: Counter[int] = Counter()
        self._lock = threading.Lock()

    def answer(self, target: str) -> Answer:
        """The answer to ``GET target``."""
        url = urlsplit(target)
        if url.path == "/rates":
            return self._rates(parse_qs(url.query))
        if url.path.startswith("/docs/"):
            return self._document(unquote(url.path.removeprefix("/docs/")))
        return _error(HTTPStatus.NOT_FOUND, "ask for /rates or /docs/")

    def _rates(self, query: Mapping[str, Sequence[str]]) -> Answer:
        try:
            start = date.fromisoformat(query.get("start", [FIRST_DAY.isoformat()])[0])
            end = date.fromisoformat(query.get("end", [_last_day().isoformat()])[0])
            page = int(query.get("page", ["1"])[0])
        except ValueError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        answer = _page(_days(start, end), page)
        return self._refusal(page) or answer if answer.status is HTTPStatus.OK else answer

    def _refusal(self, page: int) -> Answer | None:
        with self._lock:
            self._requests[page] += 1
            request = self._requests[page]
        if page == FAILING_PAGE and request == 1:
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "out of order, once")
        if page % LIMITED_PAGES == 0 and request % 2 == 1:
            wait = str(RETRY_AFTER_SECONDS)
            return _error(HTTPStatus.TOO_MANY_REQUESTS, "slow down", Retry_After=wait)
        return None

    def _document(self, name: str) -> Answer:
        path = (self._docs / name).resolve()
        path = path if path.suffix else path.with_suffix(".md")
        if not path.is_relative_to(self._docs) or path.suffix != ".md" or not path.is_file():
            return _error(HTTPStatus.NOT_FOUND, f"no such page: {name}")
        return Answer(HTTPStatus.OK, path.read_bytes(), "text/plain; charset=utf-8")


def _last_day() -> date:
    return datetime.now(UTC).date() + timedelta(days=DAYS_AHEAD)


def _days(start: date, end: date) -> list[date]:
    first, last = max(start, FIRST_DAY), min(end, _last_day())
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _page(days: Sequence[date], page: int) -> Answer:
    every = [(day, currency) for day in days for currency in _CURVES]
    last = max(1, math.ceil(len(every) / PAGE_SIZE))
    if not 1 <= page <= last:
        return _error(HTTPStatus.NOT_FOUND, f"there are pages 1 to {last}")
    rates = [
        {"date": day.isoformat(), "currency": currency, "usd_per_unit": usd_per_unit(currency, day)}
        for day, currency in every[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    ]
    next_page = page + 1 if page < last else None
    return _json(HTTPStatus.OK, {"rates": rates, "page": page, "next_page": next_page})


def server(port: int, docs: Path, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """The API, ready to ``serve_forever``; port 0 takes a free one."""
    api = RatesApi(docs)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = api.answer(self.path)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    """Serves until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="pages to answer")
    arguments = parser.parse_args()
    server(arguments.port, arguments.docs, arguments.host).serve_forever()


if __name__ == "__main__":
    main()
