"""The charts, rendered by helm without a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from charts import ROOT


@pytest.fixture(scope="session", autouse=True)
def _charts() -> None:
    """Skips where there is no helm or none of the charts below ours, but not in CI."""
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    if shutil.which("helm") is None:
        refuse("helm is not on the PATH.")
    command = [ROOT / "helm" / "dependencies"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        refuse(done.stderr)
