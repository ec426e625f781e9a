"""What the registrar asks a code server, over gRPC."""

from __future__ import annotations

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue


def server_id(host: str, port: int, timeout: float = 2) -> str | None:
    """The id that a code server gave itself when it started, None when it does not answer.

    Dagster's own client is private to it. The answer has one text field, like ``StringValue``.
    """
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        ask = channel.unary_unary(
            "/api.DagsterApi/GetServerId",
            request_serializer=Empty.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        try:
            return str(ask(Empty(), timeout=timeout).value)
        except grpc.RpcError:
            return None
