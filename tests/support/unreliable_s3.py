"""A proxy in front of an S3 endpoint that is slow, answers 500 and 503, and loses answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_FAULTS = {"": 84, "slow": 5, "503": 5, "500": 2, "500 when done": 2, "no answer when done": 2}
_ERROR = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_OF_A_HOP = {"connection", "transfer-encoding", "server", "date", "keep-alive"}


class UnreliableS3(ThreadingHTTPServer):
    """Passes requests on to an endpoint, and does not always.

    Attributes:
        faults: how often each fault happened.
    """

    daemon_threads = True

    def __init__(self, endpoint_url: str, chance: random.Random) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: Counter[str] = Counter()
        self.upstream = urlsplit(endpoint_url).netloc
        self._chance = chance

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Serves while the block runs."""
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()

    def fault(self) -> str:
        """What goes wrong with the next request, if anything."""
        [fault] = self._chance.choices(list(_FAULTS), list(_FAULTS.values()))
        self.faults[fault] += bool(fault)
        return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: UnreliableS3

    def handle_one_request(self) -> None:
        """Any method is passed on."""
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self._serve()
            self.wfile.flush()
        except OSError:  # the client was killed
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        body = self._body()
        fault = self.server.fault()
        if fault == "slow":
            time.sleep(0.5)
        if fault in {"503", "500"}:
            return self._fail(int(fault))
        with closing(HTTPConnection(self.server.upstream, timeout=60)) as upstream:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_HOP}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        if fault == "500 when done":
            return self._fail(500)
        if fault == "no answer when done":
            self.close_connection = True
            return None
        self.send_response_only(answer.status)
        length = str(len(content))
        for name, value in answer.getheaders():
            if name.lower() == "content-length":
                length = value
            elif name.lower() not in _OF_A_HOP:
                self.send_header(name, value)
        self._end(length, content)
        return None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _fail(self, status: int) -> None:
        self.send_response_only(status)
        self._end(str(len(_ERROR)), b"" if self.command == "HEAD" else _ERROR)

    def _end(self, length: str, content: bytes) -> None:
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)
