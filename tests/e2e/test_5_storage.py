"""The tests of tables on S3, on the cluster's gateway instead of a server in the same process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cluster_tables import secret
from given_s3 import VARIABLE
from on_cluster import ROOT, Namespace, listens

PORT = 7070
SUITES = ("platform/tests/test_iceberg_merge.py", "platform/tests/test_table_care.py")


def test_tables_are_right_on_the_gateway(namespace: Namespace) -> None:
    host = namespace.address("dev-s3")
    if not listens(host, PORT):
        pytest.skip("The cluster's network cannot be reached, and a forward bears no such load.")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *SUITES, "-k", "postgresql"]
    variables = {**os.environ, **secret(namespace, "dev-s3"), VARIABLE: f"http://{host}:{PORT}"}
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
