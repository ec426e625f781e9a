"""Loops that look again when something changed, and every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kubernetes import client, watch

from forge_platform.logs import event

log = logging.getLogger(__name__)

_WATCH = 240
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0


class Loop:
    """Repeats a step: at once when woken, soon when it is not done, else once a period.

    A step that fails is repeated: what it works on is away now and then, and the loop outlives it.

    Args:
        name: for logs and health.
        step: returns whether everything is as it should be.
        period: seconds between steps when nothing happens.
        settle: seconds in which changes that come together are taken as one.
    """

    def __init__(
        self, name: str, step: Callable[[], bool], period: float, settle: float = 0.05
    ) -> None:
        self.name = name
        self.last_turn = time.monotonic()
        self.has_succeeded = False
        self._step = step
        self._period = period
        self._settle = settle
        self._changed = threading.Event()

    def wake(self) -> None:
        """Has the next step done at once."""
        self._changed.set()

    def run(self) -> None:
        """Repeats the step for ever."""
        retry = _FIRST_RETRY
        while True:
            self._changed.clear()
            done = self._try()
            self.last_turn = time.monotonic()
            if self._changed.wait(self._period if done else retry):
                time.sleep(self._settle)
                retry = _FIRST_RETRY
            else:
                retry = min(2 * retry, _LAST_RETRY)

    def _try(self) -> bool:
        try:
            done = self._step()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next step may work
            log.warning(event("step_failed", loop=self.name, reason=_reason(error)))
            return False
        self.has_succeeded = True
        return done


def _reason(error: Exception) -> str:
    if isinstance(error, client.ApiException):
        return f"{error.status} {error.reason}"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def watch_for_ever(
    call: Callable[..., Any], namespace: str, filters: Mapping[str, str], wake: Callable[[], None]
) -> None:
    """Calls ``wake`` on every change of what a list call lists, and after every reconnection."""
    while True:
        begun = time.monotonic()
        try:
            for _ in watch.Watch().stream(
                call,
                namespace,
                # Where the watch begins need not be the newest: the steps list anew.
                resource_version="0",
                timeout_seconds=_WATCH,
                _request_timeout=(3, _WATCH + 30),
                **filters,
            ):
                wake()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next watch may work
            log.warning(event("watch_failed", call=call.__name__, reason=_reason(error)))
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
        wake()
