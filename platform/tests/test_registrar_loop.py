from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from forge_platform.registrar.health import failing_loops, health_server
from forge_platform.registrar.loop import Loop, watch_for_ever


class Step:
    """A step that counts its calls and does what it is told."""

    def __init__(self, outcome: Callable[[int], bool]) -> None:
        self.calls: list[float] = []
        self._outcome = outcome
        self._called = threading.Condition()

    def __call__(self) -> bool:
        with self._called:
            self.calls.append(time.monotonic())
            self._called.notify_all()
        return self._outcome(len(self.calls))

    def wait_for(self, calls: int, limit: float = 10) -> None:
        with self._called:
            assert self._called.wait_for(lambda: len(self.calls) >= calls, limit)


def start(step: Step, period: float = 60) -> Loop:
    loop = Loop("test", step, period)
    threading.Thread(target=loop.run, daemon=True).start()
    return loop


def always(outcome: bool) -> Callable[[int], bool]:
    return lambda _: outcome


def fails_first(times: int) -> Callable[[int], bool]:
    def outcome(call: int) -> bool:
        if call <= times:
            raise ConnectionError("the API server is away")
        return True

    return outcome


def test_a_step_that_is_done_rests_until_something_changes() -> None:
    step = Step(always(True))
    loop = start(step)
    step.wait_for(1)
    time.sleep(0.3)
    assert len(step.calls) == 1
    loop.wake()
    step.wait_for(2, limit=1)


def test_a_step_that_is_not_done_is_repeated_soon_and_then_less_often() -> None:
    step = Step(always(False))
    start(step)
    step.wait_for(4, limit=5)
    waits = [later - earlier for earlier, later in zip(step.calls, step.calls[1:], strict=False)]
    assert waits[0] < 0.5
    assert waits[-1] > waits[0]


def test_a_step_that_fails_is_repeated() -> None:
    step = Step(fails_first(3))
    loop = start(step)
    step.wait_for(4)
    time.sleep(0.2)
    assert loop.has_succeeded
    assert len(step.calls) == 4


def test_without_a_change_a_step_is_done_once_a_period() -> None:
    step = Step(always(True))
    start(step, period=0.2)
    step.wait_for(3, limit=5)


def test_a_watch_that_fails_wakes_its_loop_and_begins_anew() -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("not JSON")

    def wake() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        watch_for_ever(fails, "data", {}, wake)


@contextmanager
def healthy(loop: Loop) -> Iterator[int]:
    server = health_server([loop], 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_loop_that_always_fails_is_alive_but_not_ready() -> None:
    step = Step(fails_first(10_000))
    loop = start(step)
    step.wait_for(1)
    with healthy(loop) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        not_ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
    assert not_ready.status_code == 503
    assert not_ready.text == "test\n"


def test_a_loop_that_hangs_is_not_alive() -> None:
    loop = Loop("test", lambda: True, 1)
    assert failing_loops([loop], "/healthz") == []
    loop.last_turn -= 1000
    assert failing_loops([loop], "/healthz") == ["test"]
