"""An S3 endpoint over HTTP, in this process."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from forge_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

    from moto.server import ThreadedMotoServer

_HOST = "127.0.0.1"
_REGION = "us-east-1"
_KEY = "forge"


class S3Server:
    """moto's S3 over HTTP on 127.0.0.1.

    Buckets belong to the process, not to the server: two servers of one process share them,
    and they outlive ``stop``.
    """

    def __init__(self, port: int | None = None) -> None:
        """Describe the server; None takes a free port, kept when it is started again."""
        self._port = port or 0
        self._server: ThreadedMotoServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Where clients find it, once started."""
        return f"http://{_HOST}:{self._port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which every S3 client of a process uses this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": _REGION,
            "AWS_DEFAULT_REGION": _REGION,
        }

    def start(self) -> None:
        """Start the server.

        Raises:
            ConfigurationError: moto is not installed, or the port is taken.
        """
        if self._server:
            return
        try:
            from moto.server import ThreadedMotoServer
        except ImportError as error:
            raise ConfigurationError("moto is missing: install forge-platform[testing].") from error

        self._refuse_taken_port()
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else one line per request
        self._server = ThreadedMotoServer(_HOST, self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Stop the server; calling again does nothing."""
        if self._server:
            server, self._server = self._server, None
            server.stop()

    def create_bucket(self, name: str) -> str:
        """Make a bucket unless it exists, and return its ``s3://`` URI."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def _refuse_taken_port(self) -> None:
        """Moto's server would wait for ever for a port that it does not get."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, self._port))
            except OSError as error:
                raise ConfigurationError(
                    f"Port {self._port} is taken: choose another one for the S3 server."
                ) from error
