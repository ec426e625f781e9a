"""The command ``forge-scaffold``: a new code location that works, to be changed."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from forge_platform.errors import ConfigurationError

_NAME = re.compile(r"[a-z][a-z0-9]{1,25}")
_SUFFIX = ".template"
# Releases, images and packages of the platform itself.
_TAKEN = {"dagster", "demo", "forge", "platform"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a new code location."""
    options = _parser().parse_args(arguments)
    try:
        folder = scaffold(options.location, options.folder)
    except ConfigurationError as error:
        sys.exit(f"forge-scaffold: {error}")
    print(f"{folder} is there. Go on with docs/add-a-location.md.")  # noqa: T201


def scaffold(location: str, parent: Path) -> Path:
    """Writes the files of a new code location and returns their folder.

    Args:
        location: its name: package, image, release, Service and Iceberg namespace.
        parent: where its folder is made.

    Raises:
        ConfigurationError: the name does not fit all of these, or is taken.
    """
    if not _NAME.fullmatch(location):
        raise ConfigurationError(
            f"{location!r} cannot be a Python package, an image and a Service at once: "
            "use 2 to 26 lower-case letters and digits, a letter first."
        )
    folder = parent / location
    if folder.exists():
        raise ConfigurationError(f"{folder} is there already: use another name, or remove it.")
    if location in _TAKEN | sys.stdlib_module_names or find_spec(location) or iskeyword(location):
        raise ConfigurationError(
            f"{location!r} names something else already: the platform, a package or a word of "
            "Python. Use another name."
        )
    for path, text in _files(location).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def _files(location: str) -> Mapping[Path, str]:
    return {
        _destination(path, location): Template(source.read_text()).substitute(location=location)
        for path, source in _walk(files(__name__) / "template")
    }


def _walk(folder: Traversable, path: Path = Path()) -> Iterator[tuple[Path, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, path / entry.name)
        elif entry.name.endswith(_SUFFIX):
            yield path / entry.name.removesuffix(_SUFFIX), entry


def _destination(path: Path, location: str) -> Path:
    """Puts the package below its name, and gives tests a name of their own in the repository."""
    if path.parts[0] == "src":
        return Path("src", location, *path.parts[1:])
    if path.parts[0] == "tests":
        return Path("tests", path.name.replace("test_", f"test_{location}_", 1))
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forge-scaffold",
        description="Writes a new code location: one asset made of another location's table, "
        "with its check, job, schedule, test and values for the cluster.",
    )
    parser.add_argument("location", help="name: lower-case letters and digits")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("code_locations"),
        help="where its folder is made (default: code_locations)",
    )
    return parser
