"""Compares a source table with an Iceberg table by counts and digests of ranges of the key."""
