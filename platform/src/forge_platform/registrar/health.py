"""Answers whether the loops are alive, for Kubernetes' probes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from forge_platform.registrar.loop import Loop

STALLED = 120
"""Seconds without a turn after which a loop hangs; failing turns are turns."""


def health_server(loops: Sequence[Loop], port: int) -> ThreadingHTTPServer:
    """A server of ``/healthz`` (no loop hangs) and ``/readyz`` (each one has worked once)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            failing = failing_loops(loops, self.path)
            self.send_response(503 if failing else 200)
            self.end_headers()
            self.wfile.write((" ".join(failing) or "ok").encode() + b"\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Probes are not worth a line each."""

    return ThreadingHTTPServer(("", port), Handler)


def failing_loops(loops: Sequence[Loop], path: str) -> Sequence[str]:
    """The names of the loops that do not satisfy a probe."""
    if path == "/readyz":
        return [loop.name for loop in loops if not loop.has_succeeded]
    return [loop.name for loop in loops if time.monotonic() - loop.last_turn > STALLED]
