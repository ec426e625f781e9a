"""Connections to the outside as Dagster resources; their clients are made on use."""
