from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from forge_platform.errors import ConfigurationError
from forge_platform.scaffold import main, scaffold

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaffold("returns", tmp_path_factory.mktemp("locations"))


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_location_loads_and_its_own_test_passes(folder: Path) -> None:
    load = "import dagster; from returns.definitions import defs"
    run(folder, "-c", f"{load}; dagster.Definitions.validate_loadable(defs)")
    assert "1 passed" in run(folder, "-m", "pytest", "-q", "tests")


def test_a_new_location_loads_no_library_that_only_its_asset_needs(folder: Path) -> None:
    load = "import sys; import returns.definitions"
    heavy = "{'numpy', 'polars', 'pyarrow', 'pyiceberg'}"
    assert run(folder, "-c", f"{load}; print(*{heavy} & set(sys.modules))").split() == []


def test_a_new_location_is_clean(folder: Path) -> None:
    own = f'src = ["src", "{ROOT}/platform/src"]'
    config = ("--config", str(ROOT / "pyproject.toml"), "--config", own)
    run(folder, "-m", "ruff", "check", *config, ".")
    run(folder, "-m", "ruff", "format", "--check", *config, ".")


def test_a_new_location_is_named_everywhere(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    values = yaml.safe_load((folder / "deploy" / "values.yaml").read_text())
    assert project["project"]["name"] == "returns"
    assert values["location"] == "returns"
    assert (folder / "tests" / "test_returns_transforms.py").exists()
    assert not list(folder.rglob("*.template"))


@pytest.mark.parametrize("name", ["Returns", "re-turns", "9lives", "x", "a" * 32, "a/b", ""])
def test_a_name_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lower-case"):
        scaffold(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["forge", "platform", "demo", "dagster", "class", "json", "polars"]
)
def test_a_name_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names something else already"):
        scaffold(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_location_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    with pytest.raises(SystemExit, match="is there already"):
        main(["orders", "--folder", str(tmp_path)])
    assert not list((tmp_path / "orders").iterdir())
