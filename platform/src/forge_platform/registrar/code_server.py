"""What the registrar asks a code server, over gRPC."""

from __future__ import annotations

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue


def server_id(host: str, port: int, timeout: float = 2) -> str | None:
    """The id that a code server gave itself when it started, None when it does not answer."""
    answer = _ask(host, port, "GetServerId", timeout)
    # It has one text field, like ``StringValue``.
    return None if answer is None else str(StringValue.FromString(answer).value)


def lists_definitions(host: str, port: int, timeout: float = 2) -> bool:
    """Whether a code server answers the question that loading it begins with."""
    return _ask(host, port, "ListRepositories", timeout) is not None


def _ask(host: str, port: int, method: str, timeout: float) -> bytes | None:
    """Dagster's own client is private to it."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        ask = channel.unary_unary(
            f"/api.DagsterApi/{method}", request_serializer=Empty.SerializeToString
        )
        try:
            answer: bytes = ask(Empty(), timeout=timeout)
        except grpc.RpcError:
            return None
        return answer
