"""A paged JSON API as a Dagster resource."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from forge_platform.errors import (
    ApiResponseError,
    AuthenticationFailed,
    ConfigurationError,
    ForgeError,
    SourceUnavailable,
)

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

LARGEST_PAGE_BYTES = 64 * 1024 * 1024

_SHOWN_CHARACTERS = 200
_HIDDEN = "***"
_SECRET_PARAMETERS = ("key", "token", "secret", "password", "signature")
_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_TRY_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class _AttemptFailed(Exception):
    """One attempt failed in a way that the next one may not."""

    def __init__(self, message: str, asked_wait: float | None = None) -> None:
        super().__init__(message)
        self.asked_wait = asked_wait


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A complete answer, and how messages show it."""

    url: str
    status: int
    content_type: str
    retry_after: str | None
    body: bytes
    secret: str | None

    def __str__(self) -> str:
        start = _without(self.secret, self.body.decode(errors="backslashreplace"))
        return (
            f"GET {self.url} answered {self.status} ({self.content_type}): "
            f"{start[:_SHOWN_CHARACTERS]!r}."
        )


class ApiResource(dg.ConfigurableResource["ApiResource"]):
    """Reads the pages of a JSON API, at the speed and with the patience that it asks for.

    A page is a JSON object with ``next_page``: the number of the next one, or null on the
    last. Connection errors, timeouts, 408, 425, 429 and 5xx are tried again with exponential
    back-off and full jitter, or when ``Retry-After`` says. No message shows a credential.
    """

    base_url: str = Field(
        repr=False, description="URL of the API; query parameters are added to it."
    )
    token: str | None = Field(default=None, description="Sent as bearer token.", repr=False)
    timeout_seconds: float = Field(default=30, gt=0, description="For one answer, all of it.")
    max_attempts: int = Field(default=6, ge=1, description="Attempts for one page.")
    backoff_seconds: float = Field(default=0.5, ge=0, description="Doubled at every attempt.")
    max_wait_seconds: float = Field(default=60, ge=0, description="Longest wait for an attempt.")
    requests_per_second: float | None = Field(default=None, gt=0, description="None: no limit.")
    max_pages: int = Field(default=1000, ge=1, description="More pages than these are an error.")
    page_size: int | None = Field(default=None, ge=1, description="None: what the API prefers.")
    page_parameter: str = Field(default="page", description="Query parameter of the page.")
    size_parameter: str = Field(default="limit", description="Query parameter of page_size.")

    _next_request: float = PrivateAttr(default=0.0)

    def get_pages(
        self,
        path: str = "",
        params: Mapping[str, str | int] | None = None,
        required: Sequence[str] = (),
    ) -> Iterator[dict[str, Any]]:
        """The pages, one after the other, until one says that it is the last.

        Args:
            path: below the base URL.
            params: query parameters, besides those of the page.
            required: fields that every page must have besides ``next_page``.

        Raises:
            SourceUnavailable: all attempts for a page failed.
            AuthenticationFailed: the API refuses the credentials (401, 403).
            ApiResponseError: another answer that is not a page; or pages repeat, or never end.
            ConfigurationError: the URL is malformed.
        """
        number = 1
        seen: set[bytes] = set()
        with self._client() as client:
            for read in count(1):
                answer = self._fetch(client, self._url(path, params or {}, number))
                page = _parse(answer, ("next_page", *required))
                _check_progress(page, number, seen, answer)
                yield page
                if page["next_page"] is None:
                    return
                if read == self.max_pages:
                    raise self._endless(answer)
                number = page["next_page"]

    def wait(self, seconds: float) -> None:
        """Waits before a request; a subclass may wait in another way."""
        time.sleep(seconds)

    def _endless(self, answer: _Answer) -> ApiResponseError:
        return ApiResponseError(
            f"{answer} These were {self.max_pages} pages and there is a next one: either the API "
            f"pages for ever, or max_pages of the ApiResource must be more than {self.max_pages}."
        )

    def _client(self) -> "httpx.Client":
        import httpx

        headers = {"Accept": "application/json"}
        if self.token is not None:
            if not (self.token.isascii() and self.token.isprintable()):
                raise ConfigurationError(
                    "The token of the ApiResource holds characters that HTTP forbids: is there a "
                    "line break at its end?"
                )
            headers["Authorization"] = f"Bearer {self.token}"
        return httpx.Client(headers=headers, timeout=self.timeout_seconds, follow_redirects=True)

    def _url(self, path: str, params: Mapping[str, str | int], number: int) -> "httpx.URL":
        import httpx

        paging: dict[str, str | int] = {self.page_parameter: number}
        if self.page_size is not None:
            paging[self.size_parameter] = self.page_size
        try:
            url = httpx.URL(self.base_url)
            if path:
                url = url.copy_with(path=f"{url.path.rstrip('/')}/{path.lstrip('/')}")
            return url.copy_merge_params({**params, **paging})
        except httpx.InvalidURL:  # its text may show a password
            raise ConfigurationError("The base_url of the ApiResource is malformed.") from None

    def _fetch(self, client: "httpx.Client", url: "httpx.URL") -> _Answer:
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_AttemptFailed),
            stop=tenacity.stop_after_attempt(self.max_attempts),
            wait=self._pause,
            sleep=self.wait,
            reraise=True,
        )
        try:
            return retrying(self._attempt, client, url)
        except _AttemptFailed as error:
            raise SourceUnavailable(
                f"{error} Gave up after {self.max_attempts} attempts (max_attempts)."
            ) from error

    def _pause(self, state: "RetryCallState") -> float:
        from tenacity import wait_random_exponential

        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, _AttemptFailed) and failure.asked_wait is not None:
            return min(failure.asked_wait, self.max_wait_seconds)
        backoff = wait_random_exponential(self.backoff_seconds, self.max_wait_seconds)
        return backoff(state)

    def _attempt(self, client: "httpx.Client", url: "httpx.URL") -> _Answer:
        self._keep_rate()
        answer = self._exchange(client, url)
        failed = answer.status in _TRY_AGAIN or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if failed:
            asked = _seconds(answer.retry_after)
            said = f" It asks to wait {asked:.0f} s." if asked is not None else ""
            raise _AttemptFailed(f"{answer}{said}", asked)
        if answer.status in _REFUSED:
            raise AuthenticationFailed(f"{answer} Check the API's token and what it allows.")
        if answer.status != HTTPStatus.OK:
            raise ApiResponseError(f"{answer} Check the API's base_url and parameters.")
        return answer

    def _exchange(self, client: "httpx.Client", url: "httpx.URL") -> _Answer:
        import httpx

        place = f"GET {self._shown_url(url)}"
        try:
            with client.stream("GET", url) as response:
                return self._read(response)
        except httpx.UnsupportedProtocol as error:
            raise ConfigurationError(f"{place} is not possible: {error}") from None
        except httpx.TimeoutException as error:
            raise _AttemptFailed(
                f"{place} had no complete answer within {self.timeout_seconds:g} s "
                "(timeout_seconds)."
            ) from error
        except httpx.TransportError as error:
            raise _AttemptFailed(f"{place} failed: {type(error).__name__}: {error}.") from error
        except httpx.RequestError as error:
            raise ApiResponseError(f"{place} has no usable answer: {error}.") from error

    def _read(self, response: "httpx.Response") -> _Answer:
        import httpx

        deadline = time.monotonic() + self.timeout_seconds
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer trickles")
            if len(body) > LARGEST_PAGE_BYTES:
                raise ApiResponseError(
                    f"{self._answer(response, body)} A page of more than {LARGEST_PAGE_BYTES:,} "
                    "bytes is refused: ask for smaller ones (page_size)."
                )
        return self._answer(response, body)

    def _answer(self, response: "httpx.Response", body: bytearray) -> _Answer:
        return _Answer(
            url=self._shown_url(response.url),
            status=response.status_code,
            content_type=response.headers.get("Content-Type", "no content type"),
            retry_after=response.headers.get("Retry-After"),
            body=bytes(body),
            secret=self.token,
        )

    def _shown_url(self, url: "httpx.URL") -> str:
        for name in url.params:
            if any(secret in name.lower() for secret in _SECRET_PARAMETERS):
                url = url.copy_set_param(name, _HIDDEN)
        return _without(self.token, str(url.copy_with(userinfo=b"")))

    def _keep_rate(self) -> None:
        if self.requests_per_second is None:
            return
        now = time.monotonic()
        if self._next_request > now:
            self.wait(self._next_request - now)
        self._next_request = max(now, self._next_request) + 1 / self.requests_per_second


def _without(secret: str | None, text: str) -> str:
    return text.replace(secret, _HIDDEN) if secret else text


def _parse(answer: _Answer, required: Sequence[str]) -> dict[str, Any]:
    try:
        page = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise _not_a_page(answer, "it is not JSON") from error
    if not isinstance(page, dict):
        raise _not_a_page(answer, "it is not a JSON object")
    if missing := [name for name in required if name not in page]:
        raise _not_a_page(answer, f"it has no {', '.join(missing)}")
    return page


def _check_progress(
    page: Mapping[str, Any], number: int, seen: set[bytes], answer: _Answer
) -> None:
    following = page["next_page"]
    if following is not None and type(following) is not int:
        raise _not_a_page(answer, f"next_page is neither a whole number nor null: {following!r}")
    if following is not None and following <= number:
        raise _not_a_page(answer, f"page {number} names page {following} as the next one")
    content = {name: value for name, value in page.items() if name not in {"page", "next_page"}}
    if not any(content.values()):
        return  # pages may be empty more than once
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    if digest in seen:
        raise _not_a_page(answer, f"page {number} repeats the content of an earlier page")
    seen.add(digest)


def _not_a_page(answer: _Answer, reason: str) -> ForgeError:
    return ApiResponseError(
        f"{answer} That is not the expected page: {reason}. Check the API's base_url, or "
        "whether the API has changed."
    )


def _seconds(retry_after: str | None) -> float | None:
    """What a ``Retry-After`` header asks for; None when it asks for nothing understandable."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
