"""The data plane on Apache Iceberg: schemas, streaming writes, merges and commits."""
