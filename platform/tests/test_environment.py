"""Variables are checked all at once, and no value is shown."""

import pytest

from forge_platform import ConfigurationError, check_variables, current_environment
from forge_platform.environment import ENVIRONMENTS, VARIABLES

GOOD = {
    "DB_HOST": "db",
    "DB_PORT": "5432",
    "DB_USER": "reader",
    "DB_PASSWORD": "hunter2",
    "DB_NAME": "shop",
    "ICEBERG_CATALOG_URI": "postgresql://u:s3cret@db/catalog",
    "ICEBERG_WAREHOUSE": "s3://bucket/tables",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, "FORGE_ENVIRONMENT"]:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_complete_variables_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, GOOD)
    check_variables(GOOD)


def test_all_missing_and_malformed_variables_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = {"DB_PORT": "abc", "ICEBERG_CATALOG_URI": "ftp://u:s3cret@db", "DB_PASSWORD": "hunter2"}
    set_all(monkeypatch, wrong)
    with pytest.raises(ConfigurationError) as raised:
        check_variables(GOOD)
    text = str(raised.value)
    problems = ["DB_HOST", "DB_PORT", "DB_USER", "DB_NAME", "ICEBERG_CATALOG_URI"]
    assert all(f"- {name} " in text for name in [*problems, "ICEBERG_WAREHOUSE"])
    assert "DB_PASSWORD" not in text
    assert "hunter2" not in text
    assert "s3cret" not in text
    assert "abc" not in text


@pytest.mark.parametrize("port", ["0", "65536", "-1", "5432.0", ""])
def test_a_port_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    set_all(monkeypatch, {"DB_PORT": port})
    with pytest.raises(ConfigurationError, match="DB_PORT must be"):
        check_variables(["DB_PORT"])


def test_a_malformed_port_in_a_uri_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"ICEBERG_CATALOG_URI": "postgresql://u:s3cret@db:x5432/catalog"})
    with pytest.raises(ConfigurationError, match="a number as its port") as raised:
        check_variables(["ICEBERG_CATALOG_URI"])
    assert "x5432" not in str(raised.value)


@pytest.mark.parametrize("path", ["s3://b//tables", "file:///data/../tables", "file:///./data"])
def test_a_warehouse_that_polars_cannot_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    set_all(monkeypatch, {"ICEBERG_WAREHOUSE": path})
    with pytest.raises(ConfigurationError, match="ICEBERG_WAREHOUSE must not have //"):
        check_variables(["ICEBERG_WAREHOUSE"])
    set_all(monkeypatch, {"ICEBERG_WAREHOUSE": "file:///data/tables/"})
    check_variables(["ICEBERG_WAREHOUSE"])


def test_an_unknown_environment_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"FORGE_ENVIRONMENT": "production"})
    with pytest.raises(ConfigurationError, match="dev, staging, prod"):
        current_environment()


def test_dev_is_the_default_and_the_only_one_without_automation() -> None:
    assert current_environment().name == "dev"
    assert [name for name, e in ENVIRONMENTS.items() if not e.automation] == ["dev"]
    assert ENVIRONMENTS["dev"].write_mode == "overwrite"
    assert ENVIRONMENTS["dev"].namespace_prefix == "dev_"
