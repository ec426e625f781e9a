"""Answers whether the loops are alive, for Kubernetes' probes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from forge_platform.registrar.loop import Loop

STALLED = 300
"""Seconds without a turn after which a loop hangs; failing turns are turns."""


def health_server(loops: Sequence[Loop], port: int) -> ThreadingHTTPServer:
    """A server of ``/healthz`` (no loop hangs), ``/readyz`` (each has worked) and ``/metrics``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            failing = failing_loops(loops, self.path)
            self.send_response(503 if failing else 200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            text = metrics(loops) if self.path == "/metrics" else " ".join(failing) or "ok"
            self.wfile.write(text.encode() + b"\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Probes are not worth a line each."""

    return ThreadingHTTPServer(("", port), Handler)


def failing_loops(loops: Sequence[Loop], path: str) -> Sequence[str]:
    """The names of the loops that do not satisfy a probe."""
    if path == "/metrics":
        return []
    if path == "/readyz":
        return [loop.name for loop in loops if not loop.has_succeeded]
    return [loop.name for loop in loops if time.monotonic() - loop.last_turn > STALLED]


def metrics(loops: Sequence[Loop]) -> str:
    """What Prometheus reads: for how long each loop has not turned, and whether it ever worked."""
    values = (
        (f'{name}{{loop="{loop.name}"}}', value)
        for loop in loops
        for name, value in (
            ("forge_registrar_seconds_since_turn", time.monotonic() - loop.last_turn),
            ("forge_registrar_has_succeeded", float(loop.has_succeeded)),
        )
    )
    return "\n".join(f"{name} {value:.3f}" for name, value in values)
