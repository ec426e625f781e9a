"""Structured logging: one event name and ``name=value`` pairs a line, JSON on the console."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

import dagster as dg


def event(name: str, /, **values: object) -> str:
    """An event as one line: its name, then ``name=value`` pairs, quoted where needed."""
    return " ".join([name, *(f"{key}={_value(value)}" for key, value in values.items())])


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text


def log_rows(log: logging.Logger | dg.DagsterLogManager, table: str, **counts: int) -> None:
    """Logs how many rows a table's write read, kept and rejected.

    Args:
        log: the run's log.
        table: ``namespace.table``.
        counts: rows by what happened to them, for instance ``rows_read=10``.
    """
    log.info(event("rows", table=table, **counts))


LOGGERS: Mapping[str, dg.LoggerDefinition] = {"console": dg.json_console_logger}
"""Loggers of every code location: a run pod's output is JSON lines."""
