"""Loops that look again when something changed, and every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from kubernetes import client, watch

from forge_platform.logs import event

log = logging.getLogger(__name__)

_SETTLE = 0.05
"""Seconds in which changes that come together are taken as one."""
_WATCH = 240
_LONGEST_WAIT = 5.0


class Loop:
    """Repeats a step: at once when woken, soon when it is not done, else once a period.

    A step that fails is repeated: what it works on is away now and then, and the loop outlives it.

    Args:
        name: for logs and health.
        step: returns whether everything is as it should be.
        period: seconds between steps when nothing happens.
    """

    def __init__(self, name: str, step: Callable[[], bool], period: float) -> None:
        self.name = name
        self.last_turn = time.monotonic()
        self.has_succeeded = False
        self._step = step
        self._period = period
        self._changed = threading.Event()

    def wake(self) -> None:
        """Has the next step done at once."""
        self._changed.set()

    def run(self) -> None:
        """Repeats the step for ever."""
        wait = _SETTLE
        while True:
            self._changed.clear()
            done = self._try()
            self.last_turn = time.monotonic()
            wait = self._period if done else min(2 * max(wait, _SETTLE), _LONGEST_WAIT)
            if done:
                self._changed.wait(wait)
                wait = _SETTLE
                time.sleep(_SETTLE)
            else:
                self._changed.wait(wait)

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
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            log.warning(event("watch_failed", call=call.__name__, reason=_reason(error)))
            time.sleep(1)
        wake()
