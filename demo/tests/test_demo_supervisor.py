"""The supervisor stops what it started, all of it, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from forge_demo.supervisor import ChildEnded, Supervisor, stop_processes

SLEEP = "import time; time.sleep(300)"
# A child with a child of its own; neither minds a polite request, and giving its memory back takes
# the grandchild a while.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal, time;"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); held = b'x' * (1 << 29);"
    "print('ready', flush=True); time.sleep(300)"], start_new_session=True)
time.sleep(300)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path, tmp_path / "logs", dict(os.environ))
    yield supervisor
    supervisor.stop()


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def belongs(process: psutil.Process, supervisor: Supervisor) -> bool:
    """By the working directory, which the children inherit: another way than the supervisor's."""
    try:
        return process.cwd() == str(supervisor.folder)
    except psutil.Error:
        return False


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for_log(supervisor: Supervisor, name: str, text: str) -> None:
    log = supervisor.logs / f"{name}.log"
    deadline = time.monotonic() + 30
    while text not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_for_a_while(supervisor: Supervisor) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        supervisor.check()
        time.sleep(0.05)


def test_stops_children_and_grandchildren_only(
    supervisor: Supervisor, stranger: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_demo.supervisor.PATIENCE_SECONDS", 0.5)
    supervisor.start("stubborn", python(STUBBORN))
    supervisor.start("meek", python(SLEEP))
    wait_for_log(supervisor, "stubborn", "ready")
    ours = [process for process in psutil.process_iter() if belongs(process, supervisor)]
    assert len(ours) == 3
    supervisor.stop()
    assert not any(is_alive(process) for process in ours)
    assert is_alive(stranger)


def test_demo_in_another_folder_is_left_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("ours", python(SLEEP))
    assert stop_processes(tmp_path / "other") == 0
    supervisor.check()


def test_leftovers_of_a_killed_demo_are_stopped(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("left", python("print('up', flush=True)\n" + SLEEP))
    wait_for_log(supervisor, "left", "up")
    assert stop_processes(tmp_path) == 1
    with pytest.raises(ChildEnded):
        supervisor.check()


def test_child_that_ends_is_named_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    supervisor.start("long", python(SLEEP))
    supervisor.start("brief", python("print('no such table'); raise SystemExit(3)"))
    with pytest.raises(ChildEnded, match=r"(?s)brief ended.*exit code 3.*no such table"):
        check_for_a_while(supervisor)


def test_ctrl_c_of_the_terminal_is_not_for_the_children(supervisor: Supervisor) -> None:
    supervisor.start("child", python("import os; print(os.getsid(0), flush=True)\n" + SLEEP))
    wait_for_log(supervisor, "child", "\n")
    session = int((supervisor.logs / "child.log").read_text())
    assert session != os.getsid(0)


def test_children_have_the_environment_and_no_input(supervisor: Supervisor) -> None:
    code = "import os, sys; print(os.environ['FORGE_DEMO_FOLDER'], repr(sys.stdin.read()))"
    supervisor.start("child", python(code))
    wait_for_log(supervisor, "child", f"{supervisor.folder} ''")
