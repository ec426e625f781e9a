"""The Iceberg catalog as a Dagster resource."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from forge_platform.errors import PermanentError
from forge_platform.tables import Position

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from forge_platform.iceberg.view import IcebergView


class IcebergResource(dg.ConfigurableResource["IcebergResource"]):
    """Tables of one environment, in whichever catalog the URI names.

    Identifiers are ``namespace.table``; the environment's prefix is added here and nowhere
    else, so assets and contracts are the same in every environment.
    """

    catalog_uri: str = Field(
        repr=False, description="sqlite:///…, postgresql://…, http(s)://… (REST) or glue://region."
    )
    warehouse_path: str = Field(description="Where table files live, or a REST warehouse's name.")
    namespace_prefix: str = Field(default="", description="Put before every namespace.")
    properties: dict[str, str] = Field(
        default_factory=dict, repr=False, description="Further pyiceberg catalog properties."
    )

    _catalog: "Catalog | None" = PrivateAttr(default=None)

    def catalog(self) -> "Catalog":
        """The catalog, opened on first use.

        Raises:
            ConfigurationError: the URI's scheme is not known.
            SourceUnavailable: the catalog cannot be reached.
            AuthenticationFailed: it refuses the credentials.
        """
        from forge_platform.iceberg.catalog import open_catalog

        if self._catalog is None:
            with self.failures():
                self._catalog = open_catalog(self.catalog_uri, self.warehouse_path, self.properties)
        return self._catalog

    def failures(self) -> "AbstractContextManager[None]":
        """Raises the platform's failures in place of those of the catalog and its store."""
        from forge_platform.iceberg.catalog import without_credentials
        from forge_platform.iceberg.failures import translated

        return translated(without_credentials(self.catalog_uri), self.warehouse_path)

    def identifier(self, table: str) -> str:
        """The table's name in the catalog, prefix included."""
        return f"{self.namespace_prefix}{table}"

    def find(self, table: str) -> "Table | None":
        """The table, or None when nothing was ever written to it."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            with self.failures():
                return self.catalog().load_table(self.identifier(table))
        except NoSuchTableError:
            return None

    def view(self, table: str, snapshot_id: int | None = None) -> "IcebergView":
        """The table pinned at a snapshot, the current one unless another is asked for.

        Raises:
            PermanentError: the table does not exist yet, or has no such snapshot; the text says
                what to do.
        """
        from forge_platform.iceberg.view import IcebergView, current_snapshot_id

        found = self.find(table)
        if found is None:
            raise PermanentError(
                f"The table {self.identifier(table)} does not exist yet: "
                f"materialise the asset {table.rpartition('.')[2]} first."
            )
        if snapshot_id is not None and found.snapshot_by_id(snapshot_id) is None:
            raise PermanentError(
                f"The table {self.identifier(table)} has no snapshot {snapshot_id}, or none any "
                "more: choose one that it has, or keep snapshots for longer."
            )
        return IcebergView(found, table, snapshot_id or current_snapshot_id(found))

    def watermark(self, table: str) -> str | None:
        """The position in the source up to which the table is complete, if it has one."""
        return self.position(table).watermark

    def position(self, table: str) -> Position:
        """How far the table follows what it is made from."""
        from forge_platform.iceberg.state import position

        found = self.find(table)
        if found is None:
            return Position()
        return position(found)

    def inputs(self, table: str) -> Mapping[str, int]:
        """The upstream snapshots that the table was last made from, by upstream table."""
        return self.position(table).inputs
