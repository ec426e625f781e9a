"""A private authority is trusted by every library that asks over TLS."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from forge_platform.helm_values import SUBCHART, release_values

CHART_VALUES = Path(__file__).parents[2] / "helm" / "code-location" / "values.yaml"
TEAM = {
    "location": "orders",
    "image": {"repository": "orders", "tag": "1"},
    "caBundle": {"configMap": "company"},
}
# Any answer will do: what is not trusted is never asked.
ASK = """
import sys

import boto3, httpx, requests
from pyarrow import fs

port = sys.argv[1]
url = f"https://localhost:{port}"
httpx.get(url)
requests.get(url)
given = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
boto3.client("s3", endpoint_url=url, **given).head_bucket(Bucket="lake")
once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
store = {"endpoint_override": f"localhost:{port}", "region": "us-east-1", "retry_strategy": once}
fs.S3FileSystem(access_key="a", secret_key="b", **store).get_file_info("lake/file")
"""


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of ``localhost``, by an authority that nobody knows."""
    of = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    files = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem")
    command = ("openssl", "req", "-x509", *key, *of, *files)
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "certificate.pem"


@pytest.fixture
def port(certificate: Path) -> Iterator[int]:
    """Of an HTTPS server with that certificate."""
    server = HTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_authority_of_the_values_is_trusted_by_all(certificate: Path, port: int) -> None:
    values = release_values([yaml.safe_load(CHART_VALUES.read_text()), TEAM])
    (deployment,) = values[SUBCHART]["deployments"]
    (mount,) = [m["mountPath"] for m in deployment["volumeMounts"] if m["name"] == "authorities"]
    given = {
        entry["name"]: str(certificate)
        for entry in deployment["env"]
        if entry["value"] == f"{mount}/ca.crt"
    }
    command = [sys.executable, "-c", ASK, str(port)]
    done = subprocess.run(
        command, env={**os.environ, **given}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
