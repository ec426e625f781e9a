"""A webserver and code servers as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
from google.protobuf.wrappers_pb2 import StringValue
from on_cluster import wait_until

from forge_platform.registrar.code_server import server_id
from forge_platform.registrar.webserver import Webserver
from forge_platform.registrar.workspace import render
from forge_platform.testing import free_port

HOST = "127.0.0.1"
DEFINITIONS = """
import dagster as dg

@dg.job
def a_job():
    pass

defs = dg.Definitions(jobs=[a_job])
"""


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
        wait_until(lambda: server_id(HOST, port) is not None, 60, "the code server")
        yield


@contextmanager
def hanging_code_server(port: int) -> Iterator[None]:
    """One that says its id and answers nothing else."""
    released = threading.Event()

    def answer(_: bytes, __: grpc.ServicerContext) -> bytes:
        released.wait()
        return b""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            says_id = details.method.endswith("/GetServerId")
            return grpc.unary_unary_rpc_method_handler(
                (lambda *_: StringValue(value="hanging").SerializeToString()) if says_id else answer
            )

    with ThreadPoolExecutor() as threads:
        server = grpc.server(threads, handlers=[Handler()])
        server.add_insecure_port(f"{HOST}:{port}")
        server.start()
        try:
            yield
        finally:
            released.set()
            server.stop(None).wait()


@contextmanager
def webserver(
    folder: Path, *options: str, module: str = "forge_platform.webserver"
) -> Iterator[Webserver]:
    port = free_port()
    command = (module, "-w", "workspace.yaml", "-p", str(port), *options)
    found = Webserver(f"http://{HOST}:{port}", process="one")
    with process(*command, folder=folder):
        wait_until(lambda: httpx.get(f"{found.url}/server_info").is_success, 60, "the webserver")
        yield found


def write_workspace(folder: Path, **ports: int) -> None:
    text = render({name: (HOST, port) for name, port in ports.items()})
    (folder / "workspace.yaml").write_text(text)
