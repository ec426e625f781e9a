"""Real servers for tests and demos, started and stopped by the process that needs them."""

from __future__ import annotations

from forge_platform.testing.postgres import ConnectionParameters, EmbeddedPostgres, free_port
from forge_platform.testing.s3 import S3Server

__all__ = ["ConnectionParameters", "EmbeddedPostgres", "S3Server", "free_port"]
