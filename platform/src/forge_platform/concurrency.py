"""Runs independent pieces of work at once, as many as the machine has processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 4  # each holds a row group in memory


def concurrently(function: Callable[[Item], Result], items: Collection[Item]) -> list[Result]:
    """The results of a function for each item, in order; the first failure ends it."""
    workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)), len(items))
    if workers < 2:  # noqa: PLR2004 - one thread is this one
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))
