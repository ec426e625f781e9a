"""Calls beside a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_background(call: Callable[[], T]) -> Future[T]:
    """Makes a call in a thread of its own, which keeps no process from ending.

    A pool's threads do, and those that hang would take the place of others.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:  # noqa: BLE001 - it is raised where the outcome is read
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome
