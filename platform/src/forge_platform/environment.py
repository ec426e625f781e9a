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
        parts = urlsplit(value)
        if parts.scheme not in schemes:
            raise ValueError(f"must be a URI that starts with {', '.join(schemes)}")
        try:
            _ = parts.port
        except ValueError:
            # Not its own text, which shows a part of the value.
            raise ValueError("must have a number as its port") from None

    return check


def _place(value: str) -> None:
    _not_blank(value)
    segments = value.rpartition("://")[2].strip("/").split("/")
    if {"", ".", ".."} & set(segments):
        # Tables would be written there that Polars cannot read.
        raise ValueError("must not have //, . or .. in its path")


@dataclass(frozen=True)
class Variable:
    """One variable of the environment: what it is for and how its value is checked."""

    name: str
    purpose: str
    check: Callable[[str], None] = _not_blank


def database_variables(prefix: str, database: str = "database") -> Mapping[str, Variable]:
    """The variables of a PostgreSQL database, by field of ``DatabaseResource``."""
    return {
        "host": Variable(f"{prefix}_HOST", f"host name of the {database}"),
        "port": Variable(f"{prefix}_PORT", f"port of the {database}", _port),
        "user": Variable(f"{prefix}_USER", f"user of the {database}"),
        "password": Variable(f"{prefix}_PASSWORD", f"password of the {database}"),
        "database": Variable(f"{prefix}_NAME", f"database of the {database}"),
    }


def store_variable(name: str, purpose: str = "a place for objects") -> Variable:
    """The variable that holds the URI of an S3 prefix or a local folder."""
    return Variable(name, purpose, _uri("file", "s3"))


def api_variable(name: str, purpose: str = "an HTTP API") -> Variable:
    """The variable that holds the URL of an HTTP API."""
    return Variable(name, purpose, _uri("http", "https"))


CATALOG_SCHEMES = ("sqlite", "postgresql", "http", "https", "glue")
CATALOG_VARIABLES: Mapping[str, Variable] = {
    "catalog_uri": Variable(
        "ICEBERG_CATALOG_URI",
        "Iceberg catalog: sqlite:///…, postgresql://…, https://… (REST) or glue://",
        _uri(*CATALOG_SCHEMES),
    ),
    "warehouse_path": Variable(
        "ICEBERG_WAREHOUSE",
        "where table files live: file:///…, s3://bucket/prefix, or a REST warehouse's name",
        _place,
    ),
}
"""By field of ``IcebergResource``."""

VARIABLES: Mapping[str, Variable] = {
    variable.name: variable
    for variable in (
        *database_variables("DB", "source").values(),
        *database_variables("SERVING_DB", "serving copy").values(),
        *CATALOG_VARIABLES.values(),
        store_variable("LANDING_URI", "where customer files are dropped"),
        store_variable("EXPORT_URI", "where Parquet exports are written"),
        api_variable("EXCHANGE_RATES_URL", "the exchange-rate API"),
    )
}


def check_variables(names: Iterable[str]) -> None:
    """Checks that some of ``VARIABLES`` are set and well formed; see ``require``."""
    require(VARIABLES[name] for name in names)


def require(variables: Iterable[Variable]) -> None:
    """Checks that variables are set and well formed; values are never shown.

    Raises:
        ConfigurationError: names every missing and every malformed variable at once.
    """
    problems = [problem for variable in variables if (problem := _problem(variable))]
    if problems:
        raise ConfigurationError(
            "The environment is not complete. Set or correct these variables and start again:\n"
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
