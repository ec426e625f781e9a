"""Environments and variables: what a deployment sets, read in one place.

Three environments differ by values only. A code location's definitions load with no
variable set: only those that have a default are read while they load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import dagster as dg

from forge_platform.errors import ConfigurationError
from forge_platform.tables import WriteMode


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What differs between dev, staging and prod."""

    name: str
    automation: bool
    namespace_prefix: str = ""
    write_mode: WriteMode | None = None

    @property
    def sensor_status(self) -> dg.DefaultSensorStatus:
        """Whether sensors run as soon as a location is loaded."""
        status = dg.DefaultSensorStatus
        return status.RUNNING if self.automation else status.STOPPED

    @property
    def schedule_status(self) -> dg.DefaultScheduleStatus:
        """Whether schedules run as soon as a location is loaded."""
        status = dg.DefaultScheduleStatus
        return status.RUNNING if self.automation else status.STOPPED


ENVIRONMENTS: Mapping[str, Environment] = {
    environment.name: environment
    for environment in (
        Environment(name="dev", automation=False, namespace_prefix="dev_", write_mode="overwrite"),
        Environment(name="staging", automation=True),
        Environment(name="prod", automation=True),
    )
}


def current_environment() -> Environment:
    """The environment that ``FORGE_ENVIRONMENT`` names, dev when it is not set.

    Raises:
        ConfigurationError: the name is none of the known ones.
    """
    name = os.environ.get("FORGE_ENVIRONMENT", "dev")
    if name not in ENVIRONMENTS:
        known = ", ".join(ENVIRONMENTS)
        raise ConfigurationError(f"FORGE_ENVIRONMENT is {name!r}: set it to one of {known}.")
    return ENVIRONMENTS[name]


HIGHEST_PORT = 65_535


def _integer(value: str) -> None:
    if not value.isdecimal():
        raise ValueError("must be a whole number")


def _port(value: str) -> None:
    _integer(value)
    if not 0 < int(value) <= HIGHEST_PORT:
        raise ValueError(f"must be a port between 1 and {HIGHEST_PORT}")


def _not_blank(value: str) -> None:
    if not value.strip():
        raise ValueError("must not be empty")


def _uri(*schemes: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if urlsplit(value).scheme not in schemes:
            raise ValueError(f"must be a URI that starts with {', '.join(schemes)}")

    return check


@dataclass(frozen=True)
class Variable:
    """One variable of the environment: what it is for and how its value is checked."""

    name: str
    purpose: str
    check: Callable[[str], None] = _not_blank


_DATABASE = {
    "HOST": ("host name", _not_blank),
    "PORT": ("port", _port),
    "USER": ("user", _not_blank),
    "PASSWORD": ("password", _not_blank),
    "NAME": ("database", _not_blank),
}

CATALOG_SCHEMES = ("sqlite", "postgresql", "http", "https", "glue")

VARIABLES: Mapping[str, Variable] = {
    variable.name: variable
    for variable in (
        *(
            Variable(f"{prefix}_{part}", f"{what} of the {database}", check)
            for prefix, database in (("DB", "source"), ("SERVING_DB", "serving copy"))
            for part, (what, check) in _DATABASE.items()
        ),
        Variable(
            "ICEBERG_CATALOG_URI",
            "Iceberg catalog: sqlite:///…, postgresql://…, https://… (REST) or glue://",
            _uri(*CATALOG_SCHEMES),
        ),
        Variable(
            "ICEBERG_WAREHOUSE",
            "where table files live: file:///…, s3://bucket/prefix, or a REST warehouse's name",
        ),
        Variable("LANDING_URI", "where customer files are dropped", _uri("file", "s3")),
        Variable("EXPORT_URI", "where Parquet exports are written", _uri("file", "s3")),
        Variable("EXCHANGE_RATES_URL", "the exchange-rate API", _uri("http", "https")),
    )
}


def check_variables(names: Iterable[str]) -> None:
    """Checks that the variables are set and well formed; values are never shown.

    Raises:
        ConfigurationError: names every missing and every malformed variable at once.
    """
    problems = [problem for name in names if (problem := _problem(VARIABLES[name]))]
    if problems:
        raise ConfigurationError(
            "The environment is not complete. Set these variables and start again:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )


def _problem(variable: Variable) -> str | None:
    value = os.environ.get(variable.name)
    if value is None:
        return f"{variable.name} is not set ({variable.purpose})"
    try:
        variable.check(value)
    except ValueError as error:
        return f"{variable.name} {error} ({variable.purpose})"
    return None
