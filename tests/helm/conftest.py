"""The charts, rendered by helm without a cluster."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from charts import ROOT


@pytest.fixture(scope="session", autouse=True)
def _charts() -> None:
    """Skips where there is no helm or none of the charts below ours; `make e2e` needs both."""
    if shutil.which("helm") is None:
        pytest.skip("helm is not on the PATH.")
    command = [ROOT / "helm" / "dependencies"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr)
