"""What the care of one table knows of the others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from catalogs import local_catalog

from forge_platform.errors import ConfigurationError
from forge_platform.iceberg.maintenance.care import Neighbours
from forge_platform.iceberg.maintenance.orphans import _refuse_shared

SCHEMA = pa.schema([("id", pa.int64())])


def test_tables_of_nested_namespaces_are_neighbours(tmp_path: Path) -> None:
    catalog = local_catalog(tmp_path)
    for namespace in ("top", "top.inner", "top.inner.deep"):
        catalog.create_namespace(namespace)
        location = (tmp_path / namespace).as_uri()
        catalog.create_table(f"{namespace}.things", SCHEMA, location=location)
    found = Neighbours.of(catalog).locations
    assert sorted(found) == ["top.inner.deep.things", "top.inner.things", "top.things"]


@pytest.mark.parametrize("scheme", ["file://", "file:", ""])
def test_one_place_is_the_same_whatever_it_is_called(tmp_path: Path, scheme: str) -> None:
    catalog = local_catalog(tmp_path)
    catalog.create_namespace("space")
    table = catalog.create_table("space.things", SCHEMA)
    path = table.location().removeprefix("file://")
    for inside in (path, f"{path}/", f"{path}/inner"):
        with pytest.raises(ConfigurationError, match="also holds the table"):
            _refuse_shared(table, [f"{scheme}{inside}"])
    _refuse_shared(table, [f"{scheme}{path}_care"])
