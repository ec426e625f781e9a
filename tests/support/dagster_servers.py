"""A webserver and code servers as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from forge_platform.registrar.code_server import server_id
from forge_platform.registrar.webserver import Webserver
from forge_platform.registrar.workspace import render

HOST = "127.0.0.1"
DEFINITIONS = "import dagster as dg\n\ndefs = dg.Definitions()\n"


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
    return port


def wait_until(reached: Callable[[], bool], limit: float = 60) -> None:
    end = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@contextmanager
def process(*command: str, folder: Path) -> Iterator[None]:
    started = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={"DAGSTER_HOME": str(folder), "DAGSTER_DISABLE_TELEMETRY": "1"},
    )
    try:
        yield
    finally:
        started.kill()
        started.wait()


@contextmanager
def code_server(folder: Path, port: int) -> Iterator[None]:
    (folder / "defs.py").write_text(DEFINITIONS)
    with process("dagster", "api", "grpc", "-f", "defs.py", "-p", str(port), folder=folder):
        wait_until(lambda: server_id(HOST, port) is not None)
        yield


@contextmanager
def webserver(
    folder: Path, *options: str, module: str = "forge_platform.webserver"
) -> Iterator[Webserver]:
    port = free_port()
    command = (module, "-w", "workspace.yaml", "-p", str(port), *options)
    found = Webserver(f"http://{HOST}:{port}", process="one")

    def answers() -> bool:
        try:
            return httpx.get(f"{found.url}/server_info").is_success
        except httpx.HTTPError:
            return False

    with process(*command, folder=folder):
        wait_until(answers)
        yield found


def write_workspace(folder: Path, **ports: int) -> None:
    text = render({name: (HOST, port) for name, port in ports.items()})
    (folder / "workspace.yaml").write_text(text)
