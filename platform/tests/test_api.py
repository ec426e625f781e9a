from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
from pydantic import PrivateAttr

from forge_platform.errors import (
    ApiResponseError,
    AuthenticationFailed,
    ConfigurationError,
    SourceUnavailable,
)
from forge_platform.resources.api import LARGEST_PAGE_BYTES, ApiResource

TOKEN = "not-to-be-seen"

Reply: TypeAlias = "tuple[int, dict[str, str], bytes] | Callable[[Handler], None]"


class Handler(BaseHTTPRequestHandler):
    """Answers with what the test has prepared, and notes what it was asked."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self)
        number = len(self.server.requests) - 1
        reply = self.server.reply(number, self)
        if callable(reply):
            reply(self)
            return
        status, headers, body = reply
        self.answer(status, headers, body)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def page(self) -> int:
        return int(self.query["page"][0])

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """A real API on 127.0.0.1 whose behaviour is a function."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[Handler] = []
        self.reply: Callable[[int, Handler], Reply] = lambda _, __: page(None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/rates"

    def in_turn(self, *replies: Reply) -> None:
        self.reply = lambda number, _: replies[number]


class PatientApi(ApiResource):
    """An API that is waited for in no time; ``waits`` is how long it would have been."""

    _waits: list[float] = PrivateAttr(default_factory=list)

    def wait(self, seconds: float) -> None:
        self._waits.append(seconds)

    @property
    def waits(self) -> list[float]:
        return self._waits


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def api(server: Server) -> PatientApi:
    return PatientApi(base_url=server.url, token=TOKEN)


def page(following: int | None, rates: Any = None) -> Reply:
    body = {"rates": [following] if rates is None else rates, "next_page": following}
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def failure(status: int, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "text/plain", **named}, b"no"


def read(api: ApiResource, **arguments: Any) -> list[dict[str, Any]]:
    return list(api.get_pages(required=("rates",), **arguments))


def test_all_pages_are_read_in_order(server: Server, api: PatientApi) -> None:
    server.in_turn(page(2, ["a"]), page(3, ["b"]), page(None, ["c"]))
    assert [content["rates"] for content in read(api)] == [["a"], ["b"], ["c"]]
    assert [request.page for request in server.requests] == [1, 2, 3]
    assert api.waits == []


def test_pages_come_as_they_are_asked_for(server: Server, api: PatientApi) -> None:
    server.reply = lambda _, request: page(request.page + 1)
    pages = api.get_pages()
    next(pages)
    assert len(server.requests) == 1


def test_parameters_and_path_are_added_to_the_base_url(server: Server) -> None:
    api = ApiResource(
        base_url=f"{server.url}/?tenant=a b",
        page_size=50,
        page_parameter="p",
        size_parameter="per_page",
    )
    read(api, path="/daily", params={"start": "2024-01-01"})
    [request] = server.requests
    assert urlsplit(request.path).path == "/rates/daily"
    expected = {"tenant": ["a b"], "start": ["2024-01-01"], "p": ["1"], "per_page": ["50"]}
    assert request.query == expected


def test_no_size_is_asked_for_unless_one_is_set(server: Server, api: PatientApi) -> None:
    read(api)
    assert set(server.requests[0].query) == {"page"}


def test_the_token_is_sent_as_bearer_token(server: Server, api: PatientApi) -> None:
    read(api)
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_tried_again(server: Server, api: PatientApi, status: int) -> None:
    server.in_turn(failure(status), failure(status), page(None))
    assert len(read(api)) == 1
    assert len(api.waits) == 2


def test_a_connection_that_breaks_off_is_tried_again(server: Server, api: PatientApi) -> None:
    def hang_up(request: Handler) -> None:
        request.connection.close()

    def break_off(request: Handler) -> None:
        request.answer(200, {"Content-Length": "1000"}, b'{"rates"')
        request.close_connection = True

    server.in_turn(hang_up, break_off, page(None))
    assert len(read(api)) == 1
    assert len(server.requests) == 3


def test_an_answer_that_takes_too_long_is_tried_again(server: Server) -> None:
    def sleep(_: Handler) -> None:
        time.sleep(0.6)

    api = PatientApi(base_url=server.url, timeout_seconds=0.2)
    server.reply = lambda number, _: page(None) if number else sleep
    assert len(read(api)) == 1


def test_an_answer_that_trickles_for_ever_times_out(server: Server) -> None:
    def trickle(request: Handler) -> None:
        request.answer(200, {"Content-Length": "1000"}, b"")
        with suppress(OSError):  # nobody listens any more
            for _ in range(400):
                request.wfile.write(b" ")
                time.sleep(0.05)

    api = PatientApi(base_url=server.url, timeout_seconds=0.2, max_attempts=1)
    server.in_turn(trickle)
    begin = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"within 0\.2 s"):
        read(api)
    assert time.monotonic() - begin < 10


def test_the_back_off_grows_and_is_jittered_in_full(server: Server) -> None:
    server.reply = lambda _, __: failure(500)
    waits = []
    for _ in range(20):
        api = PatientApi(base_url=server.url, max_attempts=5, backoff_seconds=1, max_wait_seconds=4)
        with pytest.raises(SourceUnavailable):
            read(api)
        waits.append(api.waits)
    longest = [max(column) for column in zip(*waits, strict=True)]
    shortest = [min(column) for column in zip(*waits, strict=True)]
    limits = [1, 2, 4, 4]
    assert all(limit / 2 < wait <= limit for wait, limit in zip(longest, limits, strict=True))
    assert all(wait < limit / 2 for wait, limit in zip(shortest, limits, strict=True))


def test_retry_after_in_seconds_is_honoured(server: Server, api: PatientApi) -> None:
    server.in_turn(failure(429, Retry_After="7"), failure(503, Retry_After="0"), page(None))
    read(api)
    assert api.waits == [7, 0]


def test_retry_after_as_a_date_is_honoured(server: Server, api: PatientApi) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    server.in_turn(failure(429, Retry_After=later), failure(429, Retry_After=past), page(None))
    read(api)
    assert 20 < api.waits[0] <= 50
    assert api.waits[1] == 0


def test_retry_after_is_capped(server: Server, api: PatientApi) -> None:
    server.in_turn(failure(429, Retry_After="86400"), page(None))
    read(api)
    assert api.waits == [60]


@pytest.mark.parametrize("value", ["soon", "-5", "1.5", "", "Thu, 99 Foo 2024 99:99:99 GMT"])
def test_a_retry_after_that_makes_no_sense_is_ignored(
    server: Server, api: PatientApi, value: str
) -> None:
    server.in_turn(failure(429, Retry_After=value), page(None))
    read(api)
    assert 0 <= api.waits[0] <= 0.5


def test_giving_up_tells_what_was_tried(server: Server, api: PatientApi) -> None:
    server.reply = lambda _, __: failure(503, Retry_After="3600")
    with pytest.raises(SourceUnavailable) as caught:
        read(api)
    assert len(server.requests) == 6
    text = str(caught.value)
    assert f"GET {server.url}?page=1 answered 503 (text/plain): 'no'." in text
    assert "asks to wait 3600 s" in text
    assert "6 attempts (max_attempts)" in text


def test_an_api_that_is_away_is_a_transient_failure(server: Server) -> None:
    server.shutdown()
    server.server_close()
    api = PatientApi(base_url=server.url, token=TOKEN, max_attempts=3)
    with pytest.raises(SourceUnavailable, match=r"GET http://127\.0\.0\.1.*ConnectError.* 3 att"):
        read(api)
    assert len(api.waits) == 2


def test_a_failed_page_is_asked_for_again_and_no_other(server: Server, api: PatientApi) -> None:
    server.in_turn(page(2), failure(500), page(None))
    assert len(read(api)) == 2
    assert [request.page for request in server.requests] == [1, 2, 2]


def test_requests_are_spread_over_time(server: Server) -> None:
    server.reply = lambda number, _: failure(500) if number == 1 else page(number + 2, [number])
    api = PatientApi(base_url=server.url, requests_per_second=0.1, backoff_seconds=0, max_pages=3)
    with pytest.raises(ApiResponseError):
        read(api)
    limited = [wait for wait in api.waits if wait]
    assert len(limited) == 3  # four requests, and the first need not wait
    assert limited == pytest.approx([10, 20, 30], abs=5)


def test_the_rate_limit_really_waits_and_holds_between_calls(server: Server) -> None:
    api = ApiResource(base_url=server.url, requests_per_second=10)
    begin = time.monotonic()
    for _ in range(4):
        read(api)
    assert time.monotonic() - begin >= 0.3


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_permanent(server: Server, api: PatientApi, status: int) -> None:
    server.reply = lambda _, __: failure(status)
    with pytest.raises(AuthenticationFailed, match=f"answered {status}.*token"):
        read(api)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [204, 304, 400, 404, 410, 422])
def test_any_other_status_is_permanent(server: Server, api: PatientApi, status: int) -> None:
    server.reply = lambda _, __: (status, {}, b"")
    with pytest.raises(ApiResponseError, match=f"answered {status} "):
        read(api)
    assert len(server.requests) == 1


def test_html_is_no_page(server: Server, api: PatientApi) -> None:
    html = b"<!DOCTYPE html><title>Sign in</title>" + b" " * 1000
    server.in_turn((200, {"Content-Type": "text/html; charset=utf-8"}, html))
    with pytest.raises(ApiResponseError) as caught:
        read(api)
    text = str(caught.value)
    assert f"GET {server.url}?page=1 answered 200 (text/html; charset=utf-8)" in text
    assert "<title>Sign in</title>" in text
    assert "not JSON" in text
    assert len(text) < 500


def test_a_redirect_to_a_login_page_names_where_it_led(server: Server, api: PatientApi) -> None:
    html = (200, {"Content-Type": "text/html"}, b"<html>")
    server.in_turn((302, {"Location": "/login"}, b""), html)
    with pytest.raises(ApiResponseError, match=r"/login answered 200 \(text/html\)"):
        read(api)


def test_endless_redirects_are_an_error(server: Server, api: PatientApi) -> None:
    server.reply = lambda _, __: (302, {"Location": "/rates"}, b"")
    with pytest.raises(ApiResponseError, match="redirects"):
        read(api)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b'{"rates": [', "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"next_page": null}', "has no rates"),
        (b'{"rates": []}', "has no next_page"),
        (b"{}", "has no next_page, rates"),
        (b'{"rates": [], "next_page": "2"}', "next_page is neither"),
        (b'{"rates": [], "next_page": true}', "next_page is neither"),
        (b'{"rates": [], "next_page": 2.0}', "next_page is neither"),
        (b'{"rates": [], "next_page": 1}', "names page 1 as the next"),
        (b'{"rates": [], "next_page": 0}', "names page 0 as the next"),
    ],
)
def test_what_is_no_page_is_refused(
    server: Server, api: PatientApi, body: bytes, reason: str
) -> None:
    server.in_turn((200, {"Content-Type": "application/json"}, body))
    with pytest.raises(ApiResponseError, match=reason):
        read(api)
    assert len(server.requests) == 1


def test_an_answer_without_a_content_type_is_judged_by_its_content(
    server: Server, api: PatientApi
) -> None:
    server.in_turn((200, {}, b'{"rates": [], "next_page": null}'))
    assert len(read(api)) == 1


def test_a_broken_encoding_is_no_page(server: Server, api: PatientApi) -> None:
    server.in_turn((200, {"Content-Encoding": "gzip"}, b"not gzip"))
    with pytest.raises(ApiResponseError, match="no usable answer"):
        read(api)


def test_a_page_that_is_too_large_is_refused(server: Server, api: PatientApi) -> None:
    def flood(request: Handler) -> None:
        size = LARGEST_PAGE_BYTES * 2
        request.send_response(200)
        request.send_header("Content-Length", str(size))
        request.end_headers()
        block = b" " * (1024 * 1024)
        with suppress(OSError):  # nobody listens any more
            for _ in range(size // len(block)):
                request.wfile.write(block)

    server.in_turn(flood)
    with pytest.raises(ApiResponseError, match="page_size"):
        read(api)


def test_pages_for_ever_end_at_the_limit(server: Server) -> None:
    server.reply = lambda _, request: page(request.page + 1)
    api = PatientApi(base_url=server.url, max_pages=5)
    with pytest.raises(ApiResponseError, match="max_pages of the ApiResource must be more than 5"):
        read(api)
    assert len(server.requests) == 5


def test_as_many_pages_as_the_limit_allows_are_fine(server: Server) -> None:
    server.in_turn(page(2), page(3), page(None))
    assert len(read(PatientApi(base_url=server.url, max_pages=3))) == 3


def test_a_page_that_comes_again_under_another_number_is_an_error(
    server: Server, api: PatientApi
) -> None:
    server.in_turn(page(2, ["a"]), page(3, ["b"]), page(4, ["a"]))
    with pytest.raises(ApiResponseError, match="page 3 repeats"):
        read(api)


def test_an_api_that_ignores_the_page_is_an_error(server: Server, api: PatientApi) -> None:
    server.reply = lambda _, __: page(2, ["a"])
    with pytest.raises(ApiResponseError, match="page 2 names page 2 as the next"):
        read(api)
    assert len(server.requests) == 2


def test_several_pages_may_be_empty(server: Server, api: PatientApi) -> None:
    server.in_turn(page(2, []), page(3, []), page(None, ["a"]))
    assert len(read(api)) == 3


SECRET_REPLIES: list[Reply] = [
    (401, {}, f"bad token {TOKEN}".encode()),
    (500, {}, f"Authorization: Bearer {TOKEN}".encode()),
    (200, {}, (" " * 190 + TOKEN).encode()),
    (302, {"Location": "/elsewhere?access_token=" + TOKEN}, b""),
    (404, {}, TOKEN.encode() * 100),
]


@pytest.mark.parametrize("reply", SECRET_REPLIES)
def test_no_message_shows_a_credential(server: Server, reply: Reply) -> None:
    server.reply = lambda _, __: reply
    api = PatientApi(
        base_url=server.url.replace("//", "//user:hidden@")
        + "?api_key=hidden&client_secret=hidden",
        token=TOKEN,
        max_attempts=1,
    )
    with pytest.raises((AuthenticationFailed, SourceUnavailable, ApiResponseError)) as caught:
        read(api, params={"sessionToken": "hidden"})
    text = str(caught.value)
    assert not any(part in text for part in (TOKEN, TOKEN[:5], "hidden", "user:"))
    assert TOKEN not in repr(api)


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}é"])
def test_a_token_that_cannot_be_sent_is_a_configuration_error(server: Server, token: str) -> None:
    with pytest.raises(ConfigurationError, match="line break") as caught:
        read(ApiResource(base_url=server.url, token=token))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["example.org/rates", "ftp://example.org", "http://user:hidden@host:port/", ""]
)
def test_a_malformed_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(ApiResource(base_url=url))
    assert "hidden" not in str(caught.value)


def test_the_base_url_comes_from_a_variable(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCHANGE_RATES_URL", server.url)

    @dg.asset
    def rates(exchange_rates_api: ApiResource) -> int:
        return len(read(exchange_rates_api))

    api = ApiResource(base_url=dg.EnvVar("EXCHANGE_RATES_URL"))
    result = dg.materialize([rates], resources={"exchange_rates_api": api})
    assert result.output_for_node("rates") == 1


def test_a_permanent_failure_is_not_retried_by_the_run(server: Server) -> None:
    server.reply = lambda _, __: failure(404)

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def rates(exchange_rates_api: ApiResource) -> None:
        read(exchange_rates_api)

    api = ApiResource(base_url=server.url)
    dg.materialize([rates], resources={"exchange_rates_api": api}, raise_on_error=False)
    assert len(server.requests) == 1
